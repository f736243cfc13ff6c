"""After a change of one setting only the steps that it decides, and those behind them, are made anew.

Every setting of a run is named here, with the steps of a trial that it enters; a new one must be put somewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from experiments.harness.config import RunConfig, read_config
from experiments.harness.experiment import Trial, grid, possible
from experiments.harness.graph import Graph
from experiments.harness.keys import is_in, leaves
from fac.store import Step

READ = ("anchor_features", "seed_features", "added_features")
ANNOTATED = ("interpretations",)
OF_MODEL = (*READ, *ANNOTATED, "synthesis", "answers", "reference", "scores")  # as it writes, annotates and judges
NOWHERE: tuple[str, ...] = ()  # where it goes, how fast, and what other trials, methods and tasks take

OF_METHODS = {  # settings of other methods than FAC
    "rows": 7, "votes": 7, "novelty": 0.5, "prefix": "template", "strengths": (0.1,), "proxy": "x", "clusters": 3.0,
}  # fmt: skip
CHOOSING = {"synthesis.per_feature": 1, "synthesis.choose": "binary"}  # which of the written samples are added

# key of the configuration -> (another value, the steps that it enters)
EVERYWHERE: Mapping[str, tuple[Any, tuple[str, ...]]] = {
    "model.path": ("lab:qwen", OF_MODEL),
    "model.chat_template": ("plain", OF_MODEL),
    "model.dtype": ("bfloat16", (*OF_MODEL, "trained")),
    "model.sae": ("lab:qwen/sae", ("sae",)),
    "model.revision": ("x", NOWHERE),  # of a hub model
    "model.base_revision": ("x", NOWHERE),
    "model.sae_tokens": (9, NOWHERE),  # of an SAE that is trained
    "features.max_tokens": (7, READ),
    "features.rule": ("official", READ),
    "features.top_spans": (3, READ),
    "features.shift": (3, READ),
    "features.double_bos": (True, READ),
    "features.product": ("bfloat16", READ),
    "features.span_end": ("before", (*ANNOTATED, "synthesis")),
    "features.batch_tokens": (7, NOWHERE),
    "features.encode_elements": (7, NOWHERE),
    "interpret.spans": (3, ANNOTATED),
    "interpret.span_tokens": (3, ANNOTATED),
    "interpret.max_new_tokens": (3, ANNOTATED),
    "interpret.temperature": (0.5, ANNOTATED),
    "interpret.judge": ("statistical", ("wanted",)),
    "interpret.verified": (True, ("interpretations", "wanted")),
    "interpret.fdr": (0.2, NOWHERE),  # of the statistical judge
    "interpret.missing": ("annotation", ("wanted",)),
    "thresholds.absolute": ((0.0, 9.0), ("missing",)),  # at which coverage is shown, and nothing is written
    "thresholds.relative": ((0.5, 0.9), ("missing",)),
    "thresholds.default": ("0.1max", ("wanted", "missing")),
    "synthesis.n": (9, ("synthesis",)),
    "synthesis.m": (9, ("synthesis",)),
    "synthesis.spans": (9, ("synthesis",)),
    "synthesis.temperature": (0.1, ("synthesis",)),
    "synthesis.top_p": (0.1, ("synthesis",)),
    "synthesis.span_tokens": (9, ("synthesis",)),
    "synthesis.top_up": (9, ("synthesis",)),
    "synthesis.pair": ("official", ("synthesis",)),
    "synthesis.summary": ("analysis", ("synthesis",)),
    "synthesis.filter": (False, ("synthesis",)),
    "synthesis.ratio": (0.5, ("synthesis",)),
    **{f"synthesis.{name}": (value, NOWHERE) for name, value in OF_METHODS.items()},
    "interpret.noise": ("truncate", ANNOTATED),
    "interpret.noise_share": (0.2, NOWHERE),  # of a noise
    "seeds.data": (1, ("draw",)),
    "seeds.annotation": (1, ANNOTATED),
    "seeds.generation": (1, ("synthesis", "answers")),
    "seeds.training": ((7,), ("trained",)),
    "llm.batch": (7, NOWHERE),
}
OF_TASK = {
    "toxicity": {
        **EVERYWHERE,
        "model.path": ("lab:qwen", (*OF_MODEL, "trained")),
        "model.chat_template": ("plain", (*OF_MODEL, "trained")),
        "synthesis.label_scored": (True, ("synthesis",)),
        "synthesis.answers": ("drawn", NOWHERE),  # queries get none
        "model.base": ("lab:qwen/base", NOWHERE),
        "tasks.toxicity.prompts": ("lab/reward", ("interpretations", "synthesis")),
        "tasks.toxicity.max_new_tokens": (9, ("synthesis",)),
        "tasks.toxicity.budget": (9, ("synthesis",)),
        "tasks.toxicity.protocol": ("alone", ("trained",)),
        **{
            f"tasks.toxicity.sizes.{role}": (9, ("draw",))
            for role in ("anchor", "safe", "seed", "human", "labelled", "validation", "test")
        },
        "tasks.toxicity.sizes.known": (9, ("draw",)),
        **{
            f"tasks.toxicity.train.{name}": (value, ("trained",))
            for name, value in {
                "mode": "head", "rank": 3, "alpha": 3, "dropout": 0.3, "epochs": 9, "learning_rate": 1e-2,
                "batch_size": 7, "gradient_accumulation": 3, "max_tokens": 33, "group_by_length": False,
                "warmup": 0.3, "float64": False,
            }.items()
        },
        "tasks.toxicity.train.gradient_checkpointing": (True, NOWHERE),
        "tasks.toxicity.train.layers": (1, NOWHERE),  # of the mode "partial"
        "tasks.toxicity.pool": (9, NOWHERE),  # of methods that choose from human data
    },
    "instruction": {
        **{key: where for key, where in EVERYWHERE.items() if key != "interpret.judge"},  # it has no labelled texts
        "synthesis.temperature": (0.1, ("synthesis",)),  # answers are greedy in the lab
        "synthesis.label_scored": (True, NOWHERE),  # a query's
        "synthesis.answers": ("drawn", ("answers",)),
        "model.base": ("lab:qwen/base", ("trained",)),
        "tasks.instruction.prompts": ("paper/instruction", ("interpretations", "synthesis", "answers")),
        "tasks.instruction.max_new_tokens": (9, ("synthesis", "answers")),
        "tasks.instruction.budget": (9, ("synthesis",)),
        "tasks.instruction.protocol": ("alone", ("trained",)),
        **{
            f"tasks.instruction.sizes.{role}": (9, ("draw",))
            for role in ("anchor", "seed", "human", "validation", "test")
        },
        "tasks.instruction.sizes.known": (1, ("draw",)),
        "tasks.instruction.pool": (9, NOWHERE),
    },
}  # fmt: skip


def steps_of(run: RunConfig, task: str) -> dict[str, Step]:
    """The steps of the task's trial of the method "fac" with the run's first training seed."""
    trial: Trial = grid(run, task=task, method="fac")[0]
    with Graph(run, lambda text: None) as graph:
        held = graph.steps(trial)
    mining, coverage = held.mining, held.coverage
    assert mining is not None
    assert coverage is not None
    assert held.scores is not None
    named = dict(held.named())
    named |= {"wanted": mining.wanted, "anchor_features": mining.anchor_features, "seed_features": mining.seed_features}
    named |= {"added_features": coverage.inputs[2], "sae": mining.encoder.sae_step}
    named |= {step.name: step for step in (named["added"], *held.scores.inputs)}
    return named


def behind(steps: Mapping[str, Step], entered: Iterator[str] | tuple[str, ...]) -> set[str]:
    """The steps that a setting enters, and all that are made from them."""
    roots = {id(steps[name]) for name in entered if name in steps}

    def is_reached(step: Step) -> bool:
        return id(step) in roots or any(is_reached(part) for part in step.inputs)

    return {name for name, step in steps.items() if is_reached(step)}


def changed(one: Mapping[str, Step], other: Mapping[str, Step]) -> set[str]:
    return {name for name in one.keys() & other.keys() if one[name].key != other[name].key}


OTHERS = (  # of the run, of an SAE that is trained (test_step_keys), and of engines, which are known by their identity
    *("experiment", "out", "paths", "workers", "tracking", "dry_run", "hydra", "scale", "parity", "default_experiment"),
    *("families", "data", "model.name", "sae", "llm", "annotator", "backend", "ray"),
)


@pytest.fixture(scope="module", params=OF_TASK)
def run(request: pytest.FixtureRequest) -> tuple[str, RunConfig]:
    return request.param, read_config(["experiment=main_results", f"experiment.tasks=[{request.param}]"])


def test_only_what_a_setting_decides_is_made_anew(run: tuple[str, RunConfig]):
    task, held = run
    first = steps_of(held, task)
    wrong = {}
    for key, (value, entered) in OF_TASK[task].items():
        found, expected = changed(first, steps_of(held.with_({key: value}), task)), behind(first, entered)
        if found != expected:
            wrong[key] = {"made anew for nothing": found - expected, "not made anew": expected - found}
    assert wrong == {}


@pytest.mark.parametrize(("key", "value"), CHOOSING.items())
def test_which_samples_are_added_leaves_what_was_written(run: tuple[str, RunConfig], key: str, value: Any):
    task, held = run
    first = steps_of(held, task)
    found = changed(first, steps_of(held.with_({key: value}), task))
    assert found == behind(first, ("added",)) - {"synthesis"}


def test_every_setting_is_put_somewhere(run: tuple[str, RunConfig]):
    task, held = run
    others = tuple(f"tasks.{name}" for name in held.tasks if name != task)
    told = [key for key in leaves(held.values) if not is_in(key, (*OTHERS, *others))]
    if task == "instruction":  # how it trains: test_step_keys
        told = [key for key in told if not key.startswith("tasks.instruction.train.")]
    assert set(told) <= OF_TASK[task].keys() | CHOOSING.keys() | {"interpret.judge"}


def test_the_score_of_an_untrained_model_hangs_on_no_setting_of_training():
    run = read_config(["experiment=main_results", "experiment.tasks=[instruction]"])

    def key(held: RunConfig) -> str:
        (trial,) = possible(held, grid(held, task="instruction", method="base"))
        with Graph(held, lambda text: None) as graph:
            scores = graph.steps(trial).scores
        assert scores is not None
        return scores.key

    assert key(run.with_({"tasks.instruction.train.epochs": 9, "tasks.instruction.train.rank": 3})) == key(run)
    assert key(run.with_({"model.base": "lab:qwen/base"})) != key(run)
