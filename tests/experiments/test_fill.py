"""experiments.fill from files to a data set: coverage against brute force, every text's origin, a real writer's faults.

The lab's model measures, explains, judges and writes, on texts of the lab's world that stand in files.
"""

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from support.cli import COMMAND, Finished, environment, fac_here, start_fac
from support.openai_server import Body, FaultyServer
from support.own_data import own_files

from experiments.harness.results import LAB_LABEL, Table
from experiments.steps.fill import BUDGET, COPIES, NEVER, REFUSED, UNREAD, form_of, why_left
from experiments.steps.own_data import Described, is_harmful
from fac.data.source import Source
from fac.pooled import Pooled
from fac.provenance import REPOSITORY
from fac.synthesis.samples import HELD_OUT, INACTIVE, REFUSAL, REPEATED, UNREADABLE, Sample

TEXTS, ANCHOR, SEED = 15, 150, 24
SMALL = ["interpret.spans=2", "synthesis.n=1", "synthesis.m=2", "synthesis.top_up=1", "workers=1"]
SMALL += ["tracking.enabled=false", f"budget={TEXTS}", "experiment.features=40"]


class Run(NamedTuple):
    """A finished run, and how it was called."""

    folder: Path
    arguments: list[str]
    done: Finished

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows_in(self.out / "samples.jsonl")

    def table(self, name: str = "table", out: str = "out") -> Table:
        return Table.from_json((self.folder / out / f"{name}.json").read_text())

    def again(self, *more: str) -> Finished:
        return fac_here(*self.arguments, *more, cwd=self.folder)

    def built(self, step: str) -> list[Path]:
        return [file.parent for file in (self.folder / "outputs" / "store" / step).glob("*/stage.json")]


def rows_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("fill")
    arguments = ["experiment=fill", *own_files(folder), "task.description=harmful requests", *SMALL]
    arguments += ["experiment.label=1", "data.licence=cc-by-4.0", "out=out"]
    done = fac_here(*arguments, cwd=folder)
    assert done.code == 0, done.err
    return Run(folder, arguments, done)


def dense(pooled: Pooled) -> NDArray[np.float32]:
    return np.stack([pooled.row(text) for text in range(pooled.n_texts)])


@pytest.fixture(scope="module")
def matrices(run: Run) -> dict[int, NDArray[np.float32]]:
    """The dense activations of anchor, seed and what was added, by their number of texts."""
    found = [dense(Pooled.load(folder)) for folder in run.built("features")]
    return {len(matrix): matrix for matrix in found}


def test_every_text_activates_the_feature_it_was_written_for_which_the_seed_does_not(run: Run, matrices):
    cut = matrices[ANCHOR].max(axis=0) * np.float32(0.5)
    assert 0 < len(run.rows) <= TEXTS
    for row, own in zip(run.rows, matrices[len(run.rows)], strict=True):
        feature = row["feature"]
        assert own[feature] > cut[feature]
        assert own[feature] == pytest.approx(row["activation"], rel=1e-3)
        assert row["relative_activation"] == pytest.approx(row["activation"] / matrices[ANCHOR].max(axis=0)[feature])
        assert not (matrices[SEED][:, feature] > cut[feature]).any()
        assert row["span"] in row["prompt"]
        assert row["explanation"]
        assert {"attempt", "step", "writer", "request_seed", "prompt_digest"} <= row.keys()
    known = {
        json.loads(line)["prompt"] for role in ("anchor", "seed") for line in (run.folder / f"{role}.jsonl").open()
    }
    assert not known & {row["prompt"] for row in run.rows}  # nothing is copied
    assert {row["label"] for row in run.rows} == {1}


def test_coverage_before_and_after_is_that_of_the_matrices_at_every_threshold(run: Run, matrices):
    """Of all features, and of those that the annotator holds for relevant, which are among the missing ones."""
    anchor, seed, added = matrices[ANCHOR], matrices[SEED], matrices[len(run.rows)]
    table, compared = run.table("coverage_of_all"), 0
    for row in table.rows:
        value, relative = float(row.split("×")[0]), row.endswith("×max")
        cut = anchor.max(axis=0) * np.float32(value) if relative else np.full(anchor.shape[1], value, np.float32)
        active, before, after = ((m > cut).any(axis=0) for m in (anchor, seed, np.vstack([seed, added])))
        told = {c.column: c.mean for c in table.cells if c.row == row}
        assert told["active"] == active.sum()
        assert (told["missing"], told["left"]) == ((active & ~before).sum(), (active & ~after).sum())
        assert told["before"] == pytest.approx(100 * (active & before).sum() / active.sum(), abs=1e-5)
        assert told["after"] == pytest.approx(100 * (active & after).sum() / active.sum(), abs=1e-5)
        compared += told["after"] > told["before"]
    assert compared >= 5
    ours = {c.column: c.mean for c in run.table().cells if c.row == "0.5×max"}
    assert ours["before"] == 0
    assert 0 < ours["active"] == ours["missing"] <= 40
    why = json.loads((run.out / "features_left.json").read_text())
    assert len(why) == ours["left"]
    cut = anchor.max(axis=0) * np.float32(0.5)
    assert not any((added[:, one["feature"]] > cut[one["feature"]]).any() for one in why)
    tally = {c.row: c.mean for c in run.table("still_missing").cells}
    assert tally.pop("covered now") == ours["missing"] - ours["left"]
    assert sum(tally.values()) == len(why)


def test_the_folder_is_a_data_set_that_datasets_loads_with_a_card_that_says_how_it_was_made(run: Run, tmp_path: Path):
    loaded = datasets.load_dataset(str(run.out / "dataset"), cache_dir=str(tmp_path))["train"]
    assert [dict(row) for row in loaded] == run.rows
    front, card = (run.out / "dataset" / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    told = yaml.safe_load(front)
    assert (told["license"], told["pretty_name"]) == ("cc-by-4.0", "harmful requests")
    assert "not-for-all-audiences" in told["tags"]
    assert "**Warning.** These texts are harmful requests" in card
    for said in ("lab_llama, ", "layer 2", "temperature 0.8", "anchor.jsonl`, 150 texts", "| kept | ", "Code: "):
        assert said in card
    counts = dict(re.findall(r"^\| ([a-z].*?) \| (\d+) \|$", card, re.MULTILINE))
    lost = (
        "tell of the prompt in place of what it asks for",
        "refused",
        "unreadable",
        "cut off",
        "repeats of another sample",
        "do not activate their feature",
        "kept",
    )
    copies = int(counts["copies of a text of the anchor or seed, or of a span"])
    assert sum(int(counts[name]) for name in lost) + copies == int(counts["last step: samples asked for"])
    assert int(counts["in the data set"]) == len(run.rows)
    assert len(rows_in(run.out / "rejected.jsonl")) == int(counts["last step: samples asked for"]) - len(run.rows)
    assert all(row["why"] for row in rows_in(run.out / "rejected.jsonl"))


def test_tables_name_the_data_and_the_page_shows_before_after_and_what_is_left(run: Run):
    text = (run.out / "table.md").read_text()
    assert "OWN DATA: the lab's model lab_llama on anchor anchor.jsonl, seed seed.jsonl; it knows" in text
    assert LAB_LABEL not in text
    assert "missing ones that the annotator was asked about" in text
    page = (run.out / "report.html").read_text()
    for said in ("FAC before", "What is still missing, and why", "seed and what was written", "not for use"):
        assert said in page


def test_another_description_asks_the_judge_anew_and_explains_nothing_anew(run: Run):
    explained = len(run.built("interpret"))
    assert "everything is stored" in run.again("dry_run=true").out
    other = run.again("task.description=how people bake", "dry_run=true").out
    assert re.search(r"interpret +0 +1\b", other)
    assert run.again("experiment.label=0", "data.licence=mit", "out=b").code == 0
    assert len(run.built("interpret")) == explained
    assert rows_in(run.folder / "b" / "samples.jsonl")[0]["label"] == 0


def test_with_relevance_of_all_nobody_judges_and_the_definition_holds(run: Run, matrices):
    done = run.again("relevance=all", "task.description=null", "experiment.label=null", "data.licence=null", "out=all")
    assert done.code == 0, done.err
    table = run.table(out="all")
    cut = matrices[ANCHOR].max(axis=0) * np.float32(0.5)
    active, known = ((matrices[n] > cut).any(axis=0) for n in (ANCHOR, SEED))
    told = {c.column: c.mean for c in table.cells if c.row == "0.5×max"}
    assert told["active"] == active.sum()
    assert told["before"] == pytest.approx(100 * (active & known).sum() / active.sum(), abs=1e-5)
    assert told["after"] > told["before"]
    assert not (run.folder / "all" / "coverage_of_all.json").exists()
    tally = {c.row: c.mean for c in run.table("still_missing", "all").cells}
    assert tally[BUDGET] > 0  # fifteen are written for
    rows = rows_in(run.folder / "all" / "samples.jsonl")
    assert all("label" not in row for row in rows)
    card = (run.folder / "all" / "dataset" / "README.md").read_text()
    assert "license: unknown" in card
    assert "none was given (data.licence=...)" in card
    assert "Warning" not in card
    judged = [folder for folder in run.built("interpret") if (folder / "replies-judge.jsonl").exists()]
    assert len(judged) < len(run.built("interpret"))


def test_prompts_of_ones_own_write_and_ask(run: Run):
    assert fac_here("new", "task", "mine", cwd=run.folder).code == 0
    for name, text in (("write", "write a query about {{ summary }}"), ("judge", "is this about {{ description }}?")):
        (run.folder / "mine" / f"{name}.jinja").write_text(text)
    assert re.search(r"synthesis +0 +1\b", run.again("task.prompts=mine", "dry_run=true").out)
    said = run.again("task.prompts=nowhere").failure
    assert re.search("There is no prompt folder .*nowhere", said)


FAILURES = [  # those of what both share are tests of select
    (["task.description=null"], "relevance=llm goes by a description of the task: give one, task.description="),
    (["experiment.method=alpaca"], "experiment.method cannot be alpaca"),
]


@pytest.mark.parametrize(("given", "said"), FAILURES, ids=lambda value: "" if isinstance(value, str) else value[0])
def test_what_cannot_be_is_one_sentence(run: Run, given: list[str], said: str):
    assert said in run.again(*given, "out=failed").failure


def test_the_doctor_prices_what_is_written_explained_and_judged(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    more = ["llm=openai", "annotator=openai", f"paths.outputs={run.folder}/empty"]

    def asked(*settings: str) -> dict[str, int]:
        told = fac_here("doctor", *run.arguments, *more, *settings, cwd=run.folder).out
        found = re.findall(r"cost ((?:interpret: )?\w+)\b.*?for ([\d,]+) requests", told)
        return {name: int(count.replace(",", "")) for name, count in found}

    told = asked()
    assert (told["interpret: explain"], told["interpret: judge"]) == (40, 40)  # experiment.features
    assert asked("experiment.budget=30")["write"] == 2 * told["write"] > 0


class RealFaults:
    """A writer that refuses, gives meta text or copies what it is shown, or writes, by the request's seed."""

    def __init__(self) -> None:
        self.ways: dict[str, int] = {}

    def __call__(self, body: Body) -> str:
        prompt, rng = body["messages"][0]["content"], random.Random(body["seed"])
        shown = re.findall(r"^(?:- |The words that show it: )(.*)$", prompt, re.MULTILINE)
        span = shown[0] if shown else "how to do it"
        ways: dict[str, Callable[[], str]] = {
            "refusal": lambda: "I'm sorry, but I can't assist with that.",
            "meta": lambda: "I'm happy to assist you with your request. Could you please tell me more about it?",
            "frame": lambda: f"<text>\nA good example, which shows it clearly: {span}\n</text>",
            "form": lambda: "<text>\nTHE TEXT\n</text>",
            "copy": lambda: f"<text>\n{span}\n</text>",
            "written": lambda: (
                f"Sure! Here is one:\n\n<text>\ntell me more about {span}\n</text>\n\nI hope this helps!"
            ),
        }
        way = rng.choice([*ways, "written", "written"])
        self.ways[way] = self.ways.get(way, 0) + 1
        return ways[way]()


def test_a_real_writers_faults_are_counted_and_survived(run: Run):
    """Prompts for the writer are those for large models, while the lab's model explains and judges with its own."""
    faults = RealFaults()
    with FaultyServer(faults) as server:
        done = run.again(
            "llm=openai", f"llm.url={server.url}", "llm.model=real", "llm.key_env=null", "llm.budget_usd=null",
            "annotator=transformers", "synthesis.top_up=0", "out=real",
        )  # fmt: skip
    assert done.code == 0, done.err
    assert min(faults.ways.values()) > 0
    assert len(faults.ways) == 6
    told = {c.row: c.mean for c in run.table("samples", "real").cells}
    assert told["refused"] + told["refused_candidates"] == faults.ways["refusal"]
    assert told["unreadable"] > 0
    assert told["in_the_test"] > 0
    assert told["scaffold"] > 0
    rejected = rows_in(run.folder / "real" / "rejected.jsonl")
    assert {"refusal", "unreadable", "copies a text or span"} <= {row["why"] for row in rejected}
    for row in rows_in(run.folder / "real" / "samples.jsonl"):
        assert row["prompt"].startswith("tell me more about")


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_asks_goes_on_where_it_was(run: Run, tmp_path: Path):
    own_files(tmp_path)
    arguments = [a.replace(str(run.folder), str(tmp_path)) for a in run.arguments]
    process = start_fac(*arguments, cwd=tmp_path)
    log = "outputs/store/synthesis/.partial-*/writing/*/replies.jsonl"
    for _ in range(2400):
        if any(tmp_path.glob(log)) or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "samples.jsonl").exists()
    assert any(tmp_path.glob(log))
    done = fac_here(*arguments, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "interpret" not in re.findall(r"(\w+) \w+ built in", done.err)
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == (run.out / "samples.jsonl").read_bytes()


def sample(reason: str, kept: bool = False) -> Sample:
    return Sample(7, 2, 0, None, "", "", "", 0, kept=kept, rejected_because=reason)


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        ([REFUSAL, INACTIVE, UNREADABLE], NEVER),
        ([REFUSAL, REPEATED], COPIES),
        ([HELD_OUT], COPIES),
        ([REFUSAL, UNREADABLE], REFUSED),
        ([UNREADABLE], UNREAD),
    ],
)
def test_a_feature_is_missing_for_what_stopped_the_text_that_came_furthest(reasons: list[str], why: str):
    samples = [sample(reason) for reason in reasons]
    assert why_left(samples, written_for=True) == why
    assert why_left([*samples, sample("", kept=True)], written_for=True) == BUDGET
    assert why_left((), written_for=False) == BUDGET


@pytest.mark.parametrize(
    ("rows", "options", "row"),
    [
        ([{"text": "a b"}], {}, {"text": "x"}),
        ([{"prompt": "a b", "n": 1}], {}, {"prompt": "x"}),
        ([{"instruction": "a", "input": "b"}], {}, {"instruction": "x", "input": ""}),
        ([{"messages": [{"role": "user", "content": "a"}]}], {}, {"messages": [{"role": "user", "content": "x"}]}),
        ([{"conversations": [{"from": "human", "value": "a"}]}], {}, {"messages": [{"role": "user", "content": "x"}]}),
        ([{"chosen": "\n\nHuman: a\n\nAssistant: b"}], {}, {"prompt": "x"}),
        ([{"note": {"said": "a"}}], {"text": "note.said"}, {"prompt": "x"}),
    ],
)
def test_a_written_text_stands_as_those_of_the_seed_do(tmp_path: Path, rows, options, row):
    (tmp_path / "seed.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert form_of(Source(tmp_path / "seed.jsonl", **options)).row("x") == row


def test_a_description_says_whether_the_texts_are_harmful_unless_the_user_does():
    assert is_harmful(Described("Toxic comments"))
    assert not is_harmful(Described("questions that angry customers ask a bank"))
    assert not is_harmful(Described("toxic comments", harmful=False))
    assert is_harmful(Described("comments", harmful=True))
    assert not is_harmful(Described())


@pytest.mark.slow
def test_the_readmes_example_runs_as_it_is_written(tmp_path: Path):
    readme = (REPOSITORY / "README.md").read_text()
    example = readme.partition("## Your own data")[2].partition("```bash\n")[2].partition("```")[0]
    assert len(example.splitlines()) == 10
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "fac").symlink_to(COMMAND)
    done = subprocess.run(
        ["bash", "-ec", example], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(told) == 3
    assert all(row["text"] and row["activation"] > 0 for row in told)
