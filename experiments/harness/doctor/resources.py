"""Is it enough? Memory, disk, time and money, estimated against this machine.

Knows: this machine, measured in a fraction of a second, and which parts of a run stand side by side. Does not know: the
formulas (`needs`), or how much there is to do (`workload`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from experiments import config
from experiments.doctor import needs, workload
from experiments.doctor.base import Finding
from experiments.doctor.needs import GIB, Asked, Encoder, Shape, TaskLoad
from experiments.doctor.presence import Party
from experiments.engines import COMPARE, Engine, Engines, TransformersSettings
from fac.llm.openai import OpenAISettings
from fac.llm.vllm import VllmSettings

LONG = 14 * 86400  # seconds after which a stage is worth a warning
MEASURING = ("coverage", "matching", "sae")
TRAINING = "training"  # how the part of the workers is called
OUTPUTS = GIB // 20  # tables, pages and the tracking database of a run
GPU_WEIGHT, CPU_WEIGHT = 2, 4  # bytes: bfloat16, float32
H100_MEMORY = 79 * GIB
IN_WORKER = Engine(TransformersSettings())  # what was trained answers in the worker that tests it


@dataclass(frozen=True)
class Machine:
    """What there is to compute with: the first GPU, or the CPU."""

    name: str
    gpu: bool
    memory: int  # bytes
    flops: float  # of a large matrix product, measured


def resources(cfg: DictConfig, parties: Sequence[Party]) -> Iterator[Finding]:
    """Disk, memory, and time and cost of every stage."""
    loads = workload.loads(cfg)
    known = [(party, party.shape, party.encoder) for party in parties if party.shape and party.encoder]
    yield from disk(cfg, parties, loads)
    if not workload.uses_model(cfg):
        return
    if not known:
        yield Finding("warning", "memory, time", "cannot be computed before the model's config.json is here")
        return
    here = this_machine()
    _, shape, encoder = max(known, key=lambda party: party[1].params)
    yield memory(cfg, here, shape, encoder, loads)
    if loads:
        yield from costs(cfg, here, shape, encoder, loads)
    else:
        yield from measuring(cfg, here, shape, encoder)


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


def memory(cfg: DictConfig, here: Machine, shape: Shape, encoder: Encoder, loads: Sequence[TaskLoad]) -> Finding:
    """What stands side by side at the worst moment against what there is."""

    def parts_on(weight: int, size: int, workers: int, loads: Sequence[TaskLoad] = loads) -> dict[str, int]:
        return memory_parts(cfg, shape, encoder, loads, weight, size, workers)

    if here.gpu:
        workers = cfg.workers or 1
        parts = parts_on(GPU_WEIGHT, here.memory, workers)
        said = f"about {_told(parts)} of {_gib(here.memory)} on {here.name}"
        if sum(parts.values()) <= here.memory:
            return Finding("ok", "GPU memory", said)
        less = parts_on(GPU_WEIGHT, here.memory, workers, [replace(load, checkpointed=True) for load in loads])
        if sum(less.values()) <= here.memory:
            keys = [_train_key(cfg, load) for load in _unchecked(shape, loads, parts, here.memory, workers)]
            return Finding(
                "missing", "GPU memory", f"{said}: does not fit without {' '.join(f'{key}=true' for key in keys)}"
            )
        way = "use a larger GPU, or lower features.batch_tokens, features.encode_elements or the batch sizes"
        if "vllm" in parts:
            way += ", or llm.gpu_memory_utilization"
        return Finding("missing", "GPU memory", f"{said}: {way}")
    parts = parts_on(CPU_WEIGHT, here.memory, cfg.workers or len(os.sched_getaffinity(0)))
    if sum(parts.values()) <= here.memory:
        said = f"no GPU: everything runs on the CPU, in about {_told(parts)} of {_gib(here.memory)} RAM"
        return Finding("ok", "GPU memory", said)
    on_gpu = parts_on(GPU_WEIGHT, H100_MEMORY, workers=1)
    said = f"no GPU, and on the CPU it would take {_gib(sum(parts.values()))} of {_gib(here.memory)} RAM"
    return Finding("missing", "GPU memory", f"{said}: use a machine with a GPU, where it takes about {_told(on_gpu)}")


def _unchecked(
    shape: Shape, loads: Sequence[TaskLoad], parts: Mapping[str, int], memory: int, workers: int
) -> list[TaskLoad]:
    """The tasks that do not fit beside the other parts without gradient checkpointing, and do not have it."""
    beside = sum(size for name, size in parts.items() if not name.startswith(TRAINING))
    return [
        load
        for load in loads
        if not load.checkpointed and beside + workers * needs.training_bytes(shape, load, True) > memory
    ]


def _in_processes(workers: int) -> str:
    return f"{TRAINING} in {workers} process{'es' if workers > 1 else ''}"


def _train_key(cfg: DictConfig, load: TaskLoad) -> str:
    group = "train" if cfg.experiment.name == "lab" else f"tasks.{load.name}.train"
    return f"{group}.gradient_checkpointing"


def memory_parts(
    cfg: DictConfig, shape: Shape, encoder: Encoder, loads: Sequence[TaskLoad], weight: int, memory: int, workers: int
) -> dict[str, int]:
    """Bytes by part: the encoder and the engines here, and training in worker processes; or training an SAE.

    Of an experiment without an SAE, the model and one batch of chats, or training a reward model.
    """
    if cfg.experiment.name == "reward":
        alone = needs.training_bytes(shape, workload.reward_alone(cfg), weight == GPU_WEIGHT)
        return {_in_processes(workers): workers * alone}
    if not workload.uses_sae(cfg):
        return {"the model": needs.writer_bytes(shape, needs.PROMPT_TOKENS, weight)}
    blocks = cfg.features.batch_tokens, cfg.features.encode_elements
    parts = {"encoder": needs.encoder_bytes(shape, encoder, *blocks, weight)}
    if loads:
        crew = config.engines(cfg)
        longest = needs.PROMPT_TOKENS + max(load.reply for load in loads)
        annotators = [crew.annotators[role] for role in config.read_settings(cfg).roles]
        engines = {engine_kind(engine): engine for engine in (crew.writer, *annotators)}
        for kind, engine in engines.items():
            if kind == "vllm" and weight == GPU_WEIGHT and isinstance(engine.settings, VllmSettings):
                parts["vllm"] = int(engine.settings.gpu_memory_utilization * memory)
            elif kind is not None:
                parts[kind] = needs.writer_bytes(shape, longest, weight)
        on_gpu = weight == GPU_WEIGHT
        largest = max(
            max(needs.training_bytes(shape, load, on_gpu), needs.testing_bytes(shape, load, weight)) for load in loads
        )
        parts[_in_processes(workers)] = workers * largest
    alone = needs.sae_training_bytes(shape, encoder.layer, encoder.width, weight) if cfg.sae.train is not None else 0
    return parts if sum(parts.values()) >= alone else {"SAE training": alone}


def engine_kind(engine: Engine) -> str | None:
    """Which engine holds a model on this machine; None if a server does."""
    if isinstance(engine.settings, OpenAISettings):
        return None
    return "vllm" if isinstance(engine.settings, VllmSettings) else "transformers"


def disk(cfg: DictConfig, parties: Sequence[Party], loads: Sequence[TaskLoad]) -> Iterator[Finding]:
    """Free space where the store and the outputs go."""
    stored = 0
    for party in parties:
        if party.shape and party.encoder:
            spans = cfg.features.top_spans
            stored += sum(needs.stored_bytes(party.shape, party.encoder, load, spans) for load in loads)
            stored += needs.sae_bytes(party.shape, party.encoder.width) if cfg.sae.train is not None else 0
    for what, needed in (("store", max(stored, OUTPUTS)), ("outputs", OUTPUTS)):
        folder = Path(cfg.paths[what]).expanduser().absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        said = f"about {_gib(needed)} needed, {_gib(free)} free in {folder}"
        if not there.is_dir() or not os.access(there, os.W_OK):
            said = f"{there} cannot be written: choose another place with paths.{what}=DIR"
            yield Finding("missing", f"disk {what}", said)
        elif needed > free:
            yield Finding(
                "missing", f"disk {what}", f"{said}: free some, or choose another place with paths.{what}=DIR"
            )
        else:
            yield Finding("ok", f"disk {what}", said)


# ------------------------------------------------------------------------------------------------------- time, money


@dataclass(frozen=True)
class Stage:
    """Work of one stage: floating-point operations, or what is asked of an LLM."""

    name: str
    flop: float = 0.0
    asked: Asked = needs.NOTHING
    engine: Engine | None = None

    def seconds(self, shape: Shape, flops: float) -> float:
        """On a device of this speed; 0 where a server works."""
        if self.engine is None:
            return self.flop / (needs.COMPUTED * flops)
        kind = engine_kind(self.engine)
        return 0.0 if kind is None else needs.asking_seconds(shape, self.asked, kind, flops)


def costs(
    cfg: DictConfig, here: Machine, shape: Shape, encoder: Encoder, loads: Sequence[TaskLoad]
) -> Iterator[Finding]:
    """Time of every stage, and money where a server is asked that is paid for."""
    paid: list[tuple[float, float | None]] = []  # USD, and the budget
    for stage in stages(cfg, shape, encoder, loads, config.engines(cfg)):
        if stage.engine is not None and isinstance(settings := stage.engine.settings, OpenAISettings):
            yield _price(stage, settings)
            paid.append((settings.cost(stage.asked.prompt, stage.asked.reply), settings.budget_usd))
        else:
            yield _time_of(stage, here, shape)
    if paid:
        total, budgets = sum(dollars for dollars, _ in paid), [budget for _, budget in paid if budget is not None]
        over = bool(budgets) and total > min(budgets)
        way = f", above budget_usd={min(budgets, default=0):g}, at which the run would stop: raise it if you mean to"
        yield Finding("warning" if over else "ok", "cost in all", f"about {total:,.2f} USD{way if over else ''}")
    yield Finding("ok", "assumed", assumptions(here))


def measuring(cfg: DictConfig, here: Machine, shape: Shape, encoder: Encoder) -> Iterator[Finding]:
    """The same for experiments without cells that measure the texts of their data sets."""
    tokens = workload.given_texts(cfg) * needs.TEXT_TOKENS
    if not tokens or cfg.experiment.name not in MEASURING:
        yield Finding("ok", "time", f"no estimate is made for experiment={cfg.experiment.name}")
        return
    for stage in _sae_training(cfg, shape, encoder, []):
        yield _time_of(stage, here, shape)
    yield _time_of(Stage("measure", needs.measuring_flop(shape, encoder, tokens)), here, shape)
    yield Finding("ok", "assumed", assumptions(here))


def _sae_training(cfg: DictConfig, shape: Shape, encoder: Encoder, loads: Sequence[TaskLoad]) -> Iterator[Stage]:
    if tokens := workload.sae_tokens(cfg, loads):
        yield Stage("train the SAE", needs.sae_training_flop(shape, encoder.layer, encoder.width, tokens))


def stages(
    cfg: DictConfig, shape: Shape, encoder: Encoder, loads: Sequence[TaskLoad], engines: Engines
) -> Iterator[Stage]:
    """The stages of all tasks together, those without work left out."""
    read = config.read_settings(cfg)
    yield from _sae_training(cfg, shape, encoder, loads)
    yield Stage("measure", needs.measuring_flop(shape, encoder, sum(load.measured_tokens for load in loads)))
    for role in read.roles:
        shown = read.spans * read.span_tokens if role != "judge" else 0
        asked = needs.asked_of_reader(loads, encoder.width, shown, read.max_new_tokens)
        yield Stage(f"interpret: {role}", asked=asked, engine=engines.annotators[role])
    if (asked := needs.asked_of_writer(loads)).requests:
        yield Stage("write", asked=asked, engine=engines.writer)
    yield Stage("train", sum(needs.training_flop(shape, load.trained_tokens) for load in loads))
    yield Stage("test", sum(needs.testing_flop(shape, load.tested_tokens) for load in loads if not load.answered))
    if (asked := needs.asked_of_trained(loads)).requests:
        yield Stage("test: answers", asked=asked, engine=IN_WORKER)
        judge = IN_WORKER if all(load.from_lab for load in loads) else engines.annotators[COMPARE]
        yield Stage("test: judge", asked=needs.asked_of_judge(loads), engine=judge)


def _time_of(stage: Stage, here: Machine, shape: Shape) -> Finding:
    spent = stage.seconds(shape, here.flops)
    work = f"{stage.asked.requests:,} requests" if stage.engine else f"{stage.flop:.1e} FLOP"
    elsewhere = "" if here.gpu else f", {_duration(stage.seconds(shape, needs.H100_FLOPS))} on one H100"
    said = f"about {_duration(spent)} on {here.name}{elsewhere} ({work})"
    return Finding("warning" if spent > LONG else "ok", f"time {stage.name}", said)


def _price(stage: Stage, settings: OpenAISettings) -> Finding:
    asked, what = stage.asked, f"cost {stage.name}"
    told = f"{asked.requests:,} requests of {settings.model}"
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
