"""CoT-Self-Instruct: two seeds, a plan, a new row, kept if the writer agrees with itself (arXiv 2507.23751)."""

from __future__ import annotations

import re

from fac.data.schemas import INSTRUCTION, QUERY
from fac.synthesis.expansion import TASK_PROMPTS, drawn_at, drawn_seeds, gather, read_row, row_of, shown
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.novelty import Novelty
from fac.synthesis.samples import Sample
from fac.synthesis.settings import Settings
from fac.synthesis.verdicts import (
    ANSWER,
    CHECK,
    GIST,
    PREFER,
    RATE,
    VOTE,
    agrees,
    ask_answers,
    best_half,
    fits,
    likeness_within,
    ratings,
)
from fac.synthesis.writer import Prompt, Writer

ROLE, SEEDS = "cot", 2
_RESULT = re.compile(r"^[\s*_#]*result[\s*_]*[:：][\s*_]*$", re.IGNORECASE | re.MULTILINE)  # heading of the row


def cot_self_instruct(given: SynthesisInput, writer: Writer) -> Outcome:
    """Two seeds per request; the writer lists what they share, plans, and writes one new row; then K more replies.

    Answer-consistency where a row says its own answer: the majority of K votes (`Settings.votes`) must be the label of
    a query, the matching answer of a question, the better reply of a pair. Of instructions the better half by the
    lowest of K answers' grades is kept: RIP's first rule (arXiv 2501.18578), by the writer's own grades in place of a
    reward model's; where nobody can grade, by how alike the K answers are (ROUGE-L). Simplified: the two seeds are
    drawn from all, not from one category, which data sets do not name; temperature 0.7, top-p 0.8.
    """
    votes = given.settings.votes

    def propose(attempts: range) -> list[Sample]:
        prompts = [Prompt(ROLE, {"examples": examples(attempt)}, None, attempt) for attempt in attempts]
        replies = writer.ask("planning and writing", prompts, drawn_at(writer, 0.7, 0.8, 2))  # the plan is as long
        return [read_row(writer, reply, _RESULT.split(reply.text)[-1]) for reply in replies]

    def examples(attempt: int) -> list[dict[str, str]]:
        return [shown(writer.schema, seed) for seed in drawn_seeds(given, ROLE, attempt, SEEDS)]

    def check(samples: list[Sample]) -> list[Sample]:
        if writer.schema is QUERY:
            return fits(writer, samples, votes)
        if writer.schema is INSTRUCTION:
            return _answerable(writer, samples, votes)
        return agrees(writer, samples, votes)

    return gather(given, writer, propose, check)


def _answerable(writer: Writer, samples: list[Sample], votes: int) -> list[Sample]:
    """The half of the instructions to which answers are good, or alike."""
    texts = [row_of(sample).instruction for sample in samples]
    answers = ask_answers(writer, texts, [sample.attempt for sample in samples], votes, writer.sampling)
    if writer.prompts.is_blank(RATE):
        alike = Novelty(1.0).likeness
        return best_half(samples, [likeness_within([reply.text for reply in own], alike) for own in answers])
    return best_half(samples, [min(own) for own in ratings(writer, texts, answers)])


def requests(settings: Settings, features: int, budget: int) -> int:
    """One that writes, and the votes."""
    return budget * (1 + settings.votes)


METHOD = Method(
    "cot_self_instruct",
    "CoT-Self-Instruct",
    cot_self_instruct,
    (ROLE, CHECK, GIST, VOTE, PREFER, RATE, ANSWER, *TASK_PROMPTS),
    requests,
    settings=("votes", "novelty"),
    note="CoT-Self-Instruct (arXiv 2507.23751): our adaptation to each task; consistency by the writer's own votes or "
    "grades, no reward model; seeds of any category. In the lab no plan is written, pairs are not voted on, and "
    "instructions are kept by how alike answers to them are (lab form).",
)
