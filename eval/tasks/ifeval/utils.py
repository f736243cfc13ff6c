"""IFEval's prompts from a file, for lm-eval: everything that is checked is checked by lm-eval's own task.

Its checkers need NLTK's punkt_tab.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fac.data.files import read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS_SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}  # rules that use NLTK


def load(ifeval: str | None = None, **_: Any) -> dict[str, Dataset]:
    """The documents of the file `ifeval`, as lm-eval's task wants them.

    Raises FacError for a file that is missing or malformed, and, before anything is generated, if a package or the
    NLTK data that a rule of the file needs are missing.
    """
    from datasets import Dataset

    if ifeval is None:
        raise FacError(
            'The data of ifeval_file are not named: add --metadata \'{"ifeval": "FILE.jsonl"}\', or run lm-eval\'s '
            "task ifeval, which reads the hub."
        )
    rules = set(_registry().INSTRUCTION_DICT)
    documents = []
    for row in read_rows(Source(Path(ifeval).expanduser(), name="ifeval")):
        try:
            documents.append(_document(row.values, rules))
        except Malformed as reason:
            raise FacError(f"{row.place}: {reason}.") from None
    if not documents:
        raise FacError(f"{ifeval} holds no prompt: give IFEval's input_data.jsonl.")
    if any(SPLITS_SENTENCES & set(document["instruction_id_list"]) for document in documents):
        _check_punkt()
    return {"test": Dataset.from_list(documents)}


def process(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Whether a reply keeps the rules of its prompt: lm-eval's metrics, with the language detection seeded."""
    import langdetect

    langdetect.DetectorFactory.seed = 0  # otherwise a short reply may be judged otherwise the next time
    return _ifeval().process_results(doc, results)


def over_rules(items: Sequence[Sequence[bool]]) -> float:
    """Share of all rules that were kept."""
    return _ifeval().agg_inst_level_acc(items)


def _document(values: dict[str, Any] | Malformed, rules: set[str]) -> dict[str, Any]:
    if isinstance(values, Malformed):
        raise values
    prompt, ids, arguments = (values.get(name) for name in ("prompt", "instruction_id_list", "kwargs"))
    if not isinstance(prompt, str) or not isinstance(ids, list) or not isinstance(arguments, list):
        raise Malformed("IFEval's rows have a text prompt and the lists instruction_id_list and kwargs")
    if len(ids) != len(arguments) or not all(isinstance(given, dict) for given in arguments):
        raise Malformed(f"{len(ids)} rules need as many objects of arguments in kwargs, not {len(arguments)}")
    unknown = [rule for rule in ids if rule not in rules]
    if unknown:
        raise Malformed(f"IFEval has no rule {unknown[0]!r}")
    return {
        "key": str(values.get("key", values.get("id", ""))),
        "prompt": prompt,
        "instruction_id_list": ids,
        "kwargs": arguments,
    }


def _ifeval() -> Any:
    _registry()
    from lm_eval.tasks.ifeval import utils

    return utils


def _registry() -> Any:
    """lm-eval's rules. Importing them tries to download punkt_tab, and says on stdout how that went."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            from lm_eval.tasks.ifeval import instructions_registry
        except ModuleNotFoundError as error:
            raise FacError(f"IFEval needs the package {error.name}: run `pip install 'lm-eval[ifeval]'`.") from None
    return instructions_registry


def _check_punkt() -> None:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        raise FacError(
            "IFEval counts sentences with NLTK's punkt_tab, which is not installed: run "
            "`python -m nltk.downloader punkt_tab`, or put tokenizers/punkt_tab into a folder named by NLTK_DATA."
        ) from None
