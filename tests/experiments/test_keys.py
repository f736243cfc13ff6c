"""No two runs that compute other numbers share a key: every field of every settings type that a step is given decides
its key, or is named here as one that decides no result of that step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.encoders import train_sae
from support.models import tiny_model

from experiments.job import Job
from experiments.tasks import TASKS
from experiments.tasks.data import Sources, draw_world, lab_data, source_data
from experiments.tasks.instruction import Evaluation, _kept
from experiments.tasks.steering import SteeringSettings
from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.data.corpus import write_examples
from fac.data.examples import Example
from fac.data.files import Source, fingerprint
from fac.data.held_out import HeldOut
from fac.data.mixture import Part, mix
from fac.data.schemas import QUERY, Query
from fac.features import FeatureSettings
from fac.interpret import ROLES, Interpretation
from fac.lab.world.corpora import Sizes
from fac.lab.world.tasks import TaskSizes
from fac.llm.base import Completion
from fac.llm.openai import OpenAISettings
from fac.llm.vllm import VllmChat, VllmSettings
from fac.pipeline import ReadSettings, Workshop, interpret, measure, synthesis_of
from fac.prompts import Prompts
from fac.sae import SaeRef, TrainSettings
from fac.sae.recipe import RecipeSettings
from fac.store import Artifact, Store, stage_key
from fac.synthesis.methods.fac import prompts_one, prompts_two
from fac.synthesis.samples import Sample
from fac.synthesis.settings import Settings
from fac.train.classifier import ClassifierSettings
from fac.train.reward import RewardSettings
from fac.train.sft import SftSettings

LAB = Prompts("lab/toxicity")

Changes = Mapping[str, Any]  # another value for each field


class Asked(Exception):
    """A step was asked for; the message is its key."""


class Asking(Store):
    """A store that builds nothing and tells the key that it was asked for."""

    def stage(self, name: str, build: Any, *, resumable: bool = False, **identity: Any) -> Artifact:
        raise Asked(stage_key(name, 1, identity.get("params") or {}, identity.get("inputs") or []))


def key_of(ask: Callable[[], object]) -> str:
    with pytest.raises(Asked) as asked:
        ask()
    return str(asked.value)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    train_sae(tiny_model(folder / "model"), folder / "sae")
    write_examples([Example(as_chat("a text"), 1, "1")], folder / "corpus")
    for name in ("one", "two"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name, "note": "n", "label": 1}) + "\n")
    (folder / "ifeval.jsonl").write_text("{}\n")
    analysis = Completion("It is about theft. [[Yes]]", 1, 1, True)
    (folder / "replies-judge.jsonl").write_text(json.dumps({"id": "1", "reply": dataclasses.asdict(analysis)}) + "\n")
    return folder


def shop(root: Path, features: FeatureSettings | None = None) -> Workshop:
    model, sae = ModelRef(str(root / "model")), SaeRef(str(root / "sae"))
    return Workshop(Asking(root / "store"), model, sae, None, features or FeatureSettings())


def artifact(root: Path, key: str = "k") -> Artifact:
    return Artifact("texts", key, root / "corpus")


def measured_key(root: Path, settings: FeatureSettings) -> str:
    return key_of(lambda: measure(shop(root, settings), artifact(root)))


def read_key(
    root: Path, settings: ReadSettings, features: FeatureSettings | None = None, prompts: Prompts = LAB
) -> str:
    engines = cast(Any, dict.fromkeys(ROLES, SimpleNamespace(identity="m", batch=1)))
    anchor = cast(Any, SimpleNamespace(artifact=artifact(root)))
    return key_of(lambda: interpret(shop(root, features), anchor, engines, prompts, settings))


def measured_and_read_key(root: Path, settings: FeatureSettings) -> tuple[str, str]:
    return measured_key(root, settings), read_key(root, ReadSettings(), settings)


def written_key(root: Path, settings: Settings, prompts: Prompts = LAB) -> tuple[str, str]:
    """Of both steps."""
    model = cast(Any, SimpleNamespace(identity="m", batch=1))
    texts = ("a span", "another span", "a third", "a fourth")
    gap = SimpleNamespace(
        interpretations={1: Interpretation(1, texts, "said")}, missing=lambda: np.ones(2), active=lambda: np.ones(2),
        cut=np.zeros(2, np.float32), anchor_max=np.ones(2, np.float32), anchor=SimpleNamespace(artifact=artifact(root)),
    )  # fmt: skip
    mined = cast(Any, SimpleNamespace(shop=shop(root), gap=gap, source=Artifact("interpret", "i", root)))
    given, writer = synthesis_of(mined, model, prompts, QUERY, settings, [], [], 9, HeldOut())
    own = [
        Sample(1, 1, n, Query(text), "", "", "", 0, activation=g, relative_activation=g, text=text)
        for n, (text, g) in enumerate((("one text", 3.0), ("a second", 2.0), ("a third", 1.0)))
    ]
    first, second = prompts_one(given, [1], range(settings.n)), prompts_two(given, [1], own, range(settings.m))
    return key_of(lambda: writer.write("", first)), key_of(lambda: writer.write("", second))


def trained_sae_key(root: Path, settings: TrainSettings | RecipeSettings) -> str:
    model = ModelRef(str(root / "model"))
    return key_of(
        lambda: Workshop(Asking(root / "store"), model, settings, 2, FeatureSettings(), sae_texts=artifact(root))
    )


def job_key(root: Path, settings: Any) -> str:
    task = {ClassifierSettings: "toxicity", RewardSettings: "reward", SftSettings: "instruction"}
    name = task.get(type(settings), "sycophancy")
    job = Job(name, "fac", 42, root / "store", ModelRef(str(root / "model")), settings, artifact(root))
    return stage_key(TASKS[name].stage, 1, job.params, [])


def evaluation_key(root: Path, settings: Evaluation) -> str:
    return key_of(lambda: _kept(Asking(root / "store"), settings))


def world_key(root: Path, settings: Sizes) -> str:
    return key_of(lambda: draw_world(Asking(root / "store"), settings, 0))


def task_key(root: Path, settings: TaskSizes) -> str:
    """Of all rows that a task draws, in its own store: they are keyed by what they say."""
    keys: list[str] = []

    class Noting(Store):
        def stage(self, name: str, build: Any, *, resumable: bool = False, **identity: Any) -> Artifact:
            keys.append(stage_key(name, 1, identity.get("params") or {}, identity.get("inputs") or []))
            return Artifact(name, keys[-1], root)

    found = lab_data(Noting(root / "store"), TASKS["reward"], 0, settings)
    return repr([keys, found.human_examples])


def model_key(root: Path, settings: ModelRef) -> str:
    return settings.identity()


def vllm_key(root: Path, settings: VllmSettings) -> str:
    return VllmChat(ModelRef(str(root / "model")), settings).identity


def source_key(root: Path, settings: Source) -> str:
    return json.dumps(fingerprint(settings), sort_keys=True)


def part_key(root: Path, settings: Part) -> str:
    return key_of(lambda: mix(Asking(root / "store"), {"part": settings}))


TRAINING = {
    "rank": 3, "alpha": 5, "dropout": 0.3, "epochs": 9, "learning_rate": 1e-2, "batch_size": 7,
    "gradient_accumulation": 3, "max_tokens": 33, "schedule": "constant", "warmup": 0.3, "weight_decay": 0.2,
    "float64": True,
}  # fmt: skip
SEQUENCE = {**TRAINING, "mode": "head", "target_modules": ("q_proj",)}
NO_WEIGHTS = {"gradient_checkpointing": True, "bf16": False}  # bf16: a CPU has none, see below

# (settings, the keys that they are part of, fields that decide with another value, fields that do not)
CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Any], object], Changes, Changes]] = {
    "features": (
        lambda _: FeatureSettings(),
        measured_and_read_key,
        {"max_tokens": 7, "rule": "official", "top_spans": 3, "shift": 3, "double_bos": True, "span_end": "before"},
        {"batch_tokens": 7, "encode_elements": 7},
    ),
    "reading": (
        lambda _: ReadSettings(),
        read_key,
        {"spans": 3, "span_tokens": 5, "max_new_tokens": 7, "temperature": 0.5, "verified": True, "seed": 1},
        {"judge": "statistical", "fdr": 0.2, "missing": "annotation"},  # decide which features are written for
    ),
    "writing": (
        lambda _: Settings(),
        written_key,
        {"n": 5, "m": 5, "spans": 7, "temperature": 0.1, "top_p": 0.2, "max_new_tokens": 7, "span_tokens": 5,
         "seed": 1, "pair": "official", "summary": "analysis", "label_scored": True},
        # ... decide what is asked for, what is kept and how it is answered: the keys of other steps
        {"answers": "drawn", "top_up": 0, "filter": False, "ratio": 0.5},
    ),
    "SAE": (
        lambda _: TrainSettings(),
        trained_sae_key,
        {"width": 64, "k": 3, "steps": 5, "batch_size": 7, "lr": 1.0, "max_tokens": 9, "seed": 1},
        {},
    ),
    "SAE by the recipe": (
        lambda _: RecipeSettings(),
        trained_sae_key,
        {"width": 4096, "k": 30, "k_start": 300, "anneal_steps": 5, "batch_size": 7, "epochs": 9, "lr": 1.0,
         "betas": (0.5, 0.5), "eps": 1.0, "max_tokens": 9, "tokens": "content", "seed": 1},
        {"batch_tokens": 7, "checkpoint_every": 3},
    ),
    "classifier": (lambda _: ClassifierSettings(), job_key, {**SEQUENCE, "group_by_length": True}, NO_WEIGHTS),
    "reward model": (lambda _: RewardSettings(), job_key, SEQUENCE, NO_WEIGHTS),
    "fine-tuning": (
        lambda _: SftSettings(), job_key, {**TRAINING, "chat_template": "alpaca", "clip": 0.1}, NO_WEIGHTS
    ),
    "steering": (
        lambda _: SteeringSettings(cue="a", counter_cue="b"),
        job_key,
        {"layer": 3, "contrast": "prompt", "pairs": 3, "norm": None, "positions": "after_prompt", "cue": "x",
         "counter_cue": "x"},
        {},
    ),
    "evaluation": (
        lambda _: Evaluation(),
        evaluation_key,
        {"prompts": "paper/instruction", "answer_tokens": 7, "judge_tokens": 7, "both_orders": False,
         "benchmarks": ("gsm8k",), "ifeval": "ifeval.jsonl"},
        {},
    ),
    "world": (
        lambda _: Sizes(),
        world_key,
        {"anchor": 7, "safe": 7, "seed": 7, "human": 7, "labelled": 7, "validation": 7, "test": 7, "known": 7},
        {},
    ),
    "rows of the lab": (
        lambda _: TaskSizes(20, 20, 20, 20, 20, 8),
        task_key,
        {"anchor": 7, "seed": 7, "human": 7, "test": 7, "known": 3},
        {"validation": 7},  # not drawn where the test is
    ),
    "model": (
        lambda root: ModelRef(str(root / "model")),
        model_key,
        {"chat_template": "plain", "dtype": "bfloat16"},
        {},
    ),
    "data set": (
        lambda root: Source(root / "one.jsonl"),
        source_key,
        {"path": "two.jsonl", "text": "note", "label": "label", "label_rule": "all", "label_ones": ("x",),
         "label_zeros": ("y",), "columns": ("a",), "quotes": "none", "rows": "data", "turns": "all",
         "where": {"note": "n"}, "limit": 1, "dedup": True, "on_error": "skip"},
        {"name": "other"},
    ),
    "part of a mixture": (
        lambda root: Part(Source(root / "one.jsonl")), part_key, {"sample": 1}, {"source": None}
    ),
    "server": (
        lambda _: OpenAISettings("m"),
        lambda _, settings: settings.identity,
        {"model": "n", "url": "http://localhost/v1", "leave_out": ("seed",)},
        {"key_env": "OTHER", "concurrency": 1, "timeout": 1.0, "retries": 1, "prices": {"m": (1.0, 1.0)}},
    ),
    "vLLM": (
        lambda _: VllmSettings(),
        vllm_key,
        {"max_model_len": 64},
        {"batch": 7, "tensor_parallel_size": 2, "gpu_memory_utilization": 0.3, "cpu_cache_gib": 1.0},
    ),
}  # fmt: skip
ELSEWHERE = {  # fields that a case's settings cannot hold as they are
    "model": {"path", "revision", "adapter"},  # tests/fac/test_model_ref.py
    "data set": {"subset", "split", "revision"},  # of the hub: tests/fac/data/test_hub.py
    "server": {"budget_usd", "place"},  # what may be spent; how errors name the group
}
NEEDS = {  # fields that go with a change
    ("data set", "columns"): {"path": "one.csv"},
    ("data set", "label_rule"): {"label": ("label", "note")},
    ("data set", "label_ones"): {"label": "label"},
    ("data set", "label_zeros"): {"label": "label", "label_ones": ("x",)},
    ("data set", "quotes"): {"path": "one.csv"},
    ("data set", "rows"): {"path": "one.json"},
}


def changed(root: Path, case: str, settings: Any, field: str, value: Any) -> tuple[Any, Any]:
    """The settings without and with the change of a field."""
    both = {name: placed(root, other) for name, other in NEEDS.get((case, field), {}).items()}
    base = dataclasses.replace(settings, **both)
    return base, dataclasses.replace(base, **{field: placed(root, value)})


def placed(root: Path, value: Any) -> Any:
    """A file's name as its path."""
    if not (isinstance(value, str) and Path(value).suffix):
        return value
    if not (root / value).exists():
        (root / value).write_text("a,b\n1,2\n")
    return str(root / value)


@pytest.mark.parametrize("case", CASES)
def test_every_field_decides_the_key_or_is_named_as_one_that_does_not(case: str, root: Path):
    make, key, deciding, others = CASES[case]
    settings = make(root)
    named = {*deciding, *others, *ELSEWHERE.get(case, ())}
    assert named == {field.name for field in dataclasses.fields(settings)}  # a new field must be put somewhere
    for field, value in deciding.items():
        without, with_ = changed(root, case, settings, field, value)
        assert key(root, without) != key(root, with_), field
    for field, value in others.items():
        if field != "source":
            assert key(root, settings) == key(root, dataclasses.replace(settings, **{field: value})), field


def test_bf16_decides_where_a_gpu_computes_in_it(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for settings in (ClassifierSettings(), RewardSettings(), SftSettings()):
        assert job_key(root, settings) != job_key(root, dataclasses.replace(settings, bf16=False))


def test_of_several_data_sets_of_a_role_the_order_decides(root: Path):
    one, two = Source(root / "one.jsonl"), Source(root / "two.jsonl")
    common = dict.fromkeys(("seed", "human", "test", "safe", "toxic"), one)

    def key(*more: tuple[str, Source]) -> str:
        sources = Sources({**dict(more), **common})
        return key_of(lambda: source_data(Asking(root / "store"), TASKS["toxicity"], 0, sources))

    assert key(("anchor", one), ("anchor_more", two)) != key(("anchor_more", two), ("anchor", one))


def test_the_texts_of_prompts_decide_and_not_where_they_lie(root: Path, tmp_path: Path):
    def keys(folder: str, said: str) -> tuple[str, ...]:
        task = tmp_path / folder / "task"
        task.mkdir(parents=True)
        for role in ("explain", "verify", "judge", "write", "contrast"):
            (task / f"{role}.jinja").write_text(said)
        prompts = Prompts(task)
        return read_key(root, ReadSettings(), prompts=prompts), *written_key(root, Settings(), prompts)

    first, same, other = keys("a", "one"), keys("b", "one"), keys("c", "two")
    assert first == same
    assert all(one != two for one, two in zip(first, other, strict=True))
