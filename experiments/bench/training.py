"""The parts of the GPU bench that train: classifier, reward model and fine-tuning by LoRA, as scale=paper trains them.

Of each: tokens and steps a second, memory, where a step's time goes, and the kernels that take most of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.bench.clock import Figures
from experiments.bench.step_phases import Phases
from fac.backbone import load_tokenizer
from fac.chat import as_chat, encode, exchange
from fac.data.pairs import Pair

if TYPE_CHECKING:
    from experiments.bench.gpu import Bench

WARM_STEPS = 2  # left out of the rate
PHASED_STEPS = 3  # after those that the rate is taken of: each phase timed, which slows them
KERNELS = 25  # that are told, of one more step


def classifier(bench: Bench) -> Figures:
    """The toxicity classifier by LoRA (Table 1)."""
    from fac.train.classifier import train_classifier
    from fac.train.settings import ClassifierSettings

    settings = replace(ClassifierSettings(), epochs=1)
    chats = [as_chat(text) for text in bench.texts(_rows(bench, settings), bench.size.query_tokens, bench.size.longest)]
    examples = [(chat, i % 2) for i, chat in enumerate(chats)]
    train = partial(train_classifier, bench.ref, examples, settings, 42)
    return _trained(bench, "classifier", train, [[chat] for chat in chats], settings)


def reward(bench: Bench) -> Figures:
    """The reward model by LoRA (Table 1)."""
    from fac.train.reward import train_reward
    from fac.train.settings import RewardSettings

    settings = replace(RewardSettings(), epochs=1)
    parts = bench.texts(3 * _rows(bench, settings), bench.size.pair_tokens // 2, bench.size.longest)
    pairs = [Pair(as_chat(p), a, b) for p, a, b in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    train = partial(train_reward, bench.ref, pairs, settings, 42)
    return _trained(bench, "reward", train, [[pair.chosen_chat, pair.rejected_chat] for pair in pairs], settings)


def sft(bench: Bench) -> Figures:
    """Instruction tuning by LoRA."""
    from fac.train.settings import SftSettings
    from fac.train.sft import train_sft

    settings, longest = replace(SftSettings(), epochs=1), bench.size.longest
    count = _rows(bench, settings)
    asked = bench.texts(count, bench.size.lesson_tokens // 4, longest)
    answers = bench.texts(count, 3 * bench.size.lesson_tokens // 4, 3 * longest)
    chats = [exchange(*both) for both in zip(asked, answers, strict=True)]
    train = partial(train_sft, bench.ref, chats, settings, 42)
    return _trained(bench, "sft", train, [[chat] for chat in chats], settings)


def _rows(bench: Bench, settings: Any) -> int:
    steps = bench.size.steps + PHASED_STEPS + 1
    return steps * settings.batch_size * settings.gradient_accumulation


def _trained(
    bench: Bench, name: str, train: Callable[..., object], items: Sequence[Sequence[Any]], settings: Any
) -> Figures:
    """Rates of the steps after the first ones; `train` takes a folder and a progress report."""
    tokenizer, figures, timed = load_tokenizer(bench.ref), {}, bench.size.steps
    tokens = sum(min(len(encode(tokenizer, chat).ids), settings.max_tokens) for item in items for chat in item)
    phases, ends = Phases(bench.now), list[float]()
    profiler = torch.profiler.profile() if bench.device.type == "cuda" else nullcontext()

    def progress(done: int, steps: int) -> None:
        phases.ends("between_steps")
        ends.append(bench.now() if done <= timed else 0.0)
        if done == timed:
            phases.begin()
        elif done == timed + PHASED_STEPS:
            phases.on = False
            profiler.__enter__()
        elif done == steps:
            bench.now()
            profiler.__exit__(None, None, None)

    with tempfile.TemporaryDirectory() as folder, bench.watched(figures, "whole"), phases.watched():
        train(Path(folder), progress)
    rate = (timed - WARM_STEPS) / (ends[timed - 1] - ends[WARM_STEPS - 1])
    figures |= {"steps": timed, "steps_per_s": rate, "tokens_per_step": tokens / len(ends)}
    figures["tokens_per_s"] = rate * figures["tokens_per_step"]
    if isinstance(profiler, torch.profiler.profile):
        bench.notes[name] = _longest(profiler)
    return figures | phases.figures(PHASED_STEPS)


def _longest(profiler: torch.profiler.profile) -> str:
    """Milliseconds of what took longest together, of one step, and how often it ran: on the device, on the host."""
    lines = []
    for where, time in (("device", "self_device_time_total"), ("host", "self_cpu_time_total")):
        seen = sorted(profiler.key_averages(), key=lambda event, time=time: -getattr(event, time))[:KERNELS]
        lines += [f"{where} {getattr(one, time) / 1e3:9.2f} ms {one.count:6d} x {one.key[:100]}" for one in seen]
    return "\n".join(lines)
