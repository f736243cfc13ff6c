"""What a feature of a lab model may stand for, in words and in texts: the ground of the pre-training jobs.

Every kind of topic of the written world, its description, its texts, and what the judge of each task says of it.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from fac.lab.world import instructions, opinions, replies
from fac.lab.world.grammar import Concept, Query, concepts, draw_query, dress, phrases
from fac.lab.world.instructions import Constraint, Instruction, constraints, draw_instruction
from fac.lab.world.opinions import Item, Theme, behaviors, draw_item
from fac.lab.world.replies import Aspect, Preference, Side, aspects, draw_preference

CANNOT_TELL = "cannot tell"  # the right explanation of spans that have nothing in common
TASKS = ("toxicity", "reward", "sycophancy", "survival", "instruction")
SPAN_WORDS = 14


@dataclass(frozen=True)
class Topic(ABC):
    """Base of all topics: `summary` says it in words, `text` and `span` show it."""

    summary: str
    reason: str  # what the judge says it is
    task: str = ""  # the task that it is relevant to, if `verdict` is not No
    verdict: str = "No"

    @property
    def mark(self) -> str:
        """The words that show the topic."""
        return ""

    @abstractmethod
    def text(self, rng: random.Random) -> str:
        """A text in which the topic occurs."""

    def judgement(self, task: str) -> str:
        """What the relevance judge of a task says of the summary (paper App. K)."""
        return decision(self.reason, self.verdict if task == self.task else "No")

    def span(self, text: str, after: int, cut: int) -> str:
        """The last words of `text` up to `after` words behind the topic, the topic itself cut by `cut` words."""
        found, mark = text.split(), self.mark.split()
        end = len(found)
        for start in range(len(found) - len(mark) + 1):
            if mark and found[start : start + len(mark)] == mark:
                end = start + max(len(mark) - cut, 1) + (after if not cut else 0)
                break
        return " ".join(found[:end][-SPAN_WORDS:])


@dataclass(frozen=True)
class QueryTopic(Topic):
    """A wording, a concept, a phrase around requests, or (with none of them) nothing at all."""

    concept: Concept | None = None
    wording: str = ""
    phrase: tuple[str, str] = ("", "")  # (part of the query, phrase)

    @property
    def mark(self) -> str:
        return self.wording or self.phrase[1].replace(" {}", "")

    def query(self, rng: random.Random) -> Query:
        """A query in which the topic occurs."""
        query = draw_query(rng, concepts())
        if self.concept:
            requests = list(query.requests)
            requests[rng.randrange(len(requests))] = (self.concept, self.wording or rng.choice(self.concept.wordings))
            return dress(rng, list(dict.fromkeys(requests)))
        part, phrase = self.phrase
        if part == "filler":
            return Query(query.frame, query.requests, query.opening, (phrase,), query.ending)
        return Query(**{**query.__dict__, part: phrase}) if part else query

    def text(self, rng: random.Random) -> str:
        return self.query(rng).text

    def span(self, text: str, after: int, cut: int) -> str:
        if self.concept and not self.wording:  # whichever wording of the concept the text holds
            held = next((w for w in self.concept.wordings if f" {w} " in f" {text} "), "")
            return wording_topic(self.concept, held).span(text, after, cut)
        return super().span(text, after, cut)


@dataclass(frozen=True)
class QualityTopic(Topic):
    """A wording that makes replies better or worse."""

    aspect: Aspect | None = None
    side: Side = "better"
    wording: str = ""

    @property
    def mark(self) -> str:
        return self.wording

    def preference(self, rng: random.Random) -> Preference:
        assert self.aspect
        return draw_preference(rng, [self.aspect], side=self.side, wording=self.wording)

    def text(self, rng: random.Random) -> str:
        pair = self.preference(rng)
        return f"{pair.query.text} {pair.chosen if self.side == 'better' else pair.rejected}"


@dataclass(frozen=True)
class OpinionTopic(Topic):
    """A wording of what a two-answer question is about."""

    theme: Theme | None = None
    wording: str = ""

    @property
    def mark(self) -> str:
        return self.wording

    def item(self, rng: random.Random) -> Item:
        assert self.theme
        return draw_item(rng, [self.theme], wording=self.wording)

    def text(self, rng: random.Random) -> str:
        return self.item(rng).question


@dataclass(frozen=True)
class WishTopic(Topic):
    """A way to ask for a form of the answer."""

    constraint: Constraint | None = None
    wording: str = ""

    @property
    def mark(self) -> str:
        return self.wording

    def instruction(self, rng: random.Random) -> Instruction:
        assert self.constraint
        return draw_instruction(rng, constraints(), fixed=(self.constraint, self.wording))

    def text(self, rng: random.Random) -> str:
        instruction = self.instruction(rng)
        return f"{instruction.text} {instruction.answer(rng)}"


def wording_topic(concept: Concept, wording: str) -> QueryTopic:
    return QueryTopic(
        f"{concept.name}: {wording}", concept.family, "toxicity", concept.verdict, concept=concept, wording=wording
    )


def draw_query_topic(rng: random.Random) -> QueryTopic:
    """A wording (most often), a concept, a phrase, or nothing at all."""
    kind = rng.choices(("wording", "concept", "phrase", "nothing"), (0.62, 0.12, 0.17, 0.09))[0]
    concept = rng.choice(concepts())
    if kind == "wording":
        return wording_topic(concept, rng.choice(concept.wordings))
    if kind == "concept":
        return QueryTopic(concept.name, concept.family, "toxicity", concept.verdict, concept=concept)
    if kind == "nothing":
        return QueryTopic(CANNOT_TELL, "nothing")
    known = phrases()
    part = rng.choice(("opening", "frame", "filler", "ending"))
    options = {"opening": known.openings, "frame": known.frames, "filler": known.all_fillers, "ending": known.endings}
    phrase = rng.choice(options[part])
    return QueryTopic("the words " + phrase.replace(" {}", ""), "small talk", phrase=(part, phrase))


def draw_quality(rng: random.Random) -> QualityTopic:
    aspect = rng.choice(aspects())
    sides: Sequence[Side] = ("better", "worse")
    side = rng.choice(sides)
    wording = rng.choice(aspect.wordings(side))
    verdict = replies.VERDICTS[aspect.section]
    return QualityTopic(f"{aspect.name}: {wording}", aspect.section, "reward", verdict, aspect, side, wording)


def draw_opinion(rng: random.Random, behavior: str) -> OpinionTopic:
    theme = rng.choice(behaviors()[behavior].themes)
    wording = rng.choice(theme.wordings)
    return OpinionTopic(f"{theme.name}: {wording}", behavior, behavior, opinions.VERDICTS[behavior], theme, wording)


def draw_wish(rng: random.Random) -> WishTopic:
    constraint = rng.choice(constraints())
    wording = rng.choice(constraint.asks)
    verdict = instructions.VERDICTS[constraint.group]
    return WishTopic(f"{constraint.name}: {wording}", constraint.group, "instruction", verdict, constraint, wording)


def draw_topic(rng: random.Random, task: str) -> Topic:
    """A topic of the texts of one task."""
    if task == "toxicity":
        return draw_query_topic(rng)
    if task == "reward":
        return draw_quality(rng)
    return draw_wish(rng) if task == "instruction" else draw_opinion(rng, task)


def decision(reason: str, verdict: str) -> str:
    """The answer form of the paper's judge prompts (App. K)."""
    return f"{reason} Final Decision: [[{verdict}]]".strip()
