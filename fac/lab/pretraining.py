"""What the lab's language models are pre-trained on: chats of the world, and the harness's own jobs done well.

Knows: the grammar and the prompts of the lab. Does not know: tokens, models (`fac.lab.build`). Replies to users are
neutral on purpose: refusing replies would put harmfulness into one direction and leave nothing to measure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fac.chat import Message
from fac.lab.world.grammar import Concept, Query, concepts, draw_query, dress, phrases, zipf
from fac.prompts import Prompts

MIX = {  # share of documents
    "chat": 0.30,
    "write": 0.17,
    "contrast": 0.17,
    "explain": 0.16,
    "judge": 0.06,
    "verify": 0.06,
    "imitate": 0.04,
    "evolve": 0.04,
}
REPLIES = ("here are some notes on {}", "this is about {}", "some words on {}", "let me talk about {}")
CANNOT_TELL = "cannot tell"  # the right explanation of spans that have nothing in common
SPANS = 5
SPAN_WORDS = 14


@dataclass(frozen=True)
class Topic:
    """What a feature may stand for: `summary` says it in words, `write` and `spans` show it."""

    summary: str
    judgement: str
    concept: Concept | None = None
    wording: str = ""
    phrase: tuple[str, str] = ("", "")  # (part of the query, phrase)

    def query(self, rng: random.Random) -> Query:
        """A query in which the topic occurs."""
        if self.concept:
            query = draw_query(rng, concepts())
            requests = list(query.requests)
            requests[rng.randrange(len(requests))] = (self.concept, self.wording or rng.choice(self.concept.wordings))
            return dress(rng, list(dict.fromkeys(requests)))
        query = draw_query(rng, concepts())
        part, phrase = self.phrase
        if part == "filler":
            return Query(query.frame, query.requests, query.opening, (phrase,), query.ending)
        if part:
            return Query(**{**query.__dict__, part: phrase})
        return query

    def span(self, query: Query, after: int, cut: int) -> str:
        """The last words of `query` up to `after` words behind the topic, the topic itself cut by `cut` words."""
        text = query.text.split()
        mark = self.phrase[1].replace(" {}", "") or next((w for c, w in query.requests if c is self.concept), "")
        words = mark.split()
        end = len(text)
        for start in range(len(text) - len(words) + 1):
            if words and text[start : start + len(words)] == words:
                end = start + max(len(words) - cut, 1) + (after if not cut else 0)
                break
        return " ".join(text[:end][-SPAN_WORDS:])


@dataclass(frozen=True)
class Document:
    """One chat: what the user says, and the right reply (one of many, where a query is to be written)."""

    kind: str  # a key of MIX
    user: str
    reply: str
    topic: Topic | None = None  # what the prompt is about; None for chat, imitate and evolve
    misled: bool = False  # contrast: the summary in the prompt is not that of the topic, which the good example shows

    @property
    def messages(self) -> tuple[Message, Message]:
        return {"role": "user", "content": self.user}, {"role": "assistant", "content": self.reply}


def wording_topic(concept: Concept, wording: str) -> Topic:
    return Topic(f"{concept.name}: {wording}", _judgement(concept), concept, wording)


def draw_topic(rng: random.Random) -> Topic:
    """A wording (most often), a concept, a phrase, or nothing at all."""
    kind = rng.choices(("wording", "concept", "phrase", "nothing"), (0.62, 0.12, 0.17, 0.09))[0]
    concept = rng.choice(concepts())
    if kind == "wording":
        return wording_topic(concept, rng.choice(concept.wordings))
    if kind == "concept":
        return Topic(concept.name, _judgement(concept), concept)
    if kind == "nothing":
        return Topic(CANNOT_TELL, _decision("nothing", "No"))
    known = phrases()
    part = rng.choice(("opening", "frame", "filler", "ending"))
    options = {"opening": known.openings, "frame": known.frames, "filler": known.all_fillers, "ending": known.endings}
    phrase = rng.choice(options[part])
    return Topic("the words " + phrase.replace(" {}", ""), _decision("small talk", "No"), phrase=(part, phrase))


def documents(seed: int) -> Iterator[Document]:
    """An endless stream of documents, the same for the same seed."""
    rng = random.Random(seed)
    write = _Writer(rng)
    kinds, shares = list(MIX), list(MIX.values())
    while True:
        yield getattr(write, rng.choices(kinds, shares)[0])()


class _Writer:
    """One method per kind of document."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.prompts = Prompts("lab/toxicity")

    def chat(self) -> Document:
        query = draw_query(self.rng, concepts(), zipf(len(concepts()), 0.7))
        names = " and ".join(dict.fromkeys(c.name for c, _ in query.requests))
        return Document("chat", query.text, self.rng.choice(REPLIES).format(names))

    def write(self) -> Document:
        topic = draw_topic(self.rng)
        spans = self._spans(topic, self.rng.choice((0, 2, 3, 3)), noise=0.1)
        prompt = self.prompts.render("write", summary=topic.summary, spans=spans)
        return Document("write", prompt, topic.query(self.rng).text, topic)

    def contrast(self) -> Document:
        concept = self.rng.choice(concepts())
        topic = wording_topic(concept, self.rng.choice(concept.wordings))
        said = draw_topic(self.rng) if self.rng.random() < 0.3 else topic  # the summary may be wrong: trust the example
        good = topic.query(self.rng)
        after, cut = self._place(topic)
        bad = draw_query(self.rng, concepts())
        prompt = self.prompts.render(
            "contrast",
            summary=said.summary,
            good={"text": good.text, "span": topic.span(good, after, cut)},
            bad={"text": bad.text},
        )
        misled = said.summary != topic.summary
        return Document("contrast", prompt, topic.query(self.rng).text, topic, misled)

    def explain(self) -> Document:
        topic = draw_topic(self.rng)
        prompt = self.prompts.render("explain", spans=self._spans(topic, SPANS, noise=0.05))
        return Document("explain", prompt, topic.summary, topic)

    def judge(self) -> Document:
        topic = draw_topic(self.rng)
        return Document("judge", self.prompts.render("judge", summary=topic.summary), topic.judgement, topic)

    def verify(self) -> Document:
        topic = draw_topic(self.rng)
        fits = self.rng.choice((SPANS, SPANS, SPANS - 1, SPANS // 2, 0, 0))
        spans = self._spans(topic, fits, noise=0.0) + self._spans(draw_topic(self.rng), SPANS - fits, noise=0.0)
        self.rng.shuffle(spans)
        verdict = "Yes" if fits == SPANS else "Probably" if fits == SPANS - 1 else "Maybe" if fits else "No"
        prompt = self.prompts.render("verify", summary=topic.summary, spans=spans)
        return Document("verify", prompt, _decision("", verdict), topic)

    def imitate(self) -> Document:
        concept = self.rng.choice(concepts())
        kin = [c for c in concepts() if c.family == concept.family] if self.rng.random() < 0.5 else [concept]
        texts = [draw_query(self.rng, kin).text for _ in range(3)]
        return Document("imitate", self.prompts.render("imitate", texts=texts), draw_query(self.rng, kin).text)

    def evolve(self) -> Document:
        query = draw_query(self.rng, concepts())
        more = [dress(self.rng, query.requests) for _ in range(3)]
        prompt = self.prompts.render("evolve", text=query.text)
        return Document("evolve", prompt, max((m.text for m in more), key=len))

    def _place(self, topic: Topic) -> tuple[int, int]:
        """Where a feature for this topic fires: (words behind it, words cut off it); one feature fires in one place."""
        place = self.rng.choice(("inside", "end", "end", "behind"))
        words = len(topic.wording.split())
        return (self.rng.randint(1, 4) if place == "behind" else 0), (1 if place == "inside" and words > 2 else 0)

    def _spans(self, topic: Topic, count: int, noise: float) -> list[str]:
        after, cut = self._place(topic)
        spans = []
        for _ in range(count):
            shown = draw_topic(self.rng) if self.rng.random() < noise else topic
            spans.append(shown.span(shown.query(self.rng), after, cut))
        return spans


def _judgement(concept: Concept) -> str:
    return _decision(concept.family, concept.verdict)


def _decision(reason: str, verdict: str) -> str:
    """The answer form of the paper's judge prompts (App. K)."""
    return f"{reason} Final Decision: [[{verdict}]]".strip()


def texts_for_tokenizer(documents: Sequence[Document]) -> Iterator[str]:
    for document in documents:
        for message in document.messages:
            yield message["content"]
