"""The one exception type that a user ever sees.

Knows: how a failure that a user can cause is said. Does not know: how it is printed (`experiments.run` does that).
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
