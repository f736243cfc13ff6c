"""What methods share that write from seed data or from nothing: seeds as prompts show them, lists, over-generation.

Rows are written until the budget passes every filter, or a cap of requests is reached; then there are fewer rows, and
never another method's in their place.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from fac.chat import Message
from fac.data.reply_text import plain
from fac.data.schemas import CHOICE, PAIR, Schema
from fac.errors import FacError
from fac.llm.base import Sampling
from fac.synthesis.method import Outcome, SynthesisInput
from fac.synthesis.novelty import Novelty
from fac.synthesis.replies import ParsedReply, read_reply
from fac.synthesis.samples import HELD_OUT, REPEATED, SIMILAR, Sample, count
from fac.synthesis.writer import Reply, Writer

CAP = 8  # requests for rows, as a multiple of the budget; checks of what they bring come on top
FORM = "form"  # role: how one row is to be written; blank where a prompt set shows none
TASK_PROMPTS = ("about", "row", FORM)  # of a task, which the prompts of several methods show

Propose = Callable[[range], list[Sample]]  # one request for each attempt; a reply may hold several rows
Check = Callable[[list[Sample]], list[Sample]]  # the same samples, those that fail it with a reason


def gather(
    given: SynthesisInput,
    writer: Writer,
    propose: Propose,
    check: Check | None = None,
    *,
    rows: int = 1,
    cut: Callable[[list[Sample], int], list[Sample]] | None = None,
    unlike: bool = True,
) -> Outcome:
    """Over-generate, then cut to the budget: the first that are kept, or those that `cut(kept, budget)` takes.

    Kept is what can be read, asks nothing of the test, repeats nothing, is `unlike` the seed's and earlier rows
    (ROUGE-L, `Settings.novelty`) and passes the `check`. A request is expected to bring `rows` rows. No round makes
    more requests than all before it, so that a writer that cannot do it is found out early.
    """
    screen, samples, asked, rounds, budget = _Screen(given, writer.schema, unlike), list[Sample](), 0, 0, given.budget
    while (kept := sum(s.kept for s in samples)) < budget and asked < CAP * budget:
        rate = max(kept / asked, 1 / CAP) if asked else rows
        requests = min(ceil((budget - kept) / rate), max(asked, ceil(budget / rows)), CAP * budget - asked)
        found = screen.sift(propose(range(asked, asked + requests)))
        if check is not None:
            found = _passed(found, check)
        screen.admit(found)
        samples, asked, rounds = [*samples, *found], asked + requests, rounds + 1
    chosen = (cut or _first)([s for s in samples if s.kept], budget)
    counts = replace(count(samples), added=len(chosen), budget=budget, rounds=max(rounds - 1, 0))
    return Outcome([s.example for s in chosen], samples, chosen, counts=counts)


def _first(kept: list[Sample], budget: int) -> list[Sample]:
    return kept[:budget]


def _passed(samples: Sequence[Sample], check: Check) -> list[Sample]:
    """The samples, those of them that were kept as the check leaves them."""
    checked = iter(check([sample for sample in samples if sample.kept]))
    after = [next(checked) if sample.kept else sample for sample in samples]
    return [replace(sample, kept=not sample.rejected_because) for sample in after]


class _Screen:
    """The filters that need no request."""

    def __init__(self, given: SynthesisInput, schema: Schema[Any], unlike: bool) -> None:
        self.held_out, self.schema = given.held_out, schema
        self.limit = given.settings.novelty if unlike else 1.0
        self.pool = Novelty(self.limit, (differing(schema, example) for example in given.seed_examples))
        self.plain: set[str] = set()

    def sift(self, samples: Sequence[Sample]) -> list[Sample]:
        """Which may be kept; the first of several that are alike."""
        here, seen, found = Novelty(self.limit), set(self.plain), []
        for sample in samples:
            reason = sample.rejected_because
            if sample.example is not None and not reason:
                text, whole = differing(self.schema, sample.example), row_key(self.schema, sample.example)
                if self.schema.asked(sample.example) in self.held_out:
                    reason = HELD_OUT
                elif whole in seen:
                    reason = REPEATED
                elif not (self.pool.is_new(text) and here.is_new(text)):
                    reason = SIMILAR
                else:
                    here.add(text)
                    seen.add(whole)
            found.append(replace(sample, kept=not reason, rejected_because=reason))
        return found

    def admit(self, samples: Sequence[Sample]) -> None:
        """Compare later samples with those that were kept."""
        for sample in samples:
            if sample.kept:
                self.plain.add(row_key(self.schema, sample.example))
                self.pool.add(differing(self.schema, sample.example))


def differing(schema: Schema[Any], example: Any) -> str:
    """The text in which examples differ: what is asked, without replies and options, which are much alike."""
    return "\n".join(schema.asks(example))


def row_key(schema: Schema[Any], example: Any) -> str:
    """What is the same for rows that differ in case, blanks and punctuation alone; answers to instructions aside."""
    return plain(shown(schema, example)["text"])


def shown(schema: Schema[Any], example: Any) -> dict[str, str]:
    """An example for a prompt: `text` in the form in which rows are written, `asked` without replies and options, and
    `chat`, all that is said in its first chat.
    """
    chat = " ".join(turn["content"] for turn in schema.chats(example)[0])
    asked = text = differing(schema, example)
    if schema is PAIR:
        pair = {"prompt": _said(example.prompt), "chosen": example.chosen, "rejected": example.rejected}
        text = json.dumps(pair, ensure_ascii=False)
    elif schema is CHOICE:
        text = json.dumps(schema.dump(example), ensure_ascii=False)
    return {"text": text, "asked": asked, "chat": chat}


def _said(turns: Sequence[Message]) -> str:
    """A prompt as one text, with the roles where it has several turns."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)


def drawn_seeds(given: SynthesisInput, method: str, attempt: int, count: int) -> list[Any]:
    """Seed examples for one request, fewer where there are not so many. Raises FacError where there are none."""
    if not given.seed_examples:
        raise FacError(f"{method} writes from seed examples, and there are none: give the task some, or leave it out.")
    rng = random.Random(f"{given.seed}/{method}/{attempt}")
    return rng.sample(list(given.seed_examples), min(count, len(given.seed_examples)))


def read_rows(writer: Writer, reply: Reply, rows: int) -> list[Sample]:
    """The rows of a list, at most `rows`, each a sample; one that says why, where there is none."""
    parts = writer.schema.several(reply.text)[:rows] or [reply.text]
    samples = []
    for place, part in enumerate(parts):
        # Of a list that was cut only the last row is.
        whole = reply.completion.finished or place < len(parts) - 1
        said = replace(reply.completion, raw=part, finished=whole)
        sample = writer.sample(reply, read_reply(writer.schema, said, writer.prompts.rules, form_of(writer)))
        samples.append(replace(sample, attempt=reply.asked.attempt * rows + place, reply=part))
    return samples


def read_row(writer: Writer, reply: Reply, text: str | None = None) -> Sample:
    """The row of a reply, or of a part of it."""
    said = reply.completion if text is None else replace(reply.completion, raw=text)
    return writer.sample(reply, read_reply(writer.schema, said, writer.prompts.rules, form_of(writer)))


def form_of(writer: Writer) -> str:
    """How a prompt shows one row; "" where it shows none."""
    return "" if writer.prompts.is_blank(FORM) else writer.prompts.render(FORM)


def drawn_at(writer: Writer, temperature: float, top_p: float, rows: int = 1) -> Sampling:
    """As a method's own paper draws, with room for several rows."""
    return Sampling(temperature, top_p, rows * writer.sampling.max_new_tokens)


def row_of(sample: Sample) -> Any:
    """The example of a sample that has one."""
    assert sample.example is not None
    return sample.example


def failed(sample: Sample, reason: str) -> Sample:
    """The sample, kept no longer."""
    return replace(sample, kept=False, rejected_because=reason)


def with_example(sample: Sample, parsed: ParsedReply, schema: Schema[Any]) -> Sample:
    """The sample with what it came to after further requests."""
    example, why = parsed
    chats = [] if example is None else schema.chats(example)
    text = " ".join(turn["content"] for turn in chats[0]) if chats else ""
    return replace(sample, example=example, rejected_because=why, kept=not why, chats=max(len(chats), 1), text=text)
