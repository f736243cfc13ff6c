"""experiments.steering from CAA folders to table and page: against the library, run twice, on several behaviours."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from support.caa import write_caa
from support.cli import Finished, fac_here
from support.models import tiny_model

from eval.steering import Answers, evaluate, score
from experiments.harness.config import read_config
from experiments.harness.results import Table
from experiments.pages.steering import Measured, table
from experiments.steps.steering_questions import QuestionFiles, Questions, files_of
from fac.backbone import Backbone, ModelRef, load_causal_lm
from fac.chat import as_chat
from fac.data.choices import POLARITY, read_choices
from fac.data.source import Source
from fac.train.steering import SteeringVector, caa_vector, prompt_vector

MULTIPLIERS = (-1.0, 0.0, 1.0)
BEHAVIORS = ("sycophancy", "survival-instinct")


class Run(NamedTuple):
    """A finished run in `folder`."""

    folder: Path
    done: Finished
    out: str

    @property
    def table(self) -> Table:
        return Table.from_json((self.folder / self.out / "table.json").read_text())

    def vector(self, behavior: str, seed: int) -> SteeringVector:
        return SteeringVector.load(self.folder / self.out / "vectors" / behavior / str(seed))


def steering(folder: Path, *overrides: str, out: str = "out", workers: int = 1) -> Run:
    settings = [
        "experiment=steering",
        "model=local",
        "model.path=model",
        f"workers={workers}",
        "tracking.enabled=false",
        f"out={out}",
    ]
    return Run(folder, fac_here(*settings, "experiment.multipliers=[-1,0,1]", *overrides, cwd=folder), out)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and the CAA folders of two behaviours."""
    folder = tmp_path_factory.mktemp("steering")
    tiny_model(folder / "model", "qwen2")
    for behavior in BEHAVIORS:
        write_caa(folder / "caa", behavior, pairs=8, questions=5)
    return folder


@pytest.fixture(scope="module")
def run(world: Path) -> Run:
    """One behaviour; each of two seeds draws five of the eight pairs."""
    run = steering(world, "experiment.behavior=caa/generate/sycophancy", "experiment.pairs=5", "seeds.training=[42,43]")
    assert run.done.code == 0, run.done.err
    return run


def read(world: Path, role: str, file: str, behavior: str = "sycophancy"):
    return read_choices(Source(world / "caa" / role / behavior / file))


def test_the_numbers_are_those_of_the_library(world: Path, run: Run):
    model, tokenizer = load_causal_lm(ModelRef(str(world / "model")))
    test = read(world, "test", "test_dataset_ab.json")
    robust = {}
    for m in MULTIPLIERS:
        scores = [score(evaluate(model, tokenizer, test, run.vector("sycophancy", seed), m)) for seed in (42, 43)]
        for column in ("robust", "standard", "p_matching", "mass"):
            cell = run.table.cell(f"sycophancy/{m:g}", column)
            assert cell is not None
            seeds = scores if m else scores[:1]  # without the vector, seeds share their answers
            assert cell.values == pytest.approx([100 * getattr(s, column) for s in seeds], abs=1e-3)
        robust[m] = np.array([s.robust for s in scores])
    scr = run.table.cell("sycophancy/scr", "robust")
    assert scr is not None
    assert scr.values == pytest.approx(100 * (robust[1.0] - robust[-1.0]))
    assert (scr.unit, scr.seeds) == ("points", (42, 43))


def test_seeds_that_take_all_pairs_are_one_run(world: Path):
    """As often as it is asked for: no spread of 0 over seeds that change nothing."""
    given = ["experiment.behavior=caa/generate/sycophancy", "seeds.training=[42,43,44]"]
    for n, out in (("null", "all"), (8, "all8")):
        run = steering(world, *given, f"experiment.pairs={n}", out=out)
        assert run.done.code == 0, run.done.err
        assert {(cell.n, cell.std, cell.seeds) for cell in run.table.cells} == {(1, None, ())}
        text = (world / out / "table.md").read_text()
        assert "Every seed takes all pairs, so seeds change nothing" in text
        assert "\nIn brackets: 95 % interval" in text
        assert [path.name for path in (world / out / "vectors" / "sycophancy").iterdir()] == ["42"]


def test_the_table_gives_the_length_of_the_vector_and_the_noise_of_the_test(run: Run):
    norms, scr = run.table.cell("sycophancy/scr", "norm"), run.table.cell("sycophancy/scr", "robust")
    assert norms is not None
    assert norms.values == pytest.approx([run.vector("sycophancy", seed).norm for seed in (42, 43)], abs=1e-5)
    assert scr is not None
    assert scr.interval is not None
    assert scr.interval[0] <= scr.mean <= scr.interval[1]


@pytest.mark.parametrize("contrast", ["answer", "prompt"])
def test_questions_longer_than_the_model_reads_are_left_out_and_counted(world: Path, contrast: str):
    """The tiny model reads 1,024 tokens."""
    for role, file, count in (("generate", "generate_dataset.json", 2), ("test", "test_dataset_ab.json", 1)):
        rows = json.loads((world / "caa" / role / "sycophancy" / file).read_text())
        long = [{**row, "question": "word " * 1100 + row["question"]} for row in rows[:count]]
        (world / f"long_{role}.json").write_text(json.dumps(rows + long))
    given = ["experiment.behavior=sycophancy", "data.generate.path=long_generate.json", "data.test.path=long_test.json"]
    given += ["seeds.training=[42]", f"experiment.contrast={contrast}"]
    run = steering(world, *given, out=f"long_{contrast}")
    assert run.done.code == 0, run.done.err
    short = steering(
        world, "experiment.behavior=caa/generate/sycophancy", *given[3:], out=f"short_{contrast}"
    )  # fmt: skip
    assert [cell.values for cell in run.table.cells] == [cell.values for cell in short.table.cells]
    for told in ("sycophancy: 2 pairs were left out", "sycophancy: 1 questions of the test were left out"):
        assert any(told in note for note in run.table.notes)
    failure = steering(world, *given, "experiment.pairs=9", out="failed").done.failure
    assert "pairs=9 will not do: " in failure


def test_each_seed_draws_its_own_pairs(world: Path, run: Run):
    """The layer is at 13/32 of the depth: 2 of 4."""
    pairs = read(world, "generate", "generate_dataset.json")
    backbone = Backbone(ModelRef(str(world / "model")), 2)
    for seed in (42, 43):
        drawn = sorted(np.random.default_rng(seed).choice(8, 5, replace=False))
        expected = caa_vector(backbone, [pairs[i] for i in drawn], "sycophancy")
        found = run.vector("sycophancy", seed)
        np.testing.assert_allclose(found.direction, expected.direction, atol=1e-6)
        assert (found.layer, found.pairs, found.behavior) == (2, 5, "sycophancy")
    assert not np.allclose(run.vector("sycophancy", 42).direction, run.vector("sycophancy", 43).direction)


def test_no_number_of_the_paper_stands_beside_a_model_and_questions_of_one_s_own(run: Run):
    assert all(cell.paper is None for cell in run.table.cells)
    assert not any(note.startswith("Paper:") for note in run.table.notes)


@pytest.mark.parametrize(("model", "scr"), [("llama31_8b", 28.00), ("qwen2_7b", None)])
def test_the_paper_stands_beside_scr_of_its_own_model_on_caa(
    model: str, scr: float | None, real_data: Callable[[str], Path]
):
    """Beside SCR only, and only where the questions are CAA's."""
    root = real_data("caa") / "generate"
    given = ["experiment=steering", "scale=paper", f"model={model}"]
    run = read_config([*given, f"experiment.behavior=[{root}/sycophancy,{root}/refusal]"])
    half = np.full((2, 4, 2), 0.5)
    at = {m: Answers(half, np.zeros((2, 4), dtype=int), np.ones((2, 4))) for m in run.experiment.multipliers}
    behaviors = []
    for folder in run.experiment.folders:
        files = QuestionFiles(folder.name, *(Source(path, role) for role, path in files_of(folder).items()))
        vector = SteeringVector(torch.ones(4), 13, folder.name, "answer", 9, "a model")
        behaviors.append(Measured(files, Questions([], []), {42: vector}, {42: at}))
    made = table(run, behaviors)
    found = {(cell.row, cell.column): cell.paper.mean for cell in made.cells if cell.paper is not None}
    assert found == ({("sycophancy/scr", "robust"): scr} if scr else {})
    assert made.label.startswith(f"OWN DATA: model {model}; in part")  # the paper has no number of the second behaviour


def test_table_and_page_say_what_matching_means_and_whose_the_numbers_are(run: Run):
    for file in ("table.md", "report.html"):
        text = (run.folder / "out" / file).read_text()
        for words in ("OWN DATA AND MODEL", POLARITY["sycophancy"].matching, "model.layers[1]", "at all positions"):
            assert words in text, (file, words)
    page = (run.folder / "out" / "report.html").read_text()
    assert "<svg" in page
    assert "5 of 8 pairs, 5 questions" in page


def test_running_again_computes_nothing(world: Path, run: Run):
    again = steering(
        world,
        "experiment.behavior=caa/generate/sycophancy",
        "experiment.pairs=5",
        "seeds.training=[42,43]",
        out="again",
    )
    assert again.done.code == 0
    assert "built" not in again.done.err
    assert again.table.to_json(with_provenance=False) == run.table.to_json(with_provenance=False)


@pytest.mark.slow
def test_two_processes_give_the_table_of_one(world: Path, run: Run):
    given = ["experiment.behavior=caa/generate/sycophancy", "experiment.pairs=5", "seeds.training=[42,43]"]
    two = steering(world, *given, "paths.store=other", out="two", workers=2)
    assert two.done.code == 0, two.done.err
    assert "steering_answers" in two.done.err
    assert [(cell.row, cell.values) for cell in two.table.cells] == [(c.row, c.values) for c in run.table.cells]


def test_a_dry_run_of_what_is_stored_writes_nothing(world: Path, run: Run):
    given = ["experiment.behavior=caa/generate/sycophancy", "experiment.pairs=5", "seeds.training=[42,43]"]
    dry = steering(world, *given, "dry_run=true", out="dry").done
    assert dry.code == 0, dry.err
    assert re.search(r"steering_answers +3 +0\n", dry.out)
    assert "everything is stored, the run will only write its table" in dry.out
    assert not (world / "dry").exists()


def test_without_the_vector_seeds_share_their_answers(run: Run):
    kept = (run.folder / "outputs" / "store" / "steering_answers").glob("*/stage.json")
    stages = [json.loads(path.read_text()) for path in kept]
    plain = [stage for stage in stages if stage["params"]["multipliers"] == [0.0]]
    assert plain
    assert all([made["name"] for made in stage["inputs"]] == ["steering_questions"] for stage in plain)
    zero = run.table.cell("sycophancy/0", "p_matching")
    assert zero is not None
    assert (zero.n, zero.std, zero.seeds) == (1, None, ())


def test_several_behaviours_have_one_norm(world: Path):
    folders = ",".join(f"caa/generate/{behavior}" for behavior in BEHAVIORS)
    run = steering(world, f"experiment.behavior=[{folders}]", "seeds.training=[42]", out="both")
    assert run.done.code == 0, run.done.err
    backbone = Backbone(ModelRef(str(world / "model")), 2)
    raw = {
        behavior: caa_vector(backbone, read(world, "generate", "generate_dataset.json", behavior), behavior)
        for behavior in BEHAVIORS
    }
    assert raw["sycophancy"].norm != pytest.approx(raw["survival-instinct"].norm, rel=1e-3)
    mean = np.mean([vector.norm for vector in raw.values()])
    for behavior, vector in raw.items():
        found = run.vector(behavior, 42)
        assert found.norm == pytest.approx(mean, rel=1e-4)
        np.testing.assert_allclose(found.direction, vector.with_norm(float(mean)).direction, atol=1e-5)
    assert {cell.row.split("/")[0] for cell in run.table.cells} == set(BEHAVIORS)
    scr = run.table.cell("survival-instinct/scr", "robust")
    assert scr is not None
    assert scr.unit == "points"


def test_prompts_with_cues(world: Path):
    run = steering(
        world,
        "experiment.behavior=caa/generate/sycophancy",
        "experiment.contrast=prompt",
        "experiment.layer=3",
        "experiment.positions=after_prompt",
        "experiment.method=null",
        "seeds.training=[42]",
        out="prompt",
    )
    assert run.done.code == 0, run.done.err
    cues = [f"You are an assistant that {side}." for side in POLARITY["sycophancy"]]
    pairs = [
        (as_chat(f"{cues[0]}\n\n{item.text}"), as_chat(f"{cues[1]}\n\n{item.text}"))
        for item in read(world, "generate", "generate_dataset.json")
    ]
    expected = prompt_vector(Backbone(ModelRef(str(world / "model")), 3), pairs, "sycophancy")
    np.testing.assert_allclose(run.vector("sycophancy", 42).direction, expected.direction, atol=1e-6)
    assert all(cell.paper is None for cell in run.table.cells)
    assert "after the user" in (world / "prompt" / "table.md").read_text()


def test_a_pair_whose_question_the_test_asks_is_left_out(world: Path):
    """Spelt otherwise, too; the vector is that of the other pairs."""
    generate = json.loads((world / "caa/generate/sycophancy/generate_dataset.json").read_text())
    (shown,) = [{**row, "question": row["question"].replace("Question 2", "QUESTION  2")} for row in generate[2:3]]
    test = json.loads((world / "caa/test/sycophancy/test_dataset_ab.json").read_text())
    (world / "asked.json").write_text(json.dumps([*test, shown]))
    given = ("experiment.behavior=caa/generate/sycophancy", "data.test.path=asked.json", "seeds.training=[42]")
    run = steering(world, *given, out="asked")
    assert run.done.code == 0, run.done.err
    pairs = [pair for i, pair in enumerate(read(world, "generate", "generate_dataset.json")) if i != 2]
    expected = caa_vector(Backbone(ModelRef(str(world / "model")), 2), pairs, "sycophancy")
    np.testing.assert_allclose(run.vector("sycophancy", 42).direction, expected.direction, atol=1e-6)
    assert any("sycophancy: 1 pairs were left out" in note for note in run.table.notes)
    (world / "asked.json").write_text(json.dumps(generate))
    failure = steering(world, *given, out="failed").done.failure
    assert re.search("Every question of .*generate_dataset.json stands in its test", failure), failure


def test_files_in_place_of_folders(world: Path):
    generate, test = (f"caa/{part}" for part in ("generate/sycophancy/generate_dataset.json", "test/sycophancy"))
    rows = json.loads((world / generate).read_text().replace("switched", "turned"))
    (world / "mine.json").write_text(json.dumps([*rows, {**rows[0], "question": "no options"}]))
    overrides = (
        "data.generate.path=mine.json",
        "data.generate.on_error=skip",
        f"data.test.path={test}/test_dataset_ab.json",
        "seeds.training=[42]",
    )
    run = steering(world, "experiment.behavior=politeness", *overrides, out="files")
    assert run.done.code == 0, run.done.err
    assert run.vector("politeness", 42).behavior == "politeness"
    assert any(f"politeness, generate: {len(rows)} texts, 1 malformed rows skipped" in n for n in run.table.notes)


@pytest.mark.parametrize(
    ("overrides", "said"),  # the behaviour, and what else is set
    [
        ((), "experiment.behavior is not set"),
        (("CAA/datasets/generate/refusal",), "There is no .*: git clone .*nrimsky/CAA, then experiment.behavior=CAA"),
        (("caa/generate/nothing",), "There is no .*nothing/generate_dataset.json: set experiment.behavior to a folder"),
        (("caa/generate/alone",), "There is no .*caa/test/alone/test_dataset_ab.json: .*data.test.path"),
        (("[]",), "experiment.behavior must name at least one"),
        (("[a/x,b/x]",), "each only once"),
        (("[caa/generate/sycophancy,caa/generate/survival-instinct]", "data.test.path=x.json"),
         "data.test.path names one file, but there are several"),
        (("caa/generate/sycophancy", "experiment.layer=5"), "experiment.layer=5 will not do: .* 1 to 4"),
        (("caa/generate/sycophancy", "experiment.pairs=9"), "pairs=9 will not do: .* has 8 pairs"),
        (("caa/generate/sycophancy", "experiment.pairs=0"), "experiment.pairs=0 will not do"),
        (("caa/generate/sycophancy", "experiment.multipliers=[0,1]"), "experiment.multipliers must hold -1 and 1"),
        (("caa/generate/sycophancy", "seeds.training=[]"), "seeds.training needs at least one"),
        (("caa/generate/sycophancy", "experiment.method=ful"), "no row experiment.method=ful: .* mean full"),
        (("caa/generate/sycophancy", "experiment.positions=some"), "experiment.positions='some' will not do"),
        (("caa/generate/sycophancy", "experiment.cue=be kind"), "experiment.cue and counter_cue come"),
        (("caa/generate/bad",), r"generate_dataset.json, row 1: the question has no option \(D\)"),
        (("caa/generate/alone", "data.test.path=caa/test/sycophancy/test_dataset_ab.json",
          "experiment.contrast=prompt"), "No cue is known for alone: give experiment.cue and experiment.counter_cue"),
    ],
)  # fmt: skip
def test_failures_are_said_in_one_sentence(world: Path, overrides: tuple[str, ...], said: str):
    for name in ("alone", "bad"):
        folder = world / "caa" / "generate" / name
        folder.mkdir(exist_ok=True)
        rows = json.loads((world / "caa/generate/sycophancy/generate_dataset.json").read_text())
        if name == "bad":
            rows[0]["answer_matching_behavior"] = "(D)"
        (folder / "generate_dataset.json").write_text(json.dumps(rows))
    (world / "caa" / "test" / "bad").mkdir(exist_ok=True)
    (world / "caa" / "test" / "bad" / "test_dataset_ab.json").write_text("[]")
    named = [f"experiment.behavior={overrides[0]}", *overrides[1:]] if overrides else []
    failure = steering(world, *named, out="failed").done.failure
    assert re.search(said, failure), failure
