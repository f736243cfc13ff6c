"""No two steps that compute other numbers share a key: every field of every settings type that a step is given decides
its key, or is named here as one that decides no result of that step."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.encoders import train_sae
from support.models import tiny_model

from experiments.tasks import TASKS
from experiments.tasks.base import train_step
from experiments.tasks.instruction import Evaluation, _kept, complete
from experiments.tasks.sources import task_steps
from experiments.tasks.steering import SteeringSettings
from fac.backbone import ModelRef
from fac.data.files import fingerprint
from fac.data.mixture import Part, mix
from fac.data.schemas import PAIR, QUERY
from fac.data.source import Source
from fac.encoder import FeatureEncoder
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, Mining, Thresholds, mine
from fac.interpret import ROLES
from fac.lab.world.corpora import Sizes
from fac.lab.world.tasks import TaskSizes
from fac.llm.openai import OpenAISettings
from fac.llm.settings import VllmSettings
from fac.llm.vllm import VllmChat
from fac.noise import with_noise
from fac.prompts import Prompts
from fac.sae.ref import SaeRef
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.store import Step
from fac.synthesis.generate import synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.needs import Extras
from fac.synthesis.settings import Settings
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings

LAB, ANSWERED = Prompts("lab/toxicity"), Prompts("lab/instruction")

Changes = Mapping[str, Any]  # another value for each field


class Engine:
    """Who is asked: known by name before anything is opened."""

    identity, batch, engine = "m", 1, "transformers"

    def __init__(self, ref: ModelRef | None = None) -> None:
        self.ref = ref

    def chat(self, requests: Any, sampling: Any) -> Any:
        raise AssertionError("asked for a key")


@dataclasses.dataclass(frozen=True)
class Data:
    """Where a task's data come from."""

    sizes: Any = None
    data: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    sample: Mapping[str, int] = dataclasses.field(default_factory=dict)
    pool: int | None = None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    train_sae(tiny_model(folder / "model"), folder / "sae")
    for name in ("one", "two"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name, "note": "n", "label": 1}) + "\n")
    (folder / "ifeval.jsonl").write_text("{}\n")
    return folder


def part(name: str) -> Step:
    """A step that others are made from."""
    return Step(name, lambda folder: None, {"name": name})


def encoder(root: Path, features: FeatureSettings | None = None) -> FeatureEncoder:
    model, sae = ModelRef(str(root / "model")), SaeRef(str(root / "sae"))
    return FeatureEncoder(model, sae, None, features or FeatureSettings())


def mined(
    root: Path,
    settings: InterpretSettings | None = None,
    features: FeatureSettings | None = None,
    thresholds: Thresholds | None = None,
    prompts: Prompts = LAB,
) -> Mining:
    anchor, seed, labelled = map(part, ("anchor", "seed", "labelled"))
    annotators = {role: Engine() for role in ROLES}
    settings = settings or InterpretSettings()
    found = mine(
        encoder(root, features), anchor, seed, annotators, prompts, settings, thresholds or Thresholds(), labelled
    )
    return found if settings.noise == "none" else with_noise(found, settings)


def measured_key(root: Path, settings: FeatureSettings) -> str:
    return mined(root, features=settings).anchor_features.key


def interpreted_key(root: Path, settings: InterpretSettings) -> str:
    return mined(root, settings).interpretations.key


def told_key(root: Path, settings: FeatureSettings) -> str:
    return mined(root, features=settings).interpretations.key


def missing_key(root: Path, settings: InterpretSettings) -> str:
    return mined(root, settings).missing.key


def threshold_key(root: Path, settings: Thresholds) -> str:
    return mined(root, thresholds=settings).missing.key


def wanted_key(root: Path, settings: Thresholds) -> str:
    return mined(root, thresholds=settings).wanted.key


def written_key(root: Path, settings: Settings, prompts: Prompts = LAB, method: str = "fac") -> str:
    seed, human, draw = map(part, ("seed_examples", "human_examples", "draw"))
    extras, engine = Extras(pool=part("pool"), clusters=part("clusters")), Engine(ModelRef(str(root / "model")))
    return synthesis(METHODS[method], mined(root), engine, prompts, QUERY, settings, 9, seed, human, draw, extras).key


def answers_key(root: Path, settings: Settings) -> str:
    return complete(part("synthesis"), Engine(), ANSWERED, settings).key


def trained_sae_key(root: Path, settings: TrainSettings | RecipeSettings) -> str:
    model = ModelRef(str(root / "model"))
    return FeatureEncoder(model, settings, 2, FeatureSettings(), sae_texts=part("texts")).sae_step.key


def training_key(root: Path, settings: Any) -> str:
    task = {ClassifierSettings: "toxicity", RewardSettings: "reward", SftSettings: "instruction"}
    name = task.get(type(settings), "sycophancy")
    model = ModelRef(str(root / "model"))
    return train_step(TASKS[name], model, settings, 42, (), part("seed_examples"), part("added")).key


def evaluation_key(root: Path, settings: Evaluation) -> str:
    return _kept(settings).key


def drawn_key(task: str, sizes: Any = None, data: Mapping[str, Source] | None = None, **sample: int) -> str:
    return task_steps(TASKS[task], Data(sizes, data or {}, sample), 0).draw.key


def world_key(root: Path, settings: Sizes) -> str:
    return drawn_key("toxicity", settings)


def task_key(root: Path, settings: TaskSizes) -> str:
    return drawn_key("reward", settings)


def model_key(root: Path, settings: ModelRef) -> str:
    return settings.identity()


def vllm_key(root: Path, settings: VllmSettings) -> str:
    return VllmChat(ModelRef(str(root / "model")), settings).identity


def source_key(root: Path, settings: Source) -> str:
    return json.dumps(fingerprint(settings), sort_keys=True)


def part_key(root: Path, settings: Part) -> str:
    return mix({"part": settings}).whole.key


TRAINING = {
    "rank": 3, "alpha": 5, "dropout": 0.3, "epochs": 9, "learning_rate": 1e-2, "batch_size": 7,
    "gradient_accumulation": 3, "max_tokens": 33, "schedule": "constant", "warmup": 0.3, "weight_decay": 0.2,
    "float64": True,
}  # fmt: skip
OF_METHODS = {"rows": 7, "votes": 7, "novelty": 0.5, "prefix": "template", "strengths": (0.1,), "proxy": "x",
              "clusters": 3.0}  # fmt: skip
SEQUENCE = {**TRAINING, "mode": "head", "target_modules": ("q_proj",), "pass_tokens": 77}  # under a dropout
NO_WEIGHTS = {"gradient_checkpointing": True, "bf16": False}  # bf16: a CPU has none, see below

# (settings, the keys that they are part of, fields that decide with another value, fields that do not)
CASES: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Any], object], Changes, Changes]] = {
    "features": (
        lambda _: FeatureSettings(),
        measured_key,
        {"max_tokens": 7, "rule": "official", "top_spans": 3, "shift": 3, "double_bos": True,
         "product": "bfloat16"},
        {"batch_tokens": 7, "encode_elements": 7, "span_end": "before"},
    ),
    "features that are interpreted": (
        lambda _: FeatureSettings(),
        told_key,
        {"max_tokens": 7, "rule": "official", "top_spans": 3, "shift": 3, "double_bos": True, "product": "bfloat16",
         "span_end": "before"},
        {"batch_tokens": 7, "encode_elements": 7},
    ),
    "interpretation": (
        lambda _: InterpretSettings(),
        interpreted_key,
        {"spans": 3, "span_tokens": 5, "max_new_tokens": 7, "temperature": 0.5, "verified": True, "seed": 1,
         "noise": "truncate", "noise_share": 0.2},
        {"judge": "statistical", "fdr": 0.2, "missing": "annotation"},  # decide which features are written for
    ),
    "missing features": (
        lambda _: InterpretSettings(),
        missing_key,
        {"spans": 3, "span_tokens": 5, "max_new_tokens": 7, "temperature": 0.5, "verified": True, "seed": 1,
         "judge": "statistical", "missing": "annotation", "noise": "mislabel", "noise_share": 0.2},
        {"fdr": 0.2},  # of the statistical judge, see below
    ),
    "missing features by the statistical judge": (
        lambda _: InterpretSettings(judge="statistical"),
        missing_key,
        {"spans": 3, "span_tokens": 5, "max_new_tokens": 7, "temperature": 0.5, "verified": True, "seed": 1,
         "judge": "llm", "missing": "annotation", "fdr": 0.2, "explained": "missing"},
        {"noise_share": 0.2},  # of a noise
    ),
    "thresholds": (
        lambda _: Thresholds(),
        threshold_key,
        {"absolute": (0.0, 9.0), "relative": (0.9,), "default": "0.5max"},
        {},
    ),
    "the threshold of writing": (
        lambda _: Thresholds(),
        wanted_key,
        {"default": "0.5max"},
        {"absolute": (0.0, 9.0), "relative": (0.9,)},
    ),
    "writing": (
        lambda _: Settings(),
        written_key,
        {"n": 5, "m": 5, "spans": 7, "temperature": 0.1, "top_p": 0.2, "max_new_tokens": 7, "span_tokens": 5,
         "seed": 1, "top_up": 0, "pair": "official", "summary": "analysis", "filter": False, "label_scored": True,
         "ratio": 0.5},
        # decide steps behind this one, or those of methods that name them, see below
        {"answers": "drawn", "per_feature": 1, "choose": "binary", **OF_METHODS},
    ),
    "answers to what was written": (
        lambda _: Settings(answers="drawn"),
        answers_key,
        {"temperature": 0.1, "top_p": 0.2, "max_new_tokens": 7, "seed": 1, "answers": "greedy"},
        {"n": 5, "m": 5, "spans": 7, "span_tokens": 5, "top_up": 0, "pair": "official", "summary": "analysis",
         "filter": False, "label_scored": True, "ratio": 0.5, "per_feature": 1, "choose": "binary",
         **OF_METHODS},  # ... the step before this one
    ),
    "SAE": (
        lambda _: TrainSettings(),
        trained_sae_key,
        {"width": 64, "k": 3, "steps": 5, "batch_size": 7, "lr": 1.0, "max_tokens": 9, "seed": 1, "held": True},
        {},
    ),
    "SAE by the recipe": (
        lambda _: RecipeSettings(),
        trained_sae_key,
        {"width": 4096, "k": 30, "k_start": 300, "anneal_steps": 5, "batch_size": 7, "epochs": 9, "lr": 1.0,
         "betas": (0.5, 0.5), "eps": 1.0, "max_tokens": 9, "tokens": "content", "seed": 1},
        {"batch_tokens": 7, "checkpoint_every": 3},
    ),
    "classifier": (
        lambda _: ClassifierSettings(), training_key, {**SEQUENCE, "group_by_length": True},
        {**NO_WEIGHTS, "layers": 1},  # of the mode "partial", see below
    ),
    "classifier of the last layers": (
        lambda _: ClassifierSettings(mode="partial"), training_key, {"layers": 3}, {},
    ),
    "reward model": (lambda _: RewardSettings(), training_key, SEQUENCE, NO_WEIGHTS),
    "fine-tuning": (
        lambda _: SftSettings(), training_key, {**TRAINING, "chat_template": "alpaca", "clip": 0.1},
        {**NO_WEIGHTS, "pass_tokens": 77},  # its dropout is 0
    ),
    "steering": (
        lambda _: SteeringSettings(cue="a", counter_cue="b"),
        training_key,
        {"layer": 3, "contrast": "prompt", "pairs": 3, "norm": None, "positions": "after_prompt", "cue": "x",
         "counter_cue": "x"},
        {},
    ),
    "evaluation": (
        lambda _: Evaluation(),
        evaluation_key,
        {"prompts": "paper/instruction", "answer_tokens": 7, "judge_tokens": 7, "both_orders": False,
         "benchmarks": ("gsm8k",), "ifeval": "ifeval.jsonl", "annotator": "weighted"},
        {},
    ),
    "world": (
        lambda _: Sizes(),
        world_key,
        {"anchor": 7, "safe": 7, "seed": 7, "human": 7, "labelled": 7, "validation": 7, "test": 7, "known": 7},
        {},
    ),
    "examples of the lab": (
        lambda _: TaskSizes(20, 20, 20, 20, 20, 8),
        task_key,
        {"anchor": 7, "seed": 7, "human": 7, "test": 7, "validation": 7, "known": 3},
        {},
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
         "label_zeros": ("y",), "columns": ("a",), "quotes": "none", "encoding": "latin-1", "rows": "data",
         "turns": "all", "where": {"note": "n"}, "skip": 1, "limit": 1, "dedup": True, "on_error": "skip"},
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
    "interpretation": {"explained"},  # goes with the statistical judge, below
    "missing features": {"explained"},
    "missing features by the statistical judge": {"noise"},  # of the other judge
    "classifier": {"kept_states"},  # goes with the mode "head": tests/experiments/tasks/test_kept_states.py
    "reward model": {"kept_states"},
    "classifier of the last layers": {f.name for f in dataclasses.fields(ClassifierSettings)} - {"layers"},
    "data set": {"subset", "split", "revision"},  # of the hub: tests/fac/data/test_hub.py
    "server": {"budget_usd", "place"},  # what may be spent; how errors name the group
}
NEEDS = {  # fields that go with a change
    ("interpretation", "noise"): {"noise_share": 0.2},
    ("interpretation", "noise_share"): {"noise": "truncate"},
    ("missing features", "noise"): {"noise_share": 0.2},
    ("missing features", "noise_share"): {"noise": "mislabel"},
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
    if not (isinstance(value, str) and Path(value).suffix in (".csv", ".json", ".jsonl")):
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
        assert training_key(root, settings) != training_key(root, dataclasses.replace(settings, bf16=False))


def test_of_several_data_sets_of_a_role_the_order_decides(root: Path):
    one, two = Source(root / "one.jsonl"), Source(root / "two.jsonl")
    common = dict.fromkeys(("seed", "human", "test", "safe", "toxic"), one)

    def key(*more: tuple[str, Source], **sample: int) -> str:
        return drawn_key("toxicity", None, {**dict(more), **common}, **sample)

    first = key(("anchor", one), ("anchor_more", two))
    assert first != key(("anchor_more", two), ("anchor", one))
    assert first != key(("anchor", one), ("anchor_more", two), anchor=1)
    assert key(("anchor", one), anchor=2) != key(("anchor", one), anchor=1)


def test_the_seed_of_the_data_decides_only_where_something_is_drawn(root: Path):
    data: dict[str, Source] = dict.fromkeys(
        ("anchor", "seed", "human", "test", "safe", "toxic"), Source(root / "one.jsonl")
    )

    def key(seed: int, **sample: int) -> str:
        return task_steps(TASKS["toxicity"], Data(data=data, sample=sample), seed).draw.key

    assert key(0) == key(1)
    assert key(0, anchor=1) != key(1, anchor=1)


def test_labels_are_scored_of_queries_alone(root: Path):
    seed, human, draw = map(part, ("seed_examples", "human_examples", "draw"))
    write = partial(synthesis, METHODS["fac"], mined(root), Engine(), LAB, PAIR)
    keys = [write(Settings(label_scored=scored), 9, seed, human, draw).key for scored in (False, True)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_writes_nothing_is_decided_by_its_budget_and_seed_alone(root: Path, method: str):
    """Of the settings of writing; the others are of requests that it does not make."""
    same = written_key(root, Settings(), method=method) == written_key(root, Settings(n=5), method=method)
    assert same == (not METHODS[method].prompts)
    assert written_key(root, Settings(), method=method) != written_key(root, Settings(seed=1), method=method)


@pytest.mark.parametrize(
    ("method", "field"), [(name, field) for name, method in METHODS.items() for field in method.settings]
)
def test_what_a_method_names_decides_its_rows(root: Path, method: str, field: str):
    changed = Settings(**{field: {**OF_METHODS, "answers": "drawn"}[field]})
    assert written_key(root, Settings(), method=method) != written_key(root, changed, method=method)


def test_the_same_examples_as_the_seed_s_and_as_a_method_s_train_twice(root: Path):
    """A task may read them otherwise (steering draws from the seed's), so they are two trained things."""
    model, task, settings = ModelRef(str(root / "model")), TASKS["toxicity"], ClassifierSettings()
    shared, safe = part("examples"), part("safe")
    seeds = train_step(task, model, settings, 42, (safe,), shared, None)
    added = train_step(task, model, settings, 42, (safe,), None, shared)
    both = train_step(task, model, settings, 42, (safe,), shared, part("added"))
    assert seeds.inputs == added.inputs == (safe, shared)
    assert (seeds.params["trained_on"], added.params["trained_on"]) == (["seed_examples"], ["added"])
    assert both.params["trained_on"] == ["seed_examples", "added"]
    assert len({seeds.key, added.key, both.key}) == 3


def test_the_texts_of_prompts_decide_and_not_where_they_lie(root: Path, tmp_path: Path):
    def keys(folder: str, said: str) -> tuple[str, ...]:
        task = tmp_path / folder / "task"
        task.mkdir(parents=True)
        for role in ("explain", "verify", "judge", "write", "contrast"):
            (task / f"{role}.jinja").write_text(said)
        prompts = Prompts(task)
        return mined(root, prompts=prompts).interpretations.key, written_key(root, Settings(), prompts)

    first, same, other = keys("a", "one"), keys("b", "one"), keys("c", "two")
    assert first == same
    assert all(one != two for one, two in zip(first, other, strict=True))
