"""Any file to a corpus of texts: `files` (bytes to rows), `examples` (rows to chats), `corpus` (chats on disk)."""

from fac.data.corpus import Corpus, overlap, write_corpus, write_examples
from fac.data.examples import Example, LoadReport, read_examples
from fac.data.files import content_digest, fingerprint
from fac.data.source import Source

__all__ = [
    "Corpus",
    "Example",
    "LoadReport",
    "Source",
    "content_digest",
    "fingerprint",
    "overlap",
    "read_examples",
    "write_corpus",
    "write_examples",
]
