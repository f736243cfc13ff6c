"""GSM8K's questions from a file, for lm-eval, and whether a reply ends in the right number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fac.data.files import read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError

if TYPE_CHECKING:
    from datasets import Dataset

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
ANSWER = re.compile(r"####\s*(" + NUMBER.pattern + r")\s*$")


def load(gsm8k: str | None = None, **_: Any) -> dict[str, Dataset]:
    """The documents of the file `gsm8k`. Raises FacError for a file that is missing or a row that is malformed."""
    from datasets import Dataset

    if gsm8k is None:
        raise FacError('The data of gsm8k_file are not named: add --metadata \'{"gsm8k": "FILE.jsonl"}\'.')
    documents = []
    for row in read_rows(Source(Path(gsm8k).expanduser(), name="gsm8k")):
        try:
            documents.append(_document(row.values))
        except Malformed as reason:
            raise FacError(f"{row.place}: {reason}.") from None
    if not documents:
        raise FacError(f"{gsm8k} holds no question: give GSM8K's test.jsonl.")
    return {"test": Dataset.from_list(documents)}


def _document(values: dict[str, Any] | Malformed) -> dict[str, str]:
    if isinstance(values, Malformed):
        raise values
    question, answer = values.get("question"), values.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not ANSWER.search(answer):
        raise Malformed("there is no question with an answer that ends in #### and a number")
    return {"question": question, "answer": answer}


def process(doc: dict[str, str], results: Sequence[str]) -> dict[str, float]:
    """Whether the last number of the reply is that of the answer."""
    right, found = ANSWER.search(doc["answer"]), NUMBER.findall(results[0])
    assert right is not None
    return {"exact_match": float(bool(found) and _value(found[-1]) == _value(right[1]))}


def _value(number: str) -> float:
    return float(number.replace(",", ""))
