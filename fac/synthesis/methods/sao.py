"""SAO, self-alignment optimization: personas ask, the writer answers twice and ranks itself (arXiv 2510.06652)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from fac.chat import as_chat
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import INSTRUCTION, PAIR
from fac.synthesis.expansion import TASK_PROMPTS, drawn_at, gather, read_row, row_of, with_example
from fac.synthesis.method import Method, Outcome, SynthesisInput
from fac.synthesis.novelty import Novelty
from fac.synthesis.refusals import plain_line
from fac.synthesis.replies import ParsedReply, read_reply
from fac.synthesis.samples import UNFIT, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.verdicts import ANSWER, CHECK, GIST, PREFER, ask_answers, both_orders, fits
from fac.synthesis.writer import Prompt, Reply, Writer

PERSONAS, ROLE = "personas", "sao"
_LENGTHS = (3, 40)  # words of a persona


def sao(given: SynthesisInput, writer: Writer) -> Outcome:
    """One persona asks once; of two answers the writer's own verdict, the same in both orders, tells the better one.

    No seed data. The writer makes the personas itself, each one line, unlike the others (ROUGE-L at most 0.7): the list
    that the paper uses is not known. Pairs are the two answers; an instruction keeps the better one; a query, which has
    no answers, is checked for its label instead; of a two-answer question the persona's own view is the matching
    answer, and nothing needs to be ranked. Only the data are used, not the preference training. A prompt set whose
    models can write no personas or rank no answers leaves these out: then the row is what is written at once.
    """
    state = _Personas(writer, given.settings)
    ranked = writer.schema in (PAIR, INSTRUCTION) and not writer.prompts.is_blank(PREFER)
    judged = [0, 0]  # pairs of answers, and those with one verdict in both orders

    def propose(attempts: range) -> list[Sample]:
        personas = state.new(attempts)
        prompts = [Prompt(ROLE, {"persona": one}, None, n) for n, one in zip(attempts, personas, strict=False)]
        replies = writer.ask("asking as personas", prompts)
        return [_question(writer, reply) if ranked else read_row(writer, reply) for reply in replies]

    def check(samples: list[Sample]) -> list[Sample]:
        if not ranked:
            return fits(writer, samples)
        after, verdicts = _ranked(writer, samples)
        judged[0] += len(verdicts)
        judged[1] += sum(verdict is not None for verdict in verdicts)
        return after

    outcome = gather(given, writer, propose, check)
    return replace(outcome, counts=replace(outcome.counts, judged=judged[0], agreed=judged[1]))


class _Personas:
    """Who asks: descriptions by the writer, no two alike."""

    def __init__(self, writer: Writer, settings: Settings) -> None:
        self.writer, self.rows, self.held = writer, settings.rows, Novelty(0.7)

    def new(self, attempts: range) -> list[str]:
        """At most one for each attempt; "" for all where the prompt set's models can write none."""
        if self.writer.prompts.is_blank(PERSONAS):
            return [""] * len(attempts)
        starts = range(attempts.start, attempts.start + ceil(len(attempts) / self.rows))
        prompts = [Prompt(PERSONAS, {"rows": self.rows}, None, n) for n in starts]
        sampling = drawn_at(self.writer, 1.0, 1.0)
        found = []
        for reply in self.writer.ask("making up personas", prompts, sampling):
            for line in [] if reply.refused else map(plain_line, reply.text.splitlines()):
                if _LENGTHS[0] <= len(line.split()) <= _LENGTHS[1] and self.held.is_new(line):
                    self.held.add(line)
                    found.append(line)
        return found[: len(attempts)]


def _question(writer: Writer, reply: Reply) -> Sample:
    """What a persona asks, as a row that has no answers yet."""
    prompt = writer.prompts.render(reply.asked.role, **reply.asked.values)
    asked, why = read_reply(INSTRUCTION, reply.completion, writer.prompts.rules, prompt)
    example = Pair(as_chat(asked.instruction), "", "") if asked is not None and writer.schema is PAIR else asked
    return writer.sample(reply, ParsedReply(example, why))


def _ranked(writer: Writer, samples: Sequence[Sample]) -> tuple[list[Sample], list[int | None]]:
    """The rows with their answers, and the verdict on each pair of answers that could be compared.

    A row fails where an answer refuses or was cut, both are the same, or the order decides which is better.
    """
    texts, places = [writer.schema.asks(row_of(s))[-1] for s in samples], [s.attempt for s in samples]
    answers = ask_answers(writer, texts, places, 2, writer.sampling)
    fair = [n for n, (one, other) in enumerate(answers) if _usable(one) and _usable(other) and one.text != other.text]
    verdicts = both_orders(writer, [texts[n] for n in fair], [answers[n] for n in fair], [places[n] for n in fair])
    better = dict(zip(fair, verdicts, strict=True))
    rows = [
        with_example(sample, _row(row_of(sample), own, better.get(n)), writer.schema)
        for n, (sample, own) in enumerate(zip(samples, answers, strict=True))
    ]
    return rows, verdicts


def _usable(answer: Reply) -> bool:
    return bool(answer.text) and answer.completion.finished and not answer.refused


def _row(example: Pair | Instruction, answers: Sequence[Reply], better: int | None) -> ParsedReply:
    if better is None:
        return ParsedReply(None, UNFIT)
    winner, loser = answers[better].text, answers[1 - better].text
    if isinstance(example, Pair):
        return ParsedReply(replace(example, chosen=winner, rejected=loser))
    return ParsedReply(replace(example, output=winner))


def requests(settings: Settings, features: int, budget: int) -> int:
    """A question and a check for each row, and the lists of personas."""
    return 2 * budget + ceil(budget / settings.rows)


METHOD = Method(
    "sao",
    "SAO",
    sao,
    (PERSONAS, ROLE, CHECK, GIST, PREFER, ANSWER, *TASK_PROMPTS),
    requests,
    settings=("rows", "novelty"),
    note="SAO (arXiv 2510.06652): our adaptation to each task; personas by the writer itself, no preference training. "
    "In the lab no personas and no ranking: rows are written from nothing, queries checked for their label (lab form).",
)
