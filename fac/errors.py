"""The one exception type that a user ever sees.

How it is printed is up to the command line (`experiments.harness.cli`).
"""

import difflib
from collections.abc import Iterable


class FacError(Exception):
    """A failure a user can cause and mend. The message is one clear sentence that names the way out.

    The `fac` command prints the message without a traceback and exits with status 1; library users catch it
    like any exception. Everything already computed stays in the store.
    """


def closest(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, as the end of a sentence without its full stop."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    return f": did you mean {close[0]}" if close else f": choose from {', '.join(known)}"
