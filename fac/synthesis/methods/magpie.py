"""Magpie: the writer continues a user's turn that is left open, and answers itself (arXiv 2406.08464)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fac.chat import as_chat
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import INSTRUCTION, PAIR
from fac.llm.base import Opens
from fac.synthesis.expansion import TASK_PROMPTS, drawn_at, gather, read_row
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.replies import ParsedReply
from fac.synthesis.samples import CUT_OFF, REFUSAL, UNFIT, UNREADABLE, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.verdicts import ANSWER, CHECK, GIST, RATE, ask_answers, fits, ratings
from fac.synthesis.writer import Prompt, Reply, Writer

TURN, ROW, ANSWERS = "magpie", "magpie_row", 5
_LENGTHS = (3, 600)  # words of a user's turn


def magpie(given: SynthesisInput, writer: Writer) -> Outcome:
    """Rows from what the writer says in the user's place, at temperature 1: the opening of the turn is all it is given.

    Where a task needs it, a system turn says who writes here (as Magpie's own templates for mathematics or code do). A
    query or an instruction is the turn itself, one that ends with a colon left out; a preference pair the best and the
    worst of five answers to it, by the writer's own grades (Magpie: a reward model's); of a two-answer question the
    turn is the situation, and a second request writes the row. The writer's own check of label or quality follows, in
    place of Magpie's quality rating, and ROUGE-L in place of its distance between embeddings. Longest answers are not
    preferred: length alone raises coverage.
    """
    opens: Opens = "bare user" if given.settings.prefix == "bare" else "user"

    def propose(attempts: range) -> list[Sample]:
        prompts = [Prompt(TURN, {}, None, attempt, opens=opens) for attempt in attempts]
        turns = writer.ask("writing as a user", prompts, drawn_at(writer, 1.0, 1.0))
        if not writer.prompts.is_blank(ROW):
            return _around(writer, turns)
        if writer.schema is PAIR:
            return _of_answers(writer, turns)
        return [_of_turn(writer, turn) for turn in turns]

    return gather(given, writer, propose, lambda samples: fits(writer, samples))


def _of_turn(writer: Writer, turn: Reply) -> Sample:
    """A user's turn as a row."""
    if writer.schema is not INSTRUCTION:
        return read_row(writer, turn)
    why = _unusable(turn)
    return writer.sample(turn, ParsedReply(None if why else Instruction(turn.text), why))


def _unusable(turn: Reply) -> str:
    """Why a user's turn cannot be answered; "" if it can."""
    if turn.refused:
        return REFUSAL
    if not turn.completion.finished:
        return CUT_OFF
    if not _LENGTHS[0] <= len(turn.text.split()) <= _LENGTHS[1]:
        return UNREADABLE
    return UNFIT if turn.text.rstrip().endswith((":", "：")) else ""


def _around(writer: Writer, turns: Sequence[Reply]) -> list[Sample]:
    """Rows written around what users say."""
    usable = [turn for turn in turns if not _unusable(turn)]
    prompts = [Prompt(ROW, {"text": turn.text}, None, turn.asked.attempt) for turn in usable]
    rows = {reply.asked.attempt: reply for reply in writer.ask("writing rows around turns", prompts)}
    return [
        read_row(writer, rows[turn.asked.attempt])
        if turn.asked.attempt in rows
        else writer.sample(turn, ParsedReply(None, _unusable(turn)))
        for turn in turns
    ]


def _of_answers(writer: Writer, turns: Sequence[Reply]) -> list[Sample]:
    """Pairs of the best and the worst answer to what users say."""
    usable = [turn for turn in turns if not _unusable(turn)]
    texts, places = [turn.text for turn in usable], [turn.asked.attempt for turn in usable]
    answers = ask_answers(writer, texts, places, ANSWERS, replace(writer.sampling, top_p=1.0))
    grades = ratings(writer, texts, answers)
    pairs = {
        place: _pair(text, own, graded) for place, text, own, graded in zip(places, texts, answers, grades, strict=True)
    }
    return [writer.sample(turn, pairs.get(turn.asked.attempt) or ParsedReply(None, _unusable(turn))) for turn in turns]


def _pair(text: str, answers: Sequence[Reply], grades: Sequence[float]) -> ParsedReply:
    whole = zip(grades, answers, strict=True)
    graded = sorted((grade, reply.text) for grade, reply in whole if grade and reply.completion.finished)
    if not graded or graded[0][0] == graded[-1][0]:
        return ParsedReply(None, UNFIT)  # none is better
    return ParsedReply(Pair(as_chat(text), chosen=graded[-1][1], rejected=graded[0][1]))


def requests(settings: Settings, features: int, budget: int) -> int:
    """A turn and a check for each row."""
    return 2 * budget


METHOD = Method(
    "magpie",
    "Magpie",
    magpie,
    (TURN, ROW, CHECK, GIST, RATE, ANSWER, *TASK_PROMPTS),
    requests,
    settings=("novelty", "prefix"),
    engines=("transformers", "vllm"),
    note="Magpie (arXiv 2406.08464): our adaptation to each task (two-answer questions are unnatural for it); the "
    "writer's own check in place of reward model and embeddings. In the lab no system turn; the check of a query's "
    "label first asks what it is about; pairs and questions are written around the turn, and not checked (lab form).",
)
