"""How the `transformers` engine continues chats. Random numbers are drawn per request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from fac.backbone import decoder_layers, end_tokens, room_for_replies
from fac.errors import FacError
from fac.llm.base import Completion, Request, Sampling, Shift
from fac.llm.local import completion, openings


@torch.inference_mode()
def replies(model: Any, tokenizer: Any, requests: Sequence[Request], sampling: Sampling, name: str) -> list[Completion]:
    """The replies of a model, called `name`, to all requests, continued together."""
    opened = openings(tokenizer, requests)
    prompts = [opening.ids for opening in opened]
    width, shortest = max(map(len, prompts)), min(map(len, prompts))
    room = room_for_replies(model.config, name, width)
    pad = tokenizer.pad_token_id or 0  # masked
    stops = end_tokens(model.generation_config, tokenizer, name).union(*(o.stops for o in opened))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    processors = LogitsProcessorList()
    if sampling.temperature > 0:
        processors = LogitsProcessorList(
            [
                TemperatureLogitsWarper(sampling.temperature),
                TopPLogitsWarper(sampling.top_p),
                _SeededChoice([r.seed for r in requests], width, sampling.max_new_tokens),
            ]
        )
    with _shifted(model, [request.shift for request in requests], name):
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=processors,
            do_sample=False,  # the seeded choice has already been made
            temperature=None,
            top_p=None,
            max_new_tokens=min(sampling.max_new_tokens, room - shortest),
            eos_token_id=sorted(stops),
            pad_token_id=pad,
        )
    rows = [row[: room - len(prompt)] for row, prompt in zip(out[:, width:].tolist(), prompts, strict=True)]
    return [completion(tokenizer, o.ids, row, stops, o.mark) for o, row in zip(opened, rows, strict=True)]


@contextmanager
def _shifted(model: Any, shifts: Sequence[Shift | None], name: str) -> Iterator[None]:
    """Within the context, each row's shift is added where its next token is predicted: the last position of every pass.

    So the prompt is read as it is, but for its last token. Raises FacError for a layer or width that the model has not;
    ValueError if shifts are for different layers.
    """
    asked = [shift for shift in shifts if shift is not None]
    if not asked:
        yield
        return
    text = model.config.get_text_config()
    depth, width, layers = text.num_hidden_layers, text.hidden_size, {shift.layer for shift in asked}
    if len(layers) > 1:
        raise ValueError("requests that are continued together are shifted at one layer")
    (layer,) = layers
    if not 1 <= layer <= depth or any(shift.direction.shape != (width,) for shift in asked):
        raise FacError(
            f"A direction of width {len(asked[0].direction)} for layer {layer} does not fit {name}, which has {depth} "
            f"layers of width {width}: write with the model whose features are read."
        )
    nothing = np.zeros(width, np.float32)
    rows = np.stack([nothing if shift is None else shift.direction for shift in shifts])
    added = torch.as_tensor(rows, device=model.device)

    def add(_module: Any, _args: Any, out: Any) -> Any:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[:, -1] += added.to(hidden)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    hook = decoder_layers(model, depth, name)[layer - 1].register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


class _SeededChoice(LogitsProcessor):
    """Draws the next token of each row by inverse CDF from the row's own random numbers; all others become -inf."""

    def __init__(self, seeds: Sequence[int], prompt_width: int, steps: int) -> None:
        self._uniform = np.stack([np.random.default_rng(seed).random(steps) for seed in seeds])
        self._prompt_width = prompt_width

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        step = input_ids.shape[1] - self._prompt_width
        chance = torch.as_tensor(self._uniform[:, step : step + 1], device=scores.device)
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        token = torch.searchsorted(cumulative, chance * cumulative[:, -1:], right=True)
        token = token.clamp(max=scores.shape[1] - 1)
        chosen: Any = torch.full_like(scores, -torch.inf)
        return chosen.scatter_(1, token, 0.0)
