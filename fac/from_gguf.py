"""GGUF files as folders that every part of the project reads.

    python -m fac.from_gguf model.Q4_K_M.gguf FOLDER                       and then model.path=FOLDER
    python -m fac.from_gguf model.Q4_K_M.gguf FOLDER --tokenizer OWNER/NAME

llama.cpp's format holds weights of a few bits, a tokenizer and a chat template. transformers takes the weights apart
again (`gguf_file`, package gguf); here they are written out as plain numbers, checked, and config.json says under
`weights_of` of how many bits they were: numbers of such a model are not those of the original.

The tokenizer is rebuilt from what the file tells, and how a text is cut into words before that is told by a name only
(`tokenizer.ggml.pre`). Where transformers does not know the name it would cut as GPT-2 does, without a word, so such a
file needs the original's tokenizer (`--tokenizer`).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from fac.errors import FacError
from fac.model_folder import CONFIG
from fac.model_weights import quiet
from fac.weights import check_fetched, check_tensor

SAYS = "weights_of"  # key of config.json
MAGIC = b"GGUF"
AS_GPT2 = ("gpt-2", "gpt2", "phi-2", "smollm")  # cut as GPT-2 does; SmolLM's digits by themselves, which no merge joins
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    """The command line; exit status 1 with one sentence if it cannot be done."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("file", type=Path)
    told.add_argument("folder", type=Path)
    told.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights that are written")
    told.add_argument("--tokenizer", help="folder or hub id of the original's tokenizer, in place of the file's")
    given = told.parse_args()
    try:
        write_out(given.file, given.folder, given.dtype, given.tokenizer)
    except FacError as error:
        sys.exit(f"fac: {error}")
    sys.stdout.write(f"written: {given.folder}; use it as model.path={given.folder}\n")


def write_out(file: Path, folder: Path, dtype: str = "float32", tokenizer: str | None = None) -> None:
    """Write a GGUF file of a causal LM to `folder`, whole or not at all, as save_pretrained writes a model.

    `tokenizer` names the folder or hub id of another tokenizer than the file's. The model is held in memory in float32.
    Raises FacError if the folder is there
    already, if the file is none or of an architecture that transformers does not read, if it lacks a weight or holds
    one that is not finite, or if its tokenizer cannot be rebuilt exactly.
    """
    if folder.exists():
        raise FacError(f"{folder} is there already: name another folder, or remove it.")
    check_fetched(file, "The file")
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise FacError(f"{file} is no GGUF file: fetch it again.")
    kept = _kept_as(file)
    if tokenizer is None:
        _check_cutting(file)
    with quiet():
        model = _plain_model(file, DTYPES[dtype])
        words = _tokenizer(file, tokenizer)
        draft = folder.with_name(f"{folder.name}.draft")  # moved when it is whole
        model.save_pretrained(draft)
        words.save_pretrained(draft)
    told = json.loads((draft / CONFIG).read_text())
    told[SAYS] = f"{file.name} (GGUF, {kept}), written out in {dtype}"
    (draft / CONFIG).write_text(json.dumps(told, indent=2))
    draft.rename(folder)


def _plain_model(file: Path, dtype: torch.dtype) -> Any:
    """The model with its weights as plain numbers, all of them there and finite."""
    from transformers import AutoModelForCausalLM

    try:
        loader: Any = AutoModelForCausalLM
        read, info = loader.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers and gguf raise what they like
        raise _unreadable(file, error) from None
    if missing := sorted(info["missing_keys"]):
        raise FacError(f"{file} lacks weights ({', '.join(missing[:4])}): fetch it again, and all its parts.")
    for name, weight in read.named_parameters():
        check_tensor(weight, f"{name} in {file}")
    config = copy.deepcopy(read.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # save_pretrained would refuse
    config.dtype = dtype
    with torch.device("meta"):
        model = type(read)(config)
    model = model.to_empty(device="cpu").to(dtype)
    model.load_state_dict({name: value.to(dtype) for name, value in read.state_dict().items()})
    model.tie_weights()
    model.generation_config = read.generation_config
    return model


def _tokenizer(file: Path, other: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        if other is not None:
            return AutoTokenizer.from_pretrained(other)
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:
        raise _unreadable(file, error) from None


def _check_cutting(file: Path) -> None:
    """Raise FacError for a byte-level tokenizer that cuts texts in a way whose name transformers does not know."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS as KNOWN

    fields = _fields(file)
    kind, cut = (fields.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind == "gpt2" and cut not in (*KNOWN, *AS_GPT2):
        raise FacError(
            f"The tokenizer in {file} cuts texts as {cut!r} does, which transformers does not know: give the original "
            f"model's tokenizer with --tokenizer FOLDER_OR_HUB_ID."
        )


def _kept_as(file: Path) -> str:
    """How most of the numbers in a file are kept, such as Q4_1."""
    sizes: Counter[str] = Counter()
    for tensor in _reader(file).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    return sizes.most_common(1)[0][0]


def _fields(file: Path) -> dict[str, Any]:
    return {
        name: field.contents() for name, field in _reader(file).fields.items() if name.startswith("tokenizer.ggml.")
    }


def _reader(file: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise FacError("GGUF files are read by the package gguf: pip install -c constraints.txt gguf.") from None
    try:
        return GGUFReader(file)
    except Exception as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> FacError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return FacError(f"{file} cannot be read ({reason}): fetch it again, or give the model as its authors publish it.")


if __name__ == "__main__":
    main()
