"""Every experiment builds exactly the steps that its dry run lists, and a second run builds nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from support.caa import write_caa
from support.encoders import sentences, train_sae
from support.models import tiny_model
from support.own_data import own_files
from support.plans import plan_of, stored
from support.reduced import measured, reduced

from experiments.harness.config import read_config
from experiments.harness.listing import experiments
from experiments.harness.records import load
from experiments.harness.results import Table
from experiments.harness.run import execute
from experiments.noise import SETTINGS as NOISE
from experiments.tasks import TASKS

MODELS = "[lab_llama,lab_qwen]"


def alpaca_eval(folder: Path) -> list[str]:
    sides = {"generator_1": "reference", "generator_2": "mine", "output_1": "yes and yes"}
    rows = [
        {"instruction": f"do {i}", "output_2": f"no {i}" * (i % 4), "preference": 1 + i % 2, **sides} for i in range(20)
    ]
    (folder / "annotations.json").write_text(json.dumps(rows))
    return [f"experiment.annotations={folder}/annotations.json", "experiment.instructions=any"]


def steering(folder: Path) -> list[str]:
    tiny_model(folder / "model", "qwen2")
    behavior = write_caa(folder / "caa", "sycophancy")
    named = ["model=local", f"model.path={folder}/model", f"experiment.behavior={behavior}"]
    return [*named, "experiment.pairs=5", "seeds.training=[42,43]", "experiment.multipliers=[-1,0,1]"]


def sae(folder: Path) -> list[str]:
    train_sae(tiny_model(folder / "model", "qwen2"), folder / "sae")
    texts(folder / "texts.txt", 60)
    named = ["model=local", f"model.path={folder}/model", f"data.corpus.path={folder}/texts.txt"]
    trained = ["sae=train_paper", "sae.train.width=64", "sae.train.k=4", "sae.train.k_start=12"]
    return [*named, *trained, "sae.train.anneal_steps=6", "sae.train.batch_size=20", "sae.train.epochs=3"]


def reward(folder: Path) -> list[str]:
    for role, asked in (("train", "how do i do thing"), ("test", "where do i find thing")):
        rows = [{"prompt": f"{asked} {n}", "chosen": "sure here is how", "rejected": "no"} for n in range(8)]
        (folder / f"{role}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"data.{role}.path={folder}/{role}.jsonl" for role in ("train", "test")]
    return [*files, "tasks.reward.train.epochs=1", "seeds.training=[42]"]


def matching(folder: Path) -> list[str]:
    texts(folder / "texts.txt", 60)
    return [f"experiment.models={MODELS}", f"data.corpus.path={folder}/texts.txt"]


def coverage(folder: Path) -> list[str]:
    texts(folder / "anchor.txt", 40)
    texts(folder / "seed.txt", 10)
    return [f"data.{role}.path={folder}/{role}.txt" for role in ("anchor", "seed")]


def texts(file: Path, count: int) -> None:
    file.write_text("".join(f"{text}\n" for text in sentences(count, 1)))


def toxicity(*options: str) -> Callable[[Path], list[str]]:
    """A table of trials, reduced to toxicity."""
    return lambda _: [*(f"experiment.{option}" for option in options), *reduced("toxicity")]


def reasoning(folder: Path) -> list[str]:
    rows = [{"question": f"Ann has {n} boats and buys one. How many?", "answer": f"#### {n + 1}"} for n in (2, 5)]
    (folder / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = [s for s in reduced("instruction") if "seeds" not in s]
    named = ["experiment.models=[lab_llama]", f"experiment.gsm8k={folder}/gsm8k.jsonl"]
    return [*named, *made, "seeds.training=[42,43]"]


def sae_sweep(folder: Path) -> list[str]:
    small = ["sae.train.steps=400", "sae.train.width=512", "experiment.swept=[widths,layers]"]
    return [*small, "experiment.widths=[256]", "experiment.layers=[1]", *reduced("toxicity")]


SETTINGS: dict[str, Callable[[Path], list[str]]] = {
    "alpaca_eval": alpaca_eval,
    "annotation": lambda _: ["experiment.tasks=[toxicity]", "experiment.features=20", *measured("toxicity")],
    "budgets": lambda _: [
        "experiment.budgets=[3,6]", "experiment.writing=3", "experiment.methods=[baseline,full,select_fac,fac]",
        "tasks.toxicity.pool=40", *(s for s in reduced("toxicity") if "budget" not in s),
    ],
    "correlation": toxicity(
        "tasks=[toxicity]", "methods=[baseline,full,fac]", "worlds=[0,1]", "generations=[42]", "draws=20"
    ),
    "coverage": coverage,
    "diversity": toxicity("methods=[baseline,full,fac]", "generations=[42]", "draws=2", "bootstrap=20"),
    "fill": lambda folder: [
        *own_files(folder), "budget=6", "task.description=harmful requests", "interpret.spans=2", "synthesis.n=1",
        "synthesis.m=1", "synthesis.top_up=1", "synthesis.per_feature=1",
    ],
    "lab": lambda _: ["experiment.methods=[baseline,full,fac]", *reduced("toxicity")],
    "lookup": lambda _: ["experiment.tasks=[toxicity]", "experiment.ids=[1,2,3]", *measured("toxicity")],
    "matching": matching,
    "noise": toxicity(),
    "reasoning": reasoning,
    "reward": reward,
    "sae": sae,
    "sae_sweep": sae_sweep,
    "self_improvement": toxicity(),
    "training_modes": toxicity(),
    "generators": toxicity("writers=[lab_llama,lab_qwen]", "temperatures=[0.4,0.8]"),
    "heads": toxicity("tasks=[toxicity]", "methods=[baseline,fac]"),
    "representations": toxicity("methods=[baseline,random_features,fac]"),
    "samples": lambda _: [
        "experiment.samples=[1,2]", "experiment.pool=30", *(s for s in reduced("toxicity") if "budget" not in s),
    ],
    "select": lambda folder: [
        *own_files(folder), f"data.pool.path={folder}/pool.jsonl", "budget=5", "relevance=llm",
        "task.description=harmful requests", "interpret.spans=2",
    ],
    "sections": lambda _: ["experiment.methods=[baseline,fac]", *reduced("reward")],
    "shares": toxicity("tasks=[toxicity]", "shares=[0.5,1.0]"),
    "steering": steering,
    "steering_curves": lambda _: [
        "experiment.tasks=[sycophancy]", "experiment.methods=[baseline,fac]", *reduced("sycophancy")
    ],
    "subsets": lambda _: [
        "experiment.size=6", "experiment.each=3", "experiment.draws=20", "tasks.toxicity.pool=40",
        *measured("toxicity"),
    ],
    "thresholds": toxicity("thresholds=[0.3max,0.5max]"),
    "two_steps": lambda _: [
        "experiment.tasks=[toxicity]", *(s for s in reduced("toxicity") if "train" not in s),
    ],
    "verdicts": lambda _: [
        f"experiment.models={MODELS}",
        *(s for s in reduced("toxicity") if s.startswith(("interpret", "tasks.toxicity.s"))),
    ],
    "variants": toxicity("variants=[strongest,binary,magnitude]"),
    "worlds": lambda _: [
        "experiment.worlds=[0,1]", "experiment.generations=[42]", "experiment.methods=[baseline,fac]",
        *reduced("toxicity"),
    ],
}  # fmt: skip


ELSEWHERE = {"cross_model", "main_results"}  # in the tests of their own tables, which run them whole anyway


def test_every_experiment_is_among_them():
    assert {*SETTINGS, *ELSEWHERE} == set(experiments())


NUMBERS = {  # tables of trials: the columns that must have a number in every row
    "annotation": ("features",),
    "budgets": ("toxicity",),
    "lookup": ("anchor",),
    "noise": ("toxicity",),
    "reasoning": ("gsm8k_before", "gsm8k_after"),
    "sae_sweep": ("toxicity",),
    "self_improvement": ("toxicity", "toxicity_missing", "toxicity_explained"),
    "training_modes": ("toxicity", "toxicity_parameters"),
    "generators": ("lab_llama", "lab_qwen", "gap"),
    "heads": ("toxicity", "toxicity_rows"),
    "representations": ("toxicity",),
    "samples": ("toxicity",),
    "sections": ("reward", "reward_chat", "reward_chat_hard", "reward_safety", "reward_reasoning"),
    "shares": ("toxicity", "toxicity_fac"),
    "steering_curves": ("scr", "robust@+1", "standard@-1"),
    "thresholds": ("toxicity",),
    "two_steps": ("toxicity",),
    "variants": ("toxicity", "toxicity_fac"),
    "verdicts": ("toxicity_yes", "toxicity_probably", "toxicity_maybe"),
}


def check_numbers(name: str, out: Path) -> None:
    """Every cell that should be is filled, and each number of a test is one that a trial has."""
    table = Table.from_json((out / "table.json").read_text())
    for column in NUMBERS[name]:
        assert [row for row in table.rows if table.cell(row, column) is None] == [], column
    records = load(out / "records.json") if (out / "records.json").exists() else []  # of tables of trials
    measured = {round(100 * value, 4) for record in records for value in record.metrics.values()}
    task = NUMBERS[name][0]
    if measured and task in TASKS:
        cells = [cell for cell in table.cells if cell.column == task]
        assert {round(value, 4) for cell in cells for value in cell.values} <= measured
        assert {cell.seeds for cell in cells} == {(42,)}


def noise(out: Path) -> None:
    """Noise changes what is missing or what is told of it."""
    table = Table.from_json((out / "table.json").read_text())
    assert table.rows == ("baseline", *NOISE)
    numbers = {row: cell.mean for row in NOISE if (cell := table.cell(row, "toxicity_jaccard"))}
    assert numbers.keys() == NOISE.keys()
    assert numbers["original"] == numbers["truncation_20"] == numbers["mismatch_20"] == 100
    assert 100 > numbers["mislabel_10"] > numbers["mislabel_20"] > 50
    assert all(table.cell(row, "toxicity_rows") for row in table.rows)
    assert all(table.cell(row, "toxicity_fac") for row in NOISE)
    mismatched = table.cell("mismatch_20", "toxicity")
    assert mismatched is not None
    assert mismatched.paper is not None
    assert mismatched.paper.mean == 58.85
    assert (original := table.cell("original", "toxicity_jaccard")) is not None
    assert original.paper is not None


def trained_parameters(out: Path) -> None:
    """More of the model is trained from row to row."""
    table = Table.from_json((out / "table.json").read_text())
    counts = [cell.mean for row in table.rows if (cell := table.cell(row, "toxicity_parameters"))]
    assert len(counts) == 4
    assert counts == sorted(counts)
    assert (score := table.cell("full", "toxicity")) is not None
    assert (pes := table.cell("full", "toxicity_pes")) is not None
    assert pes.mean == pytest.approx(score.mean / math.log10(counts[-1]), abs=1e-4)


def before_and_after(out: Path) -> None:
    """A model is measured as it is and as each seed trained it."""
    table = Table.from_json((out / "table.json").read_text())
    assert table.columns == ("gsm8k_before", "gsm8k_after", "gsm8k_gap")
    before, after = (table.cell("lab_llama", f"gsm8k_{when}") for when in ("before", "after"))
    assert before is not None
    assert after is not None
    assert (after.seeds, after.paper) == ((42, 43), None)
    assert 0 <= before.mean <= 100
    assert "LiveCodeBench is not in lm-eval" in (out / "table.md").read_text()


def every_sae(out: Path) -> None:
    """Every SAE is trained, measured and written by."""
    table = Table.from_json((out / "table.json").read_text())
    rows = ("512_k8", "256_k8", "512_k8_layer1")
    assert table.rows == ("baseline", *rows)
    for column in ("toxicity_l0", "toxicity_l2", "toxicity_rows"):
        assert all(table.cell(row, column) for row in rows), column
    assert len({cell.mean for row in rows if (cell := table.cell(row, "toxicity_l2"))}) == 3
    assert all(cell.paper is None for cell in table.cells)  # other sizes than the lab's own
    assert "Fig. 8" in (out / "report.html").read_text()


CHECKS: dict[str, Callable[[Path], None]] = {  # what else each table must say
    "noise": noise,
    "reasoning": before_and_after,
    "sae_sweep": every_sae,
    "training_modes": trained_parameters,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for the tables of trials, which share most of their steps: none of them is made twice."""
    return tmp_path_factory.mktemp("shared")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_what_is_planned_is_what_is_built_and_a_second_run_builds_nothing(name: str, shared: Path, tmp_path: Path):
    outputs = shared if name in NUMBERS else tmp_path
    store = outputs / "store"
    settings = [f"experiment={name}", *SETTINGS[name](tmp_path), f"paths.outputs={outputs}", f"out={tmp_path}/out"]
    settings += ["tracking.enabled=false", "workers=1" if name in NUMBERS else "workers=2"]
    already = stored(store)
    before = plan_of(settings)
    assert before.left or already
    assert not before.stops
    assert stored(store) == already
    execute(experiments()[name], read_config(settings))
    built = stored(store)
    assert {**already, **built} == built  # what was there is not made again
    assert built.keys() - already.keys() == before.left
    assert not plan_of(settings).left
    if name in NUMBERS:
        check_numbers(name, tmp_path / "out")
        CHECKS.get(name, lambda _: None)(tmp_path / "out")
        return  # the others show that a run which plans nothing builds nothing
    execute(experiments()[name], read_config(settings))
    assert stored(store) == built
