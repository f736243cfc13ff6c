"""Whether the Hugging Face hub can be asked, found out once and quickly.

Must be used before transformers, datasets or huggingface_hub are imported: they read their environment then.
"""

from __future__ import annotations

import logging
import os
import threading
import urllib.error
import urllib.request

OFFLINE = "HF_HUB_OFFLINE"
log = logging.getLogger(__name__)


def reach_hub(seconds: float = 3.0) -> bool:
    """Whether the hub answers within `seconds`, by any status.

    If not, or if the user is offline by choice, the libraries look into their caches only: each of their own attempts
    would take half a minute of retries.
    """
    if os.environ.get(OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(os.environ.get("HF_ENDPOINT", "https://huggingface.co"), method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except (OSError, ValueError):
            return
        answered.set()

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name heeds no timeout
    asking.start()
    asking.join(seconds)
    if not answered.is_set():
        log.warning("the Hugging Face hub does not answer, so only what lies in its cache here is used.")
        os.environ[OFFLINE] = "1"
    return answered.is_set()
