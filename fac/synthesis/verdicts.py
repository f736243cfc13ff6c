"""What a writer is asked about what it wrote: does a row fit its label, which answer is better, how good is one.

A prompt set whose models cannot judge leaves the prompt blank, and then nothing is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from fac.data.choices import Choice
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE
from fac.interpret import RELEVANT, parse_decision
from fac.llm.base import Sampling
from fac.synthesis.expansion import failed, row_of, shown
from fac.synthesis.samples import UNFIT, Sample
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Reply, Writer

CHECK, GIST, PREFER, VOTE, RATE, ANSWER = "check", "gist", "prefer", "vote", "rate", "answer"
_RATING = re.compile(r"\[\[\s*(\d{1,2})\s*\]\]|\b(\d{1,2})\s*(?:/\s*10\b|\W*\Z)")
_PREFERRED = re.compile(r"\[\[\s*(first|second)\s*\]\]", re.IGNORECASE)
_LETTER = re.compile(r"\(([A-Z])\)|\b([A-Z])\b")


def greedy(writer: Writer) -> Sampling:
    """How judgements are drawn: not at all."""
    return Sampling(temperature=0.0, max_new_tokens=writer.sampling.max_new_tokens)


def answering(writer: Writer, settings: Settings) -> Sampling:
    """How answers to written instructions are drawn (`Settings.answers`)."""
    return writer.sampling if settings.answers == "drawn" else greedy(writer)


def fits(writer: Writer, samples: Sequence[Sample], votes: int = 1) -> list[Sample]:
    """The samples; those that the writer does not take for what they should be (a harmful request) fail.

    One judgement without chance, or the majority of so many drawn ones. Where a row's gist is asked for first, that is
    judged.
    """
    if writer.prompts.is_blank(CHECK) or not samples:
        return list(samples)
    gists = [shown(writer.schema, row_of(sample))["text"] for sample in samples]
    if not writer.prompts.is_blank(GIST):
        asked = [Prompt(GIST, {"text": text}, None, s.attempt, s.step) for s, text in zip(samples, gists, strict=True)]
        gists = [reply.text for reply in writer.ask("telling what rows are about", asked, greedy(writer))]

    def values(n: int, vote: int) -> dict[str, str]:
        return {"text": gists[n]}

    drawn = _votes(writer, CHECK, samples, votes, values, lambda text: parse_decision(text) in RELEVANT)
    return [_kept_if(most(said) is True, sample) for sample, said in zip(samples, drawn, strict=True)]


def agrees(writer: Writer, samples: Sequence[Sample], votes: int) -> list[Sample]:
    """Answer-consistency (arXiv 2507.23751): the majority of the votes must be what the row itself says.

    Of a two-answer question which answer matches, of a pair which reply is better.
    """
    role = VOTE if writer.schema is CHOICE else PREFER
    if writer.prompts.is_blank(role) or not samples:
        return list(samples)

    def values(n: int, vote: int) -> dict[str, str]:
        example = row_of(samples[n])
        return {"question": example.text} if role == VOTE else _compared(example, swapped=bool(vote % 2))

    drawn = _votes(writer, role, samples, votes, values, letter if role == VOTE else preferred)
    return [
        _kept_if(most([_own(row_of(sample), vote) == said for vote, said in enumerate(drawn_)]) is True, sample)
        for sample, drawn_ in zip(samples, drawn, strict=True)
    ]


def _own(example: Choice | Pair, vote: int) -> str:
    """What a vote says that agrees with the row."""
    if isinstance(example, Choice):
        return example.letters[example.matching]
    return "second" if vote % 2 else "first"


def _compared(pair: Pair, swapped: bool) -> dict[str, str]:
    first, second = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
    return {"instruction": pair.prompt[-1]["content"], "output_1": first, "output_2": second}


def _votes(
    writer: Writer,
    role: str,
    samples: Sequence[Sample],
    votes: int,
    values: Callable[[int, int], dict[str, str]],
    read: Callable[[str], Any],
) -> list[list[Any]]:
    """What the votes on each sample say; `values(sample, vote)` fill the prompt."""
    prompts = [
        Prompt(role, values(n, vote), None, sample.attempt * votes + vote, sample.step)
        for n, sample in enumerate(samples)
        for vote in range(votes)
    ]
    replies = writer.ask("judging rows", prompts, None if votes > 1 else greedy(writer))
    said = [read(reply.text) for reply in replies]
    return [said[start : start + votes] for start in range(0, len(said), votes)]


def most(said: Sequence[Any]) -> Any:
    """What more than half say; None if nothing is said so often."""
    value, times = Counter(said).most_common(1)[0]
    return value if times > len(said) / 2 else None


def _kept_if(good: bool, sample: Sample) -> Sample:
    return sample if good else failed(sample, UNFIT)


def ask_answers(
    writer: Writer, instructions: Sequence[str], attempts: Sequence[int], each: int, sampling: Sampling, step: int = 1
) -> list[list[Reply]]:
    """`each` answers to every instruction; `attempts` are those of the rows that they belong to."""
    prompts = [
        Prompt(ANSWER, {"instruction": text}, None, attempt * each + n, step)
        for text, attempt in zip(instructions, attempts, strict=True)
        for n in range(each)
    ]
    replies = writer.ask("answering", prompts, sampling)
    return [replies[start : start + each] for start in range(0, len(replies), each)]


def ratings(writer: Writer, instructions: Sequence[str], answers: Sequence[Sequence[Reply]]) -> list[list[float]]:
    """The writer's own grade of each answer, 1 to 10, without chance; 0 where it gives none, or the answer refuses."""
    prompts = [
        Prompt(RATE, {"instruction": text, "answer": reply.text}, None, reply.asked.attempt, reply.asked.step)
        for text, own in zip(instructions, answers, strict=True)
        for reply in own
    ]
    said = iter(writer.ask("rating answers", prompts, greedy(writer)))
    return [[0.0 if reply.refused else rating(next(said).text) for reply in own] for own in answers]


def both_orders(
    writer: Writer, instructions: Sequence[str], answers: Sequence[Sequence[Reply]], attempts: Sequence[int]
) -> list[int | None]:
    """Which of two answers (0 or 1) the writer prefers in either order; None if the order decides."""
    prompts = []
    for text, (one, other), attempt in zip(instructions, answers, attempts, strict=True):
        for swapped, (first, second) in enumerate(((one, other), (other, one))):
            values = {"instruction": text, "output_1": first.text, "output_2": second.text}
            prompts.append(Prompt(PREFER, values, None, attempt * 2 + swapped))
    said = [preferred(reply.text) for reply in writer.ask("ranking answers", prompts, greedy(writer))]
    verdicts = {("first", "second"): 0, ("second", "first"): 1}
    return [verdicts.get((said[at], said[at + 1])) for at in range(0, len(said), 2)]


def rating(text: str) -> float:
    """The last grade of a reply, 1 to 10; 0 if there is none."""
    found = [int(one or other) for one, other in _RATING.findall(text)]
    return float(found[-1]) if found and 1 <= found[-1] <= 10 else 0.0


def preferred(text: str) -> str:
    """The last verdict of a reply: first, second, or "" for neither."""
    found = _PREFERRED.findall(text)
    return found[-1].lower() if found else ""


def letter(text: str) -> str:
    """The letter that an answer begins with or names first; "" if none."""
    found = _LETTER.search(text)
    return (found[1] or found[2]) if found else ""


def likeness_within(answers: Sequence[str], alike: Callable[[str, str], float]) -> float:
    """How alike answers to one question are: the mean over all pairs."""
    return fmean(alike(one, other) for n, one in enumerate(answers) for other in answers[:n]) if answers[1:] else 1.0


def best_half(samples: Sequence[Sample], scores: Sequence[float]) -> list[Sample]:
    """The samples; those with scores below the median fail."""
    middle = sorted(scores)[len(scores) // 2] if scores else 0.0
    return [_kept_if(score >= middle, sample) for sample, score in zip(samples, scores, strict=True)]


def with_output(sample: Sample, output: str) -> Sample:
    """The sample of an instruction with the answer to it."""
    return replace(sample, example=replace(row_of(sample), output=output))
