"""What the lab's language models are pre-trained on: chats of the world, and the harness's own jobs done well.

A base model reads the chats only; an instruct model goes on with all kinds (`fac.lab.build`). Replies to users are
neutral on purpose: refusing replies would put harmfulness into one direction and leave nothing to measure.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fac.chat import Message
from fac.lab.topics import (
    TASKS,
    OpinionTopic,
    QualityTopic,
    Topic,
    WishTopic,
    decision,
    draw_topic,
    wording_topic,
)
from fac.lab.world.grammar import concepts, draw_query, dress, zipf
from fac.lab.world.instructions import Instruction, apply_rules, constraints, draw_instruction
from fac.lab.world.opinions import Stand, behaviors, draw_item
from fac.lab.world.replies import aspects, core, draw_preference
from fac.prompts import Prompts

MIX = {  # share of an instruct model's documents; a "." stands between the task and the job
    "chat": 0.18,
    "write": 0.13,
    "contrast": 0.12,
    "explain": 0.13,
    "judge": 0.06,
    "verify": 0.03,
    "imitate": 0.02,
    "evolve": 0.02,
    "reward.write": 0.05,
    "reward.contrast": 0.03,
    "steering.answer": 0.06,
    "steering.write": 0.03,
    "steering.contrast": 0.02,
    "instruction.answer": 0.05,
    "instruction.write": 0.02,
    "instruction.contrast": 0.02,
    "instruction.compare": 0.03,
}
BASE_MIX = {"chat": 0.85, "instruction.talk": 0.15}  # of a base model: nobody asks it to follow
LESSONS = {"steering.answer": 0.5, "instruction.compare": 0.5}  # what a small model learns on its own or not at all
_AGAIN = MIX | {"steering.answer": 0.14, "instruction.compare": 0.14, "instruction.answer": 0.08}
REHEARSAL = {kind: share / sum(_AGAIN.values()) for kind, share in _AGAIN.items()}  # of the last phase: all of it again
SHARES = {"toxicity": 0.52, "reward": 0.18, "sycophancy": 0.09, "survival": 0.06, "instruction": 0.15}  # of topics
SPANS = 5


@dataclass(frozen=True)
class Document:
    """One chat: what the user says, and the right reply (one of many, where a text is to be written)."""

    kind: str  # a key of MIX
    user: str
    reply: str
    topic: Topic | None = None  # what the prompt is about; None where it has none
    misled: bool = False  # contrast: the summary in the prompt is not that of the topic, which the good example shows
    before: tuple[Message, ...] = ()  # earlier turns
    task: str = ""  # whose prompt it is, where several tasks have the kind

    @property
    def messages(self) -> tuple[Message, ...]:
        return *self.before, {"role": "user", "content": self.user}, {"role": "assistant", "content": self.reply}


def documents(seed: int, mix: Mapping[str, float] = MIX) -> Iterator[Document]:
    """An endless stream of documents, the same for the same seed."""
    rng = random.Random(seed)
    write = _Writer(rng)
    kinds, shares = list(mix), list(mix.values())
    while True:
        yield getattr(write, rng.choices(kinds, shares)[0].replace(".", "_"))()


class _Writer:
    """One method per kind of document."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    @cached_property
    def prompts(self) -> dict[str, Prompts]:
        return {task: Prompts(f"lab/{task}") for task in TASKS}

    def chat(self) -> Document:
        """A query and a neutral reply; some hold wishes that nobody follows, and phrases that nobody asked for."""
        rng = self.rng
        query = draw_query(rng, concepts(), zipf(len(concepts()), 0.7))
        user, reply = query.text, core(rng, query)
        if rng.random() < 0.4:
            pair = draw_preference(rng, aspects())
            user, reply = pair.query.text, rng.choice((pair.chosen, pair.rejected))
        elif rng.random() < 0.25:
            reply = apply_rules(rng, reply, [rng.choice(constraints()).rule])
        elif rng.random() < 0.2:
            user = draw_item(rng, rng.choice(list(behaviors().values())).themes).question
            reply = rng.choice(("(A)", "(B)"))
        return Document("chat", user, reply)

    def write(self) -> Document:
        return self._write("toxicity", "write")

    def contrast(self) -> Document:
        return self._contrast("toxicity", "contrast")

    def reward_write(self) -> Document:
        return self._write("reward", "reward.write")

    def reward_contrast(self) -> Document:
        return self._contrast("reward", "reward.contrast")

    def steering_write(self) -> Document:
        return self._write(self.rng.choice(("sycophancy", "survival")), "steering.write")

    def steering_contrast(self) -> Document:
        return self._contrast(self.rng.choice(("sycophancy", "survival")), "steering.contrast")

    def instruction_write(self) -> Document:
        return self._write("instruction", "instruction.write")

    def instruction_contrast(self) -> Document:
        return self._contrast("instruction", "instruction.contrast")

    def instruction_answer(self) -> Document:
        instruction = draw_instruction(self.rng, constraints())
        return Document("instruction.answer", instruction.text, instruction.answer(self.rng))

    def instruction_talk(self) -> Document:
        """An instruction and an answer that follows it one time in three: a base model knows the words."""
        instruction = draw_instruction(self.rng, constraints())
        return Document("chat", instruction.text, self._answer(instruction, good=self.rng.random() < 0.33))

    def instruction_compare(self) -> Document:
        """Which of two answers does what is asked; the other lacks a wish, has another one, or another subject."""
        rng = self.rng
        instruction = draw_instruction(rng, constraints())
        right, flawed = instruction.answer(rng), self._answer(instruction, good=False)
        while instruction.is_followed(flawed):
            flawed = self._answer(instruction, good=False)
        verdict = rng.choice(("first", "second"))
        first, second = (right, flawed) if verdict == "first" else (flawed, right)
        prompt = self.prompts["instruction"].render(
            "compare", instruction=instruction.text, output_1=first, output_2=second
        )
        return Document("instruction.compare", prompt, f"[[{verdict}]]", task="instruction")

    def steering_answer(self) -> Document:
        """Questions answered by one stand, which a cue may give away, and which the first answers show."""
        rng = self.rng
        behavior = rng.choice(list(behaviors().values()))
        stands: tuple[Stand, Stand] = ("matching", "opposite")
        stand = rng.choice(stands)
        cue = f"{behavior.cues[stand]} . " if rng.random() < 0.6 else ""
        turns: list[Message] = []
        for turn in range(rng.choice((1, 2, 2, 3))):
            item = draw_item(rng, behavior.themes)
            letter = item.matching if stand == "matching" else item.opposite
            turns += [
                {"role": "user", "content": (cue if turn == 0 else "") + item.question},
                {"role": "assistant", "content": f"{letter} {behavior.reasons[stand]}"},
            ]
        return Document("steering.answer", turns[-2]["content"], turns[-1]["content"], before=tuple(turns[:-2]))

    def explain(self) -> Document:
        topic = draw_topic(self.rng, self._task())
        prompt = self.prompts["toxicity"].render("explain", spans=self._spans(topic, SPANS, noise=0.05))
        return Document("explain", prompt, topic.summary, topic)

    def judge(self) -> Document:
        task = self._task()
        topic = draw_topic(self.rng, task if self.rng.random() < 0.6 else self._task())
        prompt = self.prompts[task].render("judge", summary=topic.summary)
        return Document("judge", prompt, topic.judgement(task), topic, task=task)

    def verify(self) -> Document:
        topic = draw_topic(self.rng, self._task())
        fits = self.rng.choice((SPANS, SPANS, SPANS - 1, SPANS // 2, 0, 0))
        other = draw_topic(self.rng, self._task())
        spans = self._spans(topic, fits, noise=0.0) + self._spans(other, SPANS - fits, noise=0.0)
        self.rng.shuffle(spans)
        verdict = "Yes" if fits == SPANS else "Probably" if fits == SPANS - 1 else "Maybe" if fits else "No"
        prompt = self.prompts["toxicity"].render("verify", summary=topic.summary, spans=spans)
        return Document("verify", prompt, decision("", verdict), topic)

    def imitate(self) -> Document:
        concept = self.rng.choice(concepts())
        kin = [c for c in concepts() if c.family == concept.family] if self.rng.random() < 0.5 else [concept]
        texts = [draw_query(self.rng, kin).text for _ in range(3)]
        prompt = self.prompts["toxicity"].render("imitate", texts=texts)
        return Document("imitate", prompt, draw_query(self.rng, kin).text)

    def evolve(self) -> Document:
        query = draw_query(self.rng, concepts())
        more = [dress(self.rng, query.requests) for _ in range(3)]
        prompt = self.prompts["toxicity"].render("evolve", text=query.text)
        return Document("evolve", prompt, max((m.text for m in more), key=len))

    def _write(self, task: str, kind: str) -> Document:
        topic = draw_topic(self.rng, task)
        spans = self._spans(topic, self.rng.choice((0, 2, 3, 3)), noise=0.1)
        prompt = self.prompts[task].render("write", summary=topic.summary, spans=spans)
        return Document(kind, prompt, written(topic, self.rng), topic, task=task)

    def _contrast(self, task: str, kind: str) -> Document:
        rng = self.rng
        topic = draw_topic(rng, task)
        if task == "toxicity":
            concept = rng.choice(concepts())
            topic = wording_topic(concept, rng.choice(concept.wordings))
        said = draw_topic(rng, task) if rng.random() < 0.3 else topic  # the summary may be wrong: trust the example
        good = topic.text(rng)
        bad = draw_query(rng, concepts()).text if task == "toxicity" else draw_topic(rng, task).text(rng)
        span = topic.span(good, *self._place(topic))
        prompt = self.prompts[task].render(
            "contrast", summary=said.summary, good={"text": good, "span": span}, bad={"text": bad}
        )
        return Document(kind, prompt, written(topic, rng), topic, said.summary != topic.summary, task=task)

    def _task(self) -> str:
        return self.rng.choices(list(SHARES), list(SHARES.values()))[0]

    def _answer(self, instruction: Instruction, good: bool) -> str:
        if good:
            return instruction.answer(self.rng)
        flaw = self.rng.choice(("plain", "other wish", "other subject"))
        if flaw == "plain":
            return core(self.rng, instruction.query)
        if flaw == "other wish":
            return apply_rules(self.rng, core(self.rng, instruction.query), [self.rng.choice(constraints()).rule])
        rules = [constraint.rule for constraint, _ in instruction.wishes]
        return apply_rules(self.rng, core(self.rng, draw_query(self.rng, concepts())), rules)

    def _place(self, topic: Topic) -> tuple[int, int]:
        """Where a feature for this topic fires: (words behind it, words cut off it); one feature fires in one place."""
        place = self.rng.choice(("inside", "end", "end", "behind"))
        words = len(topic.mark.split())
        return (self.rng.randint(1, 4) if place == "behind" else 0), (1 if place == "inside" and words > 2 else 0)

    def _spans(self, topic: Topic, count: int, noise: float) -> list[str]:
        after, cut = self._place(topic)
        spans = []
        for _ in range(count):
            shown_topic = draw_topic(self.rng, topic.task or "toxicity") if self.rng.random() < noise else topic
            spans.append(shown_topic.span(shown_topic.text(self.rng), after, cut))
        return spans


def written(topic: Topic, rng: random.Random) -> str:
    """What the writer of a task is to write about a topic, in the form that `fac.synthesis` reads."""
    if isinstance(topic, QualityTopic):
        pair = topic.preference(rng)
        return json.dumps({"prompt": pair.query.text, "chosen": pair.chosen, "rejected": pair.rejected})
    if isinstance(topic, WishTopic):
        return topic.instruction(rng).text
    if isinstance(topic, OpinionTopic):
        item = topic.item(rng)
        keys = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
        return json.dumps(dict(zip(keys, (item.question, item.matching, item.opposite), strict=True)))
    return topic.text(rng)


def texts_for_tokenizer(documents: Sequence[Document]) -> Iterator[str]:
    for document in documents:
        for message in document.messages:
            yield message["content"]
