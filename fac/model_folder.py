"""What lies where a model's folder was meant: one file of weights, a GGUF file, an adapter, weights under other names.

Each is said in one sentence with what to do. `fac.from_gguf` makes a folder of a GGUF file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from fac.errors import FacError

CONFIG, ADAPTER = "config.json", "adapter_config.json"
GGUF = ".gguf"
READ = (".safetensors", ".bin")
WEIGHTS = (*READ, ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", GGUF)  # what models are kept in
SHARD = re.compile(r"(.*)-\d{5}-of-\d{5}(\.safetensors|\.bin)")


def check_folder(folder: Path, name: str) -> None:
    """Raise FacError unless a folder (called `name`) is that of a model, with its configuration and no adapter."""
    configured = (folder / CONFIG).is_file()
    if (folder / ADAPTER).is_file():
        if configured:
            raise FacError(
                f"{name} holds an adapter ({ADAPTER}) beside the model, and which of the two is meant cannot be told: "
                f"move {ADAPTER} and adapter_model.* away, or merge them into the weights (merge_and_unload of peft)."
            )
        raise FacError(
            f"{name} is a LoRA adapter of {_base_of(folder)}, not a model: merge it into that (merge_and_unload of "
            f"peft, then save_pretrained with the tokenizer), and set model.path to the merged folder."
        )
    ggufs = sorted(file for file in folder.iterdir() if file.suffix == GGUF)
    if ggufs and not any(file.suffix in READ for file in folder.iterdir()):
        raise _is_gguf(ggufs[0])
    if configured:
        return
    found = listed(folder)
    raise FacError(
        f"{name} has no {CONFIG}, so it is no model's folder (it holds {found or 'no weights'}): set model.path to the "
        f"folder that save_pretrained or `hf download` wrote, with {CONFIG}, the tokenizer and the weights."
    )


def not_a_folder(path: Path) -> FacError:
    """What a path says that names no folder, although a model was meant: a file, or nothing that is there."""
    if not path.exists():
        return FacError(f"There is no model folder {path}: set model.path to a Hugging Face folder or hub id.")
    if path.suffix == GGUF:
        return _is_gguf(path)
    if path.suffix in WEIGHTS:
        return FacError(
            f"{path} is one file of weights, and a model is a folder: put it into one as model.safetensors (or, of "
            f"torch, pytorch_model.bin) with its {CONFIG} and tokenizer.json, and set model.path to that."
        )
    return FacError(f"{path} is a file, and a model is a folder: set model.path to the one with its {CONFIG}.")


def no_weights(folder: Path, name: str) -> FacError:
    """What a folder with a configuration, but without weights that are read, holds in their place."""
    shards = sorted(file.name for file in folder.iterdir() if SHARD.fullmatch(file.name))
    if shards and (shard := SHARD.fullmatch(shards[0])):
        index = f"{shard[1]}{shard[2]}.index.json"
        return FacError(f"There are shards of weights in {name}, but not their index {index}: fetch the model again.")
    if found := listed(folder):
        return FacError(
            f"There are no weights in {name} under a name that is read (model.safetensors, pytorch_model.bin, or "
            f"shards with their index), but {found}: rename it if it is such, or convert it by save_pretrained."
        )
    return FacError(f"There are no weights in {name} (model.safetensors or its shards): fetch the model again.")


def listed(folder: Path) -> str:
    """The files of a folder that may be weights, by name."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.suffix in WEIGHTS)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _is_gguf(file: Path) -> FacError:
    return FacError(
        f"{file} is a GGUF file, of which the layers and their gradients cannot be had: write it out once with "
        f"`python -m fac.from_gguf {file} FOLDER`, and set model.path to that folder."
    )


def _base_of(folder: Path) -> str:
    try:
        base = json.loads((folder / ADAPTER).read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    return str(base or "another model")
