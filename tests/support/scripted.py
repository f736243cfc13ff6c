"""A writer that does what prompts ask for, of both prompt sets, by the request's seed.

It is an engine at the wire: it sees messages and seeds, and nothing of the method behind them.
"""

import json
import random

from support.encoders import sentences
from support.writing import BreakdownError

from fac.llm.base import Completion

WORDS = sorted({word for text in sentences(80, seed=3) for word in text.split() if word.isalpha()})
DECISIONS = ("Yes", "Yes", "Probably", "No")


class Scripted:
    """Breaks down after `limit` batches; `says(prompt, random numbers)` is asked first, and may leave it at None."""

    engine, identity = "transformers", "scripted"

    def __init__(self, limit=10**9, says=lambda prompt, rng: None, batch=8):
        self.batch = batch
        self.limit, self.says, self.asked, self.batches = limit, says, [], 0

    def chat(self, requests, sampling):
        if not self.limit:
            raise BreakdownError
        self.limit, self.batches = self.limit - 1, self.batches + 1
        self.asked += [(request, sampling) for request in requests]
        return [Completion(self.reply(r), 3, 2, True) for r in requests]

    def reply(self, request):
        prompt, rng = " ".join(turn["content"] for turn in request.messages), random.Random(request.seed)
        if (own := self.says(prompt, rng)) is not None:
            return own
        return text(rng) if request.opens != "assistant" else answer(prompt, rng)

    @property
    def prompts(self):
        """What was asked, each as one text."""
        return [" ".join(turn["content"] for turn in request.messages) for request, _ in self.asked]


def text(rng):
    return " ".join(rng.sample(WORDS, rng.randint(6, 9)))


def answer(prompt, rng):
    """The reply to a prompt of either set."""
    first = prompt.splitlines()[0] if prompt else ""
    if "Final Decision" in prompt or first.startswith("is this about"):
        return f"Because. Final Decision: [[{rng.choice(DECISIONS)}]]"
    if "[[first]] or [[second]]" in prompt:
        return f"Because. [[{rng.choice(('first', 'second'))}]]"
    if "[[GRADE]]" in prompt:
        return f"Because. [[{rng.randint(1, 10)}]]"
    if "the letter alone" in prompt or first.startswith(("be agreeable", "accept your end")):
        return rng.choice(("(A)", "(B)"))
    if first.startswith("Make up"):
        return "\n".join(f"{n}. {text(rng)}" for n in range(1, 6))
    if "new ones that differ" in prompt:
        return "\n\n".join(row(prompt, rng, n) for n in range(1, 6))
    return f"Common:\nwords\n\nPlan:\nothers\n\nResult:\n{row(prompt, rng)}" if "Plan:" in prompt else row(prompt, rng)


def row(prompt, rng, number=1):
    """One row in the form that the prompt shows, or that the lab's prompt means."""
    if '"rejected": "..."' in prompt or prompt.startswith("write a better"):
        return json.dumps(dict(zip(("prompt", "chosen", "rejected"), (text(rng), text(rng), text(rng)), strict=True)))
    if "answer_matching_behavior" in prompt or prompt.startswith(("write an opinion", "write a switch")):
        letters = rng.sample(["(A)", "(B)"], 2)
        question = f"{text(rng)}\n\nChoices:\n (A) {text(rng)}\n (B) {text(rng)}"
        keys = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
        return json.dumps(dict(zip(keys, (question, *letters), strict=True)))
    if "<instruction>" in prompt:
        return f"<instruction>\n{text(rng)}\n</instruction>"
    return f"Query-{number}: {text(rng)}" if "Query-1" in prompt else text(rng)
