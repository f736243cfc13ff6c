"""Files of weights, looked at before they are used: whole, the file itself, and holding numbers.

What Git LFS leaves in place of a file is told as such.
"""

from __future__ import annotations

from pathlib import Path

import torch

from fac.errors import FacError

_POINTER = b"version https://git-lfs"
_PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_fetched(file: Path, what: str) -> None:
    """Raise FacError unless the file is there, holds something, and is no pointer that Git LFS left in its place."""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
    except OSError as error:
        raise FacError(f"{what} {file} cannot be read ({error.strerror or error}): fetch it again.") from None
    if start == _POINTER:
        raise FacError(
            f"{what} {file} is the pointer that Git LFS leaves in place of a file that was not fetched: "
            f"run `git lfs pull` there, or fetch it with `hf download`."
        )
    if not start:
        raise FacError(f"{what} {file} is empty: fetch it again.")


def check_safetensors(file: Path, what: str) -> dict[str, tuple[int, ...]]:
    """Look at every tensor of a .safetensors file; returns their shapes by name. Holds one tensor at a time.

    Raises FacError, naming the tensor, if the file is not whole or holds what cannot be weights (see `check_tensor`).
    """
    from safetensors import SafetensorError, safe_open

    check_fetched(file, what)
    shapes = {}
    try:
        with safe_open(file, framework="pt") as held:
            for name in held.keys():  # noqa: SIM118 (no mapping)
                tensor = held.get_tensor(name)
                check_tensor(tensor, f"{name} in {what[:1].lower()}{what[1:]} {file}")
                shapes[name] = tuple(tensor.shape)
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FacError(f"{what} {file} is damaged or cut off ({reason}): fetch it again.") from None
    return shapes


def check_tensor(tensor: torch.Tensor, name: str) -> None:
    """Raise FacError unless the tensor is dense, of real floating-point numbers, and all of them finite."""
    found = None
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        found = "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.").replace("_", " ")
        found = "without values" if tensor.device.type == "meta" else found
    elif tensor.dtype not in _PLAIN:
        found = f"of the type {str(tensor.dtype).removeprefix('torch.')}"
    if found:
        raise FacError(f"{name} is {found}, where dense real floating-point numbers were expected: save it as float32.")
    if tensor.numel() and not all(end.isfinite() for end in torch.aminmax(tensor.detach())):
        what = "NaN" if tensor.isnan().any() else "infinite"
        raise FacError(f"{name} holds values that are {what}: fetch it again, or train it anew; it is of no use.")
