"""What methods share that write like examples of the seed data and then choose by an embedding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fac.data.schemas import INSTRUCTION, PAIR, Schema
from fac.synthesis.method import Outcome, SynthesisInput
from fac.synthesis.samples import REPEATED, Sample, count, verify
from fac.synthesis.writer import Prompt, Writer


def shown(schema: Schema[Any], examples: Sequence[Any]) -> dict[str, object]:
    """Examples for a prompt: `texts`, the words of each's first chat, and `forms`, each as a writer is to write it."""
    words = [" ".join(turn["content"] for turn in schema.chats(example)[0]) for example in examples]
    return {"texts": words, "forms": [_form(schema, example) for example in examples]}


def _form(schema: Schema[Any], example: Any) -> str:
    if schema is INSTRUCTION:
        return example.instruction
    value = schema.dump(example)
    if schema is PAIR:
        value = {"prompt": schema.asked(example), "chosen": example.chosen, "rejected": example.rejected}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def proposed(writer: Writer, what: str, prompts: Sequence[Prompt]) -> list[Sample]:
    """One sample for each prompt, written for no feature."""
    return [writer.sample(reply) for reply in writer.ask(what, prompts)]


def judged(given: SynthesisInput, writer: Writer, samples: Sequence[Sample]) -> list[Sample]:
    """Decide which samples are kept: readable, asking nothing of the test, repeating neither another nor the seed."""
    known = {writer.schema.plain(example) for example in given.seed_examples}
    return [
        replace(sample, kept=False, rejected_because=REPEATED)
        if sample.kept and writer.schema.plain(sample.example) in known
        else sample
        for sample in verify(writer.schema, samples, (), given.held_out)
    ]


def outcome(given: SynthesisInput, samples: Sequence[Sample], chosen: Sequence[Sample], rounds: int) -> Outcome:
    """What is added, with the counts of all that was written in so many rounds."""
    counts = replace(count(samples), added=len(chosen), budget=given.budget, rounds=max(rounds - 1, 0))
    return Outcome([sample.example for sample in chosen], list(samples), list(chosen), counts=counts)
