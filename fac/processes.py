"""Child processes that do not outlive their parent.

They ask for the kernel's parent-death signal.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Called in a child: be killed when the process `parent` ends, however that ends (Linux; elsewhere nothing).

    Interrupts (Ctrl-C) are left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)
