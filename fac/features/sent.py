"""Arrays on their way from the device to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Sent:
    """Flat tensors that go to the host as one copy, which a GPU makes when it comes to it."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        flat = [tensor.reshape(-1) for tensor in tensors]
        self._types = [torch.empty(0, dtype=tensor.dtype).numpy().dtype for tensor in flat]
        raw = [tensor.view(torch.uint8) for tensor in flat]
        self._ends = np.cumsum([len(part) for part in raw])
        together = torch.cat(raw)
        self._host = together.to("cpu", non_blocking=True)  # to pinned memory
        self._ready = torch.cuda.Event() if together.is_cuda else None
        if self._ready is not None:
            self._ready.record()

    def arrays(self) -> list[NDArray[Any]]:
        """The tensors, once they are there."""
        if self._ready is not None:
            self._ready.synchronize()
        parts = np.split(self._host.numpy(), self._ends[:-1])
        return [part.view(dtype) for part, dtype in zip(parts, self._types, strict=True)]
