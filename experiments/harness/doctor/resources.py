"""Is it enough? Memory, disk, time and money, estimated against this machine, measured in a fraction of a second."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.harness.config import RunConfig
from experiments.harness.doctor import needs
from experiments.harness.doctor.base import Finding
from experiments.harness.doctor.needs import GIB, Asked
from experiments.harness.doctor.uses import Uses
from experiments.harness.doctor.workload import Facts, InWorker, Work, Workload, by_name, engine_kind
from fac.llm.openai import OpenAISettings
from fac.llm.settings import VllmSettings
from fac.sae.ref import SaeRef

LONG = 14 * 86400  # seconds after which a stage is worth a warning
TRAINING = "training"  # how the part of the workers is called
OUTPUTS = GIB // 20  # tables, pages and the tracking database of a run
GPU_WEIGHT, CPU_WEIGHT = 2, 4  # bytes: bfloat16, float32
H100_MEMORY = 79 * GIB


@dataclass(frozen=True)
class Machine:
    """What there is to compute with: the first GPU, or the CPU."""

    name: str
    gpu: bool
    memory: int  # bytes
    flops: float  # of a large matrix product, measured


def resources(run: RunConfig, uses: Uses, facts: Facts, load: Workload) -> Iterator[Finding]:
    """Disk, memory, and time and cost of everything that the plan does."""
    yield from disk(run, load.stored)
    if not uses.models:
        yield from costs(load, this_machine())
        return
    if not facts.shapes:
        yield Finding("warning", "memory, time", "cannot be computed before the model's config.json is here")
        return
    here = this_machine()
    yield memory(run, uses, facts, load, here)
    yield from costs(load, here)


def this_machine() -> Machine:
    """The first GPU, or the CPU."""
    import torch

    gpu = torch.cuda.is_available()
    size, dtype = (8192, torch.bfloat16) if gpu else (1024, torch.float32)
    matrix = torch.ones(size, size, dtype=dtype, device="cuda" if gpu else "cpu")
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    flops = 2 * size**3 / min(seconds)
    if gpu:
        return Machine(torch.cuda.get_device_name(0), True, torch.cuda.get_device_properties(0).total_memory, flops)
    return Machine("the CPU", False, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), flops)


# ------------------------------------------------------------------------------------------------------ memory, disk


def memory(run: RunConfig, uses: Uses, facts: Facts, load: Workload, here: Machine) -> Finding:
    """What stands side by side at the worst moment against what there is."""

    def parts_on(weight: int, size: int, workers: int, held: Sequence[InWorker] | None = None) -> dict[str, int]:
        return memory_parts(run, uses, facts, load, weight, size, workers, held)

    if here.gpu:
        workers = run.workers or 1
        parts = parts_on(GPU_WEIGHT, here.memory, workers)
        said = f"about {_told(parts)} of {_gib(here.memory)} on {here.name}"
        if sum(parts.values()) <= here.memory:
            return Finding("ok", "GPU memory", said)
        less = parts_on(GPU_WEIGHT, here.memory, workers, [_checkpointed(held) for held in load.workers])
        if sum(less.values()) <= here.memory:
            tasks = _unchecked(load.workers, parts, here.memory, workers)
            keys = " ".join(f"tasks.{task}.train.gradient_checkpointing=true" for task in tasks)
            return Finding("missing", "GPU memory", f"{said}: does not fit without {keys}")
        way = "use a larger GPU, or lower features.batch_tokens, features.encode_elements or the batch sizes"
        if "vllm" in parts:
            way += ", or llm.gpu_memory_utilization"
        return Finding("missing", "GPU memory", f"{said}: {way}")
    parts = parts_on(CPU_WEIGHT, here.memory, run.workers or len(os.sched_getaffinity(0)))
    if sum(parts.values()) <= here.memory:
        said = f"no GPU: everything runs on the CPU, in about {_told(parts)} of {_gib(here.memory)} RAM"
        return Finding("ok", "GPU memory", said)
    on_gpu = parts_on(GPU_WEIGHT, H100_MEMORY, workers=1)
    said = f"no GPU, and on the CPU it would take {_gib(sum(parts.values()))} of {_gib(here.memory)} RAM"
    return Finding("missing", "GPU memory", f"{said}: use a machine with a GPU, where it takes about {_told(on_gpu)}")


def _checkpointed(held: InWorker) -> InWorker:
    return held if held.load is None else replace(held, load=replace(held.load, checkpointed=True))


def _unchecked(held: Sequence[InWorker], parts: Mapping[str, int], memory: int, workers: int) -> list[str]:
    """The tasks that do not fit beside the other parts without gradient checkpointing, and do not have it."""
    beside = sum(size for name, size in parts.items() if not name.startswith(TRAINING))
    return list(
        dict.fromkeys(
            one.load.task
            for one in held
            if one.load is not None and not one.load.checkpointed
            if beside + workers * worker_bytes(one, GPU_WEIGHT) > memory
        )
    )


def worker_bytes(held: InWorker, weight: int) -> int:
    """A training, or a model that answers; scoring needs less than training."""
    if held.load is not None:
        return needs.training_bytes(held.shape, held.load, weight == GPU_WEIGHT)
    return needs.writer_bytes(held.shape, needs.PROMPT_TOKENS + held.reply, weight)


def memory_parts(
    run: RunConfig,
    uses: Uses,
    facts: Facts,
    load: Workload,
    weight: int,
    memory: int,
    workers: int,
    held: Sequence[InWorker] | None = None,
) -> dict[str, int]:
    """Bytes by part: the encoder and the engines here, and training in worker processes; or training an SAE.

    Of a plan that neither measures nor trains, the model and one batch of chats. `held` is in place of `load.workers`.
    """
    blocks = run.features.batch_on(weight == GPU_WEIGHT), run.features.encode_elements
    parts: dict[str, int] = {}
    alone = 0  # training an SAE
    for encoder in uses.encoders:
        shape, known = facts.shape(encoder.model), facts.encoder(encoder)
        if shape and known:
            size = needs.encoder_bytes(shape, known, *blocks, weight)
            parts["encoder"] = max(size, parts.get("encoder", 0))
            if not isinstance(encoder.sae, SaeRef):
                alone = max(alone, needs.sae_training_bytes(shape, known.layer, known.width, weight))
    for work in load.work:
        kind = None if work.engine is None or work.name.startswith("test") else engine_kind(work.engine)
        if work.engine is None or work.shape is None or kind is None:
            continue
        if isinstance(work.engine.settings, VllmSettings) and weight == GPU_WEIGHT:
            parts[kind] = int(work.engine.settings.gpu_memory_utilization * memory)
        else:
            size = needs.writer_bytes(work.shape, needs.PROMPT_TOKENS + work.reply, weight)
            parts[kind] = max(size, parts.get(kind, 0))
    in_workers = [worker_bytes(one, weight) for one in (load.workers if held is None else held)]
    if in_workers:
        parts[f"{TRAINING} in {workers} process{'es' if workers > 1 else ''}"] = workers * max(in_workers)
    if not parts:
        largest = max(facts.shapes.values(), key=lambda shape: shape.params)
        return {"the model": needs.writer_bytes(largest, needs.PROMPT_TOKENS, weight)}
    return parts if sum(parts.values()) >= alone else {"SAE training": alone}


def disk(run: RunConfig, stored: int) -> Iterator[Finding]:
    """Free space where the store and the outputs go."""
    for what, place, needed in (
        ("store", run.paths.store, max(stored, OUTPUTS)),
        ("outputs", run.paths.outputs, OUTPUTS),
    ):
        folder = Path(place).expanduser().absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        said = f"about {_gib(needed)} needed, {_gib(free)} free in {folder}"
        way = f"choose another place with paths.{what}=DIR"
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding("missing", f"disk {what}", f"{there} cannot be written: {way}")
        elif needed > free:
            yield Finding("missing", f"disk {what}", f"{said}: free some, or {way}")
        else:
            yield Finding("ok", f"disk {what}", said)


# ------------------------------------------------------------------------------------------------------- time, money


def costs(load: Workload, here: Machine) -> Iterator[Finding]:
    """Time of everything, and money where a server is asked that is paid for."""
    paid: list[tuple[float, float | None]] = []  # USD, and the budget
    for name, work in by_name(load.work):
        asked = sum((one.asked for one in work), needs.NOTHING)
        served = [one for one in work if one.engine is not None and isinstance(one.engine.settings, OpenAISettings)]
        if served and served[0].engine is not None and isinstance(served[0].engine.settings, OpenAISettings):
            settings = served[0].engine.settings
            yield _price(name, asked, settings)
            paid.append((settings.cost(asked.prompt, asked.reply), settings.budget_usd))
        else:
            yield _time_of(name, work, asked, here)
    if paid:
        total, budgets = sum(dollars for dollars, _ in paid), [budget for _, budget in paid if budget is not None]
        over = bool(budgets) and total > min(budgets)
        way = f", above budget_usd={min(budgets, default=0):g}, at which the run would stop: raise it if you mean to"
        yield Finding("warning" if over else "ok", "cost in all", f"about {total:,.2f} USD{way if over else ''}")
    for name in load.unknown:
        yield Finding("ok", f"time {name}", "no estimate is made for this step")
    if load.work:
        yield Finding("ok", "assumed", assumptions(here))


def _time_of(name: str, work: Sequence[Work], asked: Asked, here: Machine) -> Finding:
    def seconds(flops: float) -> float:
        return sum(one.seconds(flops) for one in work)

    told = f"{asked.requests:,} requests" if asked.requests else f"{sum(one.flop for one in work):.1e} FLOP"
    elsewhere = "" if here.gpu else f", {_duration(seconds(needs.H100_FLOPS))} on one H100"
    said = f"about {_duration(seconds(here.flops))} on {here.name}{elsewhere} ({told})"
    return Finding("warning" if seconds(here.flops) > LONG else "ok", f"time {name}", said)


def _price(name: str, asked: Asked, settings: OpenAISettings) -> Finding:
    what, told = f"cost {name}", f"{asked.requests:,} requests of {settings.model}"
    if settings.model not in settings.prices:
        return Finding("warning", what, f"unknown, {told}: no price of it stands in prices")
    dollars = settings.cost(asked.prompt, asked.reply)
    tokens = f"{asked.prompt / 1e6:.1f} M tokens in, {asked.reply / 1e6:.1f} M out"
    return Finding("ok", what, f"about {dollars:,.2f} USD for {told} ({tokens})")


def assumptions(here: Machine) -> str:
    """What the estimates stand on."""
    decoded = ", ".join(f"{share:.0%} with {name}" for name, share in needs.DECODED.items())
    return (
        f"{here.flops / 1e12:.2g} TFLOP/s measured here just now, {needs.H100_FLOPS / 1e12:.0f} on an H100, of which "
        f"passes reach {needs.COMPUTED:.0%} and generation {decoded}; {needs.TEXT_TOKENS} tokens a text "
        f"({needs.LAB_TOKENS} in the lab); {needs.ASSUMED_TEXTS:,} texts in an unknown data set; every feature active, "
        f"as many of them missing as the budget; {needs.REPLY_TOKENS} tokens a reply; no rounds beyond the first "
        f"where replies are lost (synthesis.top_up); an empty store"
    )


def _told(parts: Mapping[str, int]) -> str:
    return f"{_gib(sum(parts.values()))} ({', '.join(f'{name} {_gib(part)}' for name, part in parts.items())})"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):,.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, length in (("years", 31557600), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than 1 s"
