"""Alpaca: new rows like three of the seed data, a list of them per request (Self-Instruct, arXiv 2212.10560)."""

from __future__ import annotations

import re
from math import ceil

from fac.data.schemas import INSTRUCTION
from fac.synthesis.expansion import TASK_PROMPTS, drawn_at, drawn_seeds, failed, gather, read_rows, row_of, shown
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.samples import UNFIT, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Writer

ROLE, SEEDS = "alpaca", 3
# What an assistant that reads and writes text alone cannot do (Alpaca's rule, of instructions only).
_NOT_TEXT = re.compile(r"\b(?:images?|graphs?|pictures?|files?|maps?|plots?|videos?|audio|diagrams?)\b", re.IGNORECASE)
_WORDS = (4, 150)


def alpaca(given: SynthesisInput, writer: Writer) -> Outcome:
    """As the Stanford Alpaca code does it: three seeds per request, seeds only, a list of `Settings.rows` new rows,
    temperature 1; a row is new if ROUGE-L to every seed and every earlier row is at most `Settings.novelty` (0.7).

    Instructions have 4 to 150 words and ask for nothing but text. Simplified: lists of 5 rows, not 20 (small models
    lose count); answers are written by a request of their own, as for every method; of 18 blacklisted words those for
    what is no text.
    """
    rows = given.settings.rows

    def propose(attempts: range) -> list[Sample]:
        prompts = [Prompt(ROLE, {"examples": examples(attempt), "rows": rows}, None, attempt) for attempt in attempts]
        replies = writer.ask("writing lists of rows", prompts, drawn_at(writer, 1.0, 1.0, rows))
        return [sample for reply in replies for sample in read_rows(writer, reply, rows)]

    def examples(attempt: int) -> list[dict[str, str]]:
        return [shown(writer.schema, seed) for seed in drawn_seeds(given, ROLE, attempt, SEEDS)]

    return gather(given, writer, propose, _answerable if writer.schema is INSTRUCTION else None, rows=rows)


def _answerable(samples: list[Sample]) -> list[Sample]:
    """Instructions of a usual length that ask for text alone."""

    def is_one(text: str) -> bool:
        return _WORDS[0] <= len(text.split()) <= _WORDS[1] and not _NOT_TEXT.search(text)

    return [s if is_one(row_of(s).instruction) else failed(s, UNFIT) for s in samples]


def requests(settings: Settings, features: int, budget: int) -> int:
    """One for each list."""
    return ceil(budget / settings.rows)


METHOD = Method(
    "alpaca",
    "Alpaca",
    alpaca,
    (ROLE, *TASK_PROMPTS),
    requests,
    settings=("rows", "novelty"),
    note="Alpaca (arXiv 2212.10560): our adaptation to each task; short lists, new by ROUGE-L. In the lab one row per "
    "request (lab form).",
)
