"""A writer behind a wire that answers by rule, and the texts that it answers with."""

import json
import random

from support.encoders import sentences

from fac.llm.base import Completion
from fac.synthesis.methods.fac import STEP_ONE, STEP_TWO, prompts_one, prompts_two
from fac.synthesis.settings import Settings

SETTINGS = Settings(n=3, m=2, max_new_tokens=20)
ANCHOR = sentences(60, seed=5)


class BreakdownError(Exception):
    """What a broken engine raises."""


def sentence(seed):
    return random.Random(seed).choice(ANCHOR)


def pair(seed):
    """A preference pair; one in four replies is cut off."""
    prompt, *replies = random.Random(seed).sample(ANCHOR, 3)
    whole = json.dumps(dict(zip(("prompt", "chosen", "rejected"), (prompt, *replies), strict=True)))
    return whole if seed % 4 else whole[:-1]


class Echo:
    """An engine behind a wire that replies by the request's seed; it breaks down after `limit` batches."""

    engine, identity, batch = "echo", "echo", 64

    def __init__(self, limit=10**9, reply=sentence):
        self.limit, self.reply, self.asked = limit, reply, []

    def chat(self, requests, sampling):
        if not self.limit:
            raise BreakdownError
        self.limit -= 1
        self.asked += requests
        return [Completion(self.reply(r.seed), 1, 1, True) for r in requests]


def step_one(given, writer, features, attempts):
    return writer.write(STEP_ONE, prompts_one(given, features, attempts))


def first_step(synthesis, features, attempts):
    given, writer = synthesis
    return step_one(given, writer, features, attempts)


def step_two(given, writer, features, first):
    return writer.write(STEP_TWO, prompts_two(given, features, first.samples, range(given.settings.m)))
