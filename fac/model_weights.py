"""The weights of models and adapters, looked at before they are used: whole, finite, and exactly the model's.

transformers draws at random what a checkpoint does not hold and drops what it does not know, with a report that is
easily missed. Here every such difference is refused by the names of the tensors, but for what is meant: layers cut off,
a new head, buffers that old versions stored. "Would it load?" is asked of transformers itself, on the meta device, so
that renamed, merged and wrapped layouts count as it reads them, and no weight is read for the answer.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging as hf_logging

from fac.digests import remembered
from fac.errors import FacError
from fac.hub import snapshot
from fac.model_folder import check_folder, no_weights
from fac.model_ref import DECIDING, ModelRef
from fac.weights import check_fetched

_SHOWN = 4  # names of tensors in a sentence
_BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|\.attn\.bias$|\.attention\.bias$|(^|\.)position_ids$")


def load_pretrained(loader: Any, ref: ModelRef, **options: Any) -> Any:
    """`loader.from_pretrained` at the commit that `ref` stands for, with every failure said in one sentence."""
    if ref.is_local:
        _refuse_pointers(ref.folder)
        check_folder(ref.folder, ref.path)
    path = str(ref.folder) if ref.is_local else ref.path
    revision = {} if ref.is_local else {"revision": ref.commit}
    try:
        return loader.from_pretrained(path, **revision, **options)
    except Exception as error:  # transformers, tokenizers and safetensors raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FacError(
            f"The model {ref.path} cannot be loaded ({reason}): give a folder with config.json, tokenizer.json and "
            f"*.safetensors as model.path, or a hub id that this machine can reach."
        ) from None


def load_weights(
    loader: Any, ref: ModelRef, config: Any, *, depth: int | None = None, new: Collection[str] = (), **options: Any
) -> Any:
    """The model that `loader` (an AutoModel class) makes of `config` with the weights of `ref`, all of them.

    `config` may ask for fewer layers than the `depth` that `ref` has; `new` names tensors that no checkpoint brings. An
    embedding that is tied to the head and stored under the head's name only is found there. Raises FacError as
    `check_weights` does.
    """
    renamed = check_weights(loader, ref, config, depth=depth, new=new)
    with quiet():
        model, info = load_pretrained(loader, ref, **_asked(config, renamed), **options)
    _refuse(ref, config, _Faults(_missing(info, new), [], _reshaped(info)))
    return model


def check_weights(
    loader: Any,
    ref: ModelRef,
    config: Any,
    *,
    depth: int | None = None,
    new: Collection[str] = (),
    finite: bool = True,
) -> dict[str, str] | None:
    """Refuse weights that are not whole, not finite (if asked), or not exactly those of the model.

    Returns the renaming of a tied embedding that is stored as the head only, None elsewhere. Raises FacError, naming
    files or tensors: missing, not part of the model, of another shape, or tied by the configuration and yet different.
    """
    if ref.is_local:
        _check_files(ref)
    with quiet(), torch.random.fork_rng(devices=[]):  # what is missing is drawn even there
        model, info = _imagined(loader, ref, config, None)
        check_folder(_folder(ref), ref.path)  # of the hub: transformers puts an adapter on the weights without a word
        files = weight_files(_folder(ref))
        renamed = _under_the_head(model, config, {name: file for file in files for name in _names(file)})
        if renamed:
            model, info = _imagined(loader, ref, config, renamed)
        known = info
        if loader is not AutoModelForCausalLM:  # which has a place for the head, too
            _, known = _imagined(AutoModelForCausalLM, ref, config, renamed)
    unexpected = [name for name in sorted(known["unexpected_keys"]) if not _left_out(name, model, config, depth)]
    brought = [f"{name}, a head of its own" for name in sorted(set(new) - info["missing_keys"])]
    _refuse(ref, config, _Faults(_missing(info, new), unexpected or brought, _reshaped(info)))
    if finite:
        for file in files:
            check_finite(file)
    return renamed


def load_adapter(model: Any, folder: Path, base: str) -> Any:
    """The PeftModel of `model` with the adapter in `folder`; `base` is the model's name.

    Raises FacError unless the adapter holds exactly the tensors, whole and finite, that its configuration adds.
    """
    from peft import PeftModel, get_peft_model_state_dict

    weights = next(iter(sorted(folder.glob("adapter_model.*"))), None)
    if weights is None:
        raise FacError(
            f"There is no adapter in {folder} (adapter_model.safetensors): give the folder that train_sft wrote."
        )
    check_whole(weights)
    check_finite(weights)
    way = "give the model it was trained on"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of keys that are missing: looked at below
            adapted = PeftModel.from_pretrained(model, str(folder))
        meant = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:  # RuntimeError: shapes that differ
        reason = " ".join(str(error).split())[:200]
        raise FacError(f"The adapter {folder} does not go with {base} ({reason}): {way}.") from None
    stored = set(_names(weights))
    if stored != meant:
        missing, extra = sorted(meant - stored), sorted(stored - meant)
        said = "; ".join(f"{what}: {_some(n)}" for what, n in (("missing", missing), ("not part of it", extra)) if n)
        raise FacError(f"The adapter {folder} does not go with {base} ({said}): {way}.")
    return adapted


def decoder_layers(model: nn.Module, count: int, name: str) -> nn.ModuleList:
    """The decoder layers of a transformers model, `count` of them. Raises FacError if there is no such list."""
    whole: Any = model
    text: Any = whole.get_decoder() if hasattr(model, "get_decoder") else model  # not the layers that see images
    for module in text.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise FacError(f"No list of {count} decoder layers was found in {name}: only decoder-only language models will do.")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, and without the reports that are looked at here."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from: the one file, or the shards of an index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            return [folder / shard for shard in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return []


def check_finite(file: Path) -> None:
    """Raise FacError if a tensor in a file holds NaN or infinity, naming the first."""
    broken = remembered("not finite", file, _not_finite)
    if broken:
        raise FacError(f"The weights in {file} are damaged: {broken} holds NaN or infinity. Fetch or train them again.")


def _not_finite(file: Path) -> str:
    for name, tensor in _tensors(file):
        if tensor.is_floating_point():
            values = tensor if tensor.element_size() > 1 else tensor.float()  # 8-bit floats have no isfinite
            if not bool(torch.isfinite(values).all()):
                return name
    return ""


# ------------------------------------------------------------------------------------------------------------- files


def _check_files(ref: ModelRef) -> None:
    """Of a local model: weights are there, every file is whole and no Git LFS pointer."""
    _refuse_pointers(ref.folder)
    try:
        files = weight_files(ref.folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FacError(f"The index of the weights in {ref.path} cannot be read: fetch the model again.") from None
    if not files:
        raise no_weights(ref.folder, ref.path)
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        raise FacError(f"Of the weights in {ref.path}, {_some(gone)} is missing: fetch the model again.")
    for file in files:
        check_whole(file)


def check_whole(file: Path) -> None:
    """Raise FacError if a file of weights is a Git LFS pointer, cut off or otherwise unreadable."""
    check_fetched(file, "The file")
    try:
        _names(file)
    except Exception as error:  # SafetensorError, and for .bin what pickle and zipfile raise
        reason = " ".join(str(error).split())[:120]
        raise FacError(f"{file} is not whole or no file of weights ({reason}): fetch it again.") from None


def _refuse_pointers(folder: Path) -> None:
    """Of the small files of a model's folder, the tokenizer's among them."""
    for file in folder.iterdir():
        if file.is_file() and file.suffix in DECIDING and 0 < file.stat().st_size < 1024:
            check_fetched(file, "The file")


def _folder(ref: ModelRef) -> Path:
    """Where the files of a model are that was looked into already."""
    found = ref.folder if ref.is_local else snapshot(ref.path, ref.commit, "model")
    assert found is not None
    return found


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as stored:
            return list(stored.keys())
    return list(torch.load(file, map_location="meta", mmap=True, weights_only=True))


def _tensor(file: Path, name: str) -> torch.Tensor:
    return next(tensor for own, tensor in _tensors(file, [name]) if own == name)


def _tensors(file: Path, names: Collection[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as stored:
            for name in names or stored.keys():
                yield name, stored.get_tensor(name)
    else:
        yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()


# ----------------------------------------------------------------------------------------------------------- tensors


@dataclass(frozen=True)
class _Faults:
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]


def _asked(config: Any, renamed: dict[str, str] | None) -> dict[str, Any]:
    """What from_pretrained is told, so that it says what it found instead of deciding."""
    return {"config": config, "key_mapping": renamed, "output_loading_info": True, "ignore_mismatched_sizes": True}


def _imagined(loader: Any, ref: ModelRef, config: Any, renamed: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
    """A model without storage, and what transformers says of loading it."""
    return load_pretrained(loader, ref, device_map={"": "meta"}, **_asked(config, renamed))


def _missing(info: dict[str, Any], new: Collection[str]) -> list[str]:
    return sorted(set(info["missing_keys"]) - set(new))


def _reshaped(info: dict[str, Any]) -> list[str]:
    return sorted(f"{name}, {list(here)} in place of {list(meant)}" for name, here, meant in info["mismatched_keys"])


def _left_out(name: str, model: Any, config: Any, depth: int | None) -> bool:
    """Whether a tensor without a place in the model is left out on purpose: a layer cut off, or an old buffer."""
    if _BUFFERS.search(name):
        return True
    kept = config.get_text_config().num_hidden_layers
    layers = decoder_layers(model, kept, name)
    own = next(path for path, module in model.named_modules() if module is layers).rpartition(".")[2]
    place = re.search(rf"(?:^|\.){own}\.(\d+)\.", name)
    return place is not None and kept <= int(place[1]) < (depth or kept)


def _refuse(ref: ModelRef, config: Any, faults: _Faults) -> None:
    parts = {"missing": faults.missing, "not part of it": faults.unexpected, "of another shape": faults.reshaped}
    said = "; ".join(f"{what}: {_some(names)}" for what, names in parts.items() if names)
    if said:
        kind = (getattr(config, "architectures", None) or [config.model_type])[0]
        raise FacError(
            f"The weights in {ref.path} are not those of the {kind} that its config.json describes ({said}): give a "
            f"complete checkpoint under transformers' own names, as save_pretrained writes it."
        )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _under_the_head(model: Any, config: Any, names: dict[str, Path]) -> dict[str, str] | None:
    """The renaming that finds a tied embedding stored as the head only. Raises FacError for a tie that is none."""
    if not getattr(config, "tie_word_embeddings", False):
        return None
    weight = model.get_input_embeddings().weight
    own = next((name for name, parameter in model.named_parameters() if parameter is weight), None)
    heads = [name for name in names if name.endswith("lm_head.weight")]
    if own is None or len(heads) != 1:
        return None
    suffix = ".".join(own.split(".")[-2:])
    stored = [name for name in names if name == suffix or name.endswith(f".{suffix}")]
    if not stored:
        return {rf"^{re.escape(heads[0])}$": own}
    if len(stored) == 1:
        head, embedding = (_tensor(names[name], name) for name in (heads[0], stored[0]))
        if head.shape != embedding.shape or not torch.equal(head, embedding):
            raise FacError(
                f"config.json of {config.name_or_path} ties the embedding to the head, but {stored[0]} and {heads[0]} "
                f"differ: set tie_word_embeddings to false there, or remove the one that is not meant."
            )
    return None
