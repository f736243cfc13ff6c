"""The language model up to one layer: token ids in, residual stream out.

Knows: how to load a causal LM and its tokenizer by hub id + revision or folder, and how to run only the layers that are
needed. Layer names follow the paper: "layer 16" is the output of `model.layers[15]` = `hidden_states[16]` =
`blocks.15.hook_resid_post`. Does not know: SAEs, chats, corpora.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from fac.chat import TEMPLATES, check_template
from fac.errors import FacError

_SAMPLES, _SAMPLE = 64, 1 << 16  # how many places of a file are read for its identity, and bytes at each


@dataclass(frozen=True)
class ModelRef:
    """Which model: a hub id (with a revision) or a local folder, and how its chats are written."""

    path: str
    revision: str | None = None
    chat_template: str | None = None  # None: the tokenizer's own; "plain": 'role: text' lines; "alpaca"
    dtype: str = "auto"  # "auto" (as stored), "float32", "bfloat16", "float16"
    adapter: str | None = None  # folder of a LoRA adapter of peft, as `fac.train.sft` writes it

    @property
    def is_local(self) -> bool:
        return self.folder.is_dir()

    @property
    def folder(self) -> Path:
        """Where a local model lies."""
        return Path(self.path).expanduser()

    def identity(self) -> str:
        """What makes this model this model, for store keys: hub id @ revision, or a digest of the folder's files.

        A file counts by its size and 64 samples spread over it (all of it up to 4 MiB): cheap at any size, and a
        fine-tuned layer is seen wherever it lies in the file. The place of the folder does not count.
        """
        written = f"{self.chat_template}/{self.dtype}"
        if not self.is_local:
            base = f"{self.path}@{self.revision or 'main'}/{written}"
        else:
            suffixes = {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt"}
            files = [f for f in sorted(self.folder.iterdir()) if f.is_file() and f.suffix in suffixes]
            base = _digest(written, files)
        return base if self.adapter is None else f"{base}+{_adapter_digest(Path(self.adapter))}"


def _digest(start: str, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(start.encode())
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            for place in range(0, size, max(size // _SAMPLES, _SAMPLE)):
                stream.seek(place)
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:20]


def _adapter_digest(folder: Path) -> str:
    """Of the adapter's weights and what scales them; where its base model lies does not count."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError):
        raise FacError(f"There is no adapter in {folder}: give the folder that train_sft wrote.") from None
    told = {  # peft writes sets as lists, in any order
        key: sorted(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key not in ("base_model_name_or_path", "peft_version")
    }
    return _digest(json.dumps(told, sort_keys=True), sorted(folder.glob("adapter_model.*")))


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase:
    """The tokenizer, with a chat template and a padding token. Raises FacError if the folder has none."""
    tokenizer = load_pretrained(AutoTokenizer, ref)
    if ref.chat_template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[ref.chat_template]
    elif ref.chat_template is not None:
        known = " or ".join(TEMPLATES)
        raise FacError(f"model.chat_template={ref.chat_template} is unknown: leave it out or set it to {known}.")
    check_template(tokenizer, ref.path)
    if not tokenizer.is_fast:
        raise FacError(f"{ref.path} has no fast tokenizer (tokenizer.json), which the content mask needs: add one.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def model_depth(ref: ModelRef) -> int:
    """Number of decoder layers of the whole model."""
    return int(load_pretrained(AutoConfig, ref).num_hidden_layers)


class Backbone:
    """A causal LM cut off after `layer` decoder layers; only those layers are loaded.

    Attributes: `layer` (as the paper counts), `d_model`, `tokenizer`, `ref`.
    """

    def __init__(self, ref: ModelRef, layer: int, device: torch.device | None = None) -> None:
        if ref.adapter is not None:
            raise FacError(f"Features are read from a model without adapter: leave out {ref.adapter}, or merge it.")
        config = load_pretrained(AutoConfig, ref)
        depth = config.num_hidden_layers
        if not 1 <= layer <= depth:
            raise FacError(f"{ref.path} has {depth} layers, so sae.layer={layer} does not exist: choose 1 to {depth}.")
        self.ref, self.layer, self.d_model = ref, layer, int(config.hidden_size)
        self.tokenizer = load_tokenizer(ref)
        self.device = device or default_device()
        config.num_hidden_layers = layer
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layer]
        model = load_pretrained(AutoModel, ref, config=config, dtype=_dtype(ref, self.device))
        self._model = model.to(self.device).eval()
        self._last = decoder_layers(self._model, layer, ref.path)[-1]

    @torch.inference_mode()
    def residual(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """Residual stream after the layer for a batch of id lists: [texts, longest, d_model], padded on the right."""
        width = max(len(ids) for ids in batch)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in batch], device=self.device)
        lengths = torch.tensor([len(row) for row in batch], device=self.device)
        mask = torch.arange(width, device=self.device)[None, :] < lengths[:, None]
        caught: list[torch.Tensor] = []

        def catch(_module: nn.Module, _args: Any, out: Any) -> None:
            caught.append(out[0] if isinstance(out, tuple) else out)

        # A hook, since the model's own last hidden state has been through the final norm.
        hook = self._last.register_forward_hook(catch)
        try:
            self._model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        finally:
            hook.remove()
        return caught[0]

    def fingerprint(self) -> str:
        """Digest of loaded weights (embedding rows and the last layer): the same wherever the model was loaded from.

        Weights are rounded to bfloat16 first, so that a model loaded in another dtype is still the same model.
        """
        digest = hashlib.sha256()
        embedding = self._model.get_input_embeddings().weight[:1024]
        for weight in (embedding, next(self._last.parameters())):
            digest.update(weight.detach().bfloat16().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:20]


def load_causal_lm(ref: ModelRef) -> tuple[Any, PreTrainedTokenizerBase]:
    """The whole model with its head, ready to answer, and its tokenizer; on the GPU if there is one.

    `dtype` "auto" is float32 on a CPU, as for `Backbone`. An adapter is merged into the weights. Raises FacError if the
    model or the adapter cannot be loaded.
    """
    device = default_device()
    model = load_pretrained(AutoModelForCausalLM, ref, dtype=_dtype(ref, device))
    if ref.adapter is not None:
        model = _merged(model, ref)
    return model.to(device).eval(), load_tokenizer(ref)


def _merged(model: Any, ref: ModelRef) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(ref.adapter)).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:  # the last is torch's word for shapes that differ
        reason = " ".join(str(error).split())[:200]
        raise FacError(
            f"The adapter {ref.adapter} does not go with {ref.path} ({reason}): give the model it was trained on."
        ) from None


def _dtype(ref: ModelRef, device: torch.device) -> str:
    """Of the weights in memory. On a CPU "auto" is float32: half the speed of bf16 on new processors, but exact."""
    return "float32" if ref.dtype == "auto" and device.type == "cpu" else ref.dtype


def decoder_layers(model: nn.Module, count: int, name: str) -> nn.ModuleList:
    """The decoder layers of a transformers model, `count` of them. Raises FacError if there is no such list."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise FacError(f"No list of {count} decoder layers was found in {name}: only decoder-only language models will do.")


def load_pretrained(loader: Any, ref: ModelRef, **options: Any) -> Any:
    """`loader.from_pretrained`, with every failure said in one sentence."""
    if ref.path.startswith(("/", ".", "~")) and not Path(ref.path).expanduser().is_dir():
        raise FacError(f"There is no model folder {ref.path}: set model.path to a Hugging Face folder or hub id.")
    path = str(ref.folder) if ref.is_local else ref.path
    revision = {} if ref.is_local or ref.revision is None else {"revision": ref.revision}
    try:
        return loader.from_pretrained(path, **revision, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FacError(
            f"The model {ref.path} cannot be loaded ({reason}): give a folder with config.json, tokenizer.json and "
            f"*.safetensors as model.path, or a hub id that this machine can reach."
        ) from None
