"""What the engines with a tokenizer of their own share: requests become ids, and drawn ids replies."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from fac.chat import Opening, encode, open_user_turn
from fac.llm.base import Completion, Request, marks_thought, opens_thought

OPENING = 16  # tokens at the end of a prompt in which a template may open a thought


def openings(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> list[Opening]:
    """What is continued for each request; at the assistant's turn nothing but the model's own tokens stops a reply.

    Raises ValueError if they open different turns: what stops one would stop all.
    """
    if len({request.opens for request in requests}) > 1:
        raise ValueError("requests that are continued together open the same turn")
    return [
        Opening(encode(tokenizer, r.messages, add_generation_prompt=True).ids, frozenset(), "")
        if r.opens == "assistant"
        else open_user_turn(tokenizer, r.messages, bare=r.opens == "bare user")
        for r in requests
    ]


def completion(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    drawn: Sequence[int],
    stops: Collection[int],
    mark: str = "",
) -> Completion:
    """The reply to a prompt: the ids drawn up to the first stop, as text without special tokens, up to the `mark`.

    Marks of thoughts are kept although some tokenizers call them special, and a thought that the template opened in
    the prompt is opened in the reply: else it would be taken for what the model says.
    """
    length = next((i for i, token in enumerate(drawn) if token in stops), len(drawn))
    special = set(tokenizer.all_special_ids)
    marks = {token for token in special if marks_thought(str(tokenizer.convert_ids_to_tokens(token)))}
    text = tokenizer.decode([token for token in drawn[:length] if token not in special - marks])
    opened = "<think>\n" if opens_thought(str(tokenizer.decode(list(prompt[-OPENING:])))) else ""
    said, marked, _ = str(text).partition(mark) if mark else (str(text), "", "")
    return Completion(opened + said.strip(), len(prompt), length, length < len(drawn) or bool(marked))
