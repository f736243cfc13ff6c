"""The whole loop behind a server whose writer answers as real 8 B models do: what becomes of every answer, and which
texts are trained on.

The lab's models measure, explain, judge and are trained; the writer is asked with the paper's prompts.
"""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from experiments.results import Table
from support.cli import Finished, fac_here
from support.openai_server import FaultyServer
from support.real_writer import GOOD, RealWriter, Sent

from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, Schema
from fac.llm.base import request_seed
from fac.llm.openai import SEEDS
from fac.prompts import ROOT
from fac.synthesis.samples import LOST, REASONS, Sample, load_samples

STEPS = {"toxicity": "classifier", "reward": "reward", "sycophancy": "vector", "instruction": "sft"}
SCHEMAS: dict[str, Schema[Any]] = {"toxicity": QUERY, "reward": PAIR, "sycophancy": CHOICE, "instruction": INSTRUCTION}
NAMES = {
    "toxicity": "Toxicity AUPRC",
    "reward": "Reward accuracy",
    "sycophancy": "Sycophancy SCR",
    "instruction": "Instruction following WR",
}
METHODS = ("random_features", "fac")
BUDGET = 60
SMALL = "{anchor: 10, seed: 16, human: 10, validation: 10, test: 16, known: 4}"
REDUCED = [
    "experiment=main_results",
    f"experiment.tasks=[{','.join(STEPS)}]",
    "experiment.rows=[baseline,random_features,fac]",
    "tasks.toxicity.sizes={anchor: 16, safe: 30, seed: 16, human: 10, labelled: 20, validation: 9, test: 60, known: 6}",
    *(f"tasks.{task}.sizes={SMALL}" for task in STEPS if task != "toxicity"),
    *(f"tasks.{task}.budget={BUDGET}" for task in STEPS),
    *(f"tasks.{task}.seeds=[42]" for task in STEPS),
    *(f"tasks.{task}.train.epochs=1" for task in STEPS if task != "sycophancy"),
    "interpret.spans=3",
    "thresholds.default=0.3max",
    "synthesis.n=2",
    "synthesis.m=1",
    "synthesis.top_up=1",
    "llm=openai",
    "llm.model=real-8b",
    "llm.key_env=null",
    "llm.budget_usd=null",
    "annotator=transformers",
    "workers=1",
    "out=out",
]


class Run(NamedTuple):
    folder: Path
    done: Finished
    writer: RealWriter

    @property
    def store(self) -> Path:
        return self.folder / "outputs" / "store"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("real")
    prompts = [f"tasks.{task}.prompts={prompts_of(task, folder / 'prompts')}" for task in STEPS]
    writer = RealWriter()
    with FaultyServer(writer) as server:
        done = fac_here(*REDUCED, *prompts, f"llm.url={server.url}", cwd=folder)
    assert done.code == 0, done.err
    assert set(server.answered.values()) == {1}
    return Run(folder, done, writer)


def prompts_of(task: str, root: Path) -> Path:
    """A prompt set whose writer is asked as the paper's and whose annotator, a model of the lab's, as the lab's."""
    (root / task).mkdir(parents=True)
    shutil.copy(ROOT / "paper" / "set.yaml", root)
    for role in ("explain", "verify"):
        shutil.copy(ROOT / "lab" / f"{role}.jinja", root)
    for file in (ROOT / "paper" / task).glob("*.jinja"):
        shutil.copy(file, root / task)
    shutil.copy(ROOT / "lab" / task / "judge.jinja", root / task)
    return root / task


def record(folder: Path) -> dict:
    return json.loads((folder / "stage.json").read_text())


def meant(run: Run, task: str, sample: Sample) -> Sent:
    """What the writer meant by the answer behind a sample."""
    return run.writer.sent[task, sample.step, sample.seed % SEEDS]


def meant_example(task: str, sent: Sent) -> Any | None:
    """What the planted text is as an example."""
    if not sent.row:
        return None
    return SCHEMAS[task].load(sent.row if task == "toxicity" else json.loads(sent.row))


def written(run: Run, task: str, step: int) -> list[list[Sample]]:
    """Every method's samples of one step, in the order in which they were asked for."""
    rounds: dict[tuple, list[tuple[int, list[Sample]]]] = {}
    for folder in (run.store / "write").glob("[!.]*"):
        if record(folder)["params"]["schema"] == SCHEMAS[task].name:
            samples = load_samples(SCHEMAS[task], folder / "samples.jsonl")
            if samples[0].step == step:
                features = tuple(dict.fromkeys(sample.feature for sample in samples))
                rounds.setdefault(features, []).append((samples[0].attempt, samples))
    return [[sample for _, part in sorted(parts, key=lambda p: p[0]) for sample in part] for parts in rounds.values()]


def said(run: Run, task: str) -> dict[str, str]:
    """What the report says that became of each method's samples, which the log says too."""
    page = (run.folder / "out" / "report.html").read_text()
    found = {}
    for method, name in (("random_features", "SAE + random features"), ("fac", "FAC, two steps (ours)")):
        line = re.search(rf"{task}, {method}: (.* samples kept.*)", run.done.err)
        assert line
        found[method] = line[1]
        fact = re.search(rf"{re.escape(f'{NAMES[task]}, {name}: written')}\W.*?({re.escape(line[1])})", page, re.DOTALL)
        assert fact, (method, line[1])
    return found


def trained_on(run: Run, task: str) -> list[list[Any]]:
    """The examples that each method's cell was trained on beside the baseline's, as the store has them."""
    made = [record(folder) for folder in (run.store / STEPS[task]).glob("[!.]*")]
    made = [one for one in made if one["params"]["task"] == task]
    assert sorted(one["params"]["trained_on"] for one in made) == [["seed"], ["seed", "added"], ["seed", "added"]]
    base = next(one["inputs"] for one in made if one["params"]["trained_on"] == ["seed"])
    found = []
    for one in made:
        if "added" in one["params"]["trained_on"]:
            *others, added = one["inputs"]
            assert others == base
            found.append(SCHEMAS[task].read(run.store / added["name"] / added["key"] / "rows.jsonl"))
    return found


def becomes(run: Run, task: str, samples: list[Sample]) -> dict[str, int]:
    """By hand, what has to become of samples: by what was sent, what the SAE measured, and what was there before."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for sample in samples:
        sent = meant(run, task, sample)
        why = sent.why
        if why == GOOD and not (sample.relative_activation or 0.0) > 0.3:
            why = "does not activate"
        elif why == GOOD and SCHEMAS[task].plain(sample.example) in seen:
            why = "repeats another"
        elif why == GOOD:
            seen.add(SCHEMAS[task].plain(sample.example))
        counts[why] += 1
    return counts


def sentence(counts: dict[str, int], added: int, before: list[Sent], answers: dict[str, int], rounds: int) -> str:
    """The counts as the report has to say them, up to what stands behind the candidates."""
    total = sum(counts.values())
    lost = {name.replace("_", " "): counts[why] for name, why in zip(LOST, REASONS, strict=True) if counts[why]}
    shares = ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in lost.items())
    line = f"{counts[GOOD]} of {total} samples kept ({shares}), {added} of {BUDGET} added"
    line += f", after {rounds} more round of requests" if rounds else ""
    line += f"; {len(before)} candidates before, {sum(one.why == 'refusal' for one in before)} refused"
    names = {"refusal": "refused", "cut off": "cut off", "unreadable": "empty"}
    left = ", ".join(f"{answers[why]} {name}" for why, name in names.items() if answers.get(why))
    return line + (f"; left out for their answers: {left}" if left else "")


@pytest.mark.slow
@pytest.mark.parametrize("task", STEPS)
def test_every_answer_is_read_as_it_was_meant(run: Run, task: str):
    """Rows are the planted texts to the letter; whatever else was sent has the reason for which it is none."""
    samples = [s for step in (1, 2) for part in written(run, task, step) for s in part]
    assert len(samples) > 80
    for sample in samples:
        sent = meant(run, task, sample)
        assert (sample.example, sample.rejected_because) == (meant_example(task, sent), sent.why), sent.way
    ways = {meant(run, task, sample).why for sample in samples}
    assert ways == {GOOD, "refusal", "unreadable", "cut off"}
    refused = sum(meant(run, task, sample).why == "refusal" for sample in samples) / len(samples)
    assert 0.1 < refused < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("task", STEPS)
def test_the_report_counts_what_was_sent_by_reason(run: Run, task: str):
    told, table = said(run, task), Table.from_json((run.folder / "out" / "table.json").read_text())
    expected = []
    for samples in written(run, task, 2):
        features = {sample.feature for sample in samples}
        first = next(part for part in written(run, task, 1) if {s.feature for s in part} == features)
        counts = becomes(run, task, samples)
        rounds = max(sample.attempt for sample in samples)  # of one request each
        assert rounds == (becomes(run, task, [s for s in samples if not s.attempt])[GOOD] < BUDGET)
        answers = left_out(run, task, samples)
        added = min(counts[GOOD], BUDGET) - sum(answers.values())
        expected.append(sentence(counts, added, [meant(run, task, s) for s in first], answers, rounds))
    assert len(expected) == 2
    plainly = [re.sub(r"; \d+ features without a contrast", "", told[method]) for method in METHODS]
    assert sorted(plainly) == sorted(expected)
    for method in METHODS:
        cell = table.cell(method, f"{task}_rows")
        assert cell is not None
        assert f", {cell.mean:.0f} of {BUDGET} added" in told[method]


def answered(run: Run) -> list[dict[str, Sent]]:
    """What was sent for each method's instructions, in the order in which they were asked."""
    found = []
    for folder in (run.store / "answers").glob("[!.]*"):
        made = record(folder)["params"]
        asked = [prompt.partition("\n\n(Answer in") for prompt in made["instructions"]]
        if all(behind for _, behind, _ in asked):  # others are the test's, which the reference answers
            seeds = [request_seed(made["seed"], i) % SEEDS for i in range(len(asked))]
            told = zip(asked, seeds, strict=True)
            found.append({text: run.writer.sent["answer", text, seed] for (text, *_), seed in told})
    return found


def left_out(run: Run, task: str, samples: list[Sample]) -> dict[str, int]:
    """Of a method's instructions that were to be added: the answers that are none, by reason."""
    if task != "instruction":
        return {}
    mine = {json.loads(meant(run, task, s).row)["instruction"] for s in samples if meant(run, task, s).row}
    answers = next(sent for sent in answered(run) if set(sent) <= mine)
    return Counter(one.why for one in answers.values() if one.why)


@pytest.mark.slow
@pytest.mark.parametrize("task", STEPS)
def test_nothing_is_trained_on_but_good_texts(run: Run, task: str):
    """No debris, no mark, no thought, no fence, no refusal: every added row is a planted one, each once."""
    schema = SCHEMAS[task]
    sent_to = [sent for (name, *_), sent in run.writer.sent.items() if name == task]
    good = {schema.line(meant_example(task, sent)) for sent in sent_to if sent.why == GOOD}
    table = Table.from_json((run.folder / "out" / "table.json").read_text())
    found = trained_on(run, task)
    added = [cell.mean for method in METHODS if (cell := table.cell(method, f"{task}_rows"))]
    assert sorted(map(len, found)) == sorted(added)
    assert min(added) > 10
    for examples in found:
        assert len(set(map(schema.plain, examples))) == len(examples)
        if task == "instruction":
            told = {example.instruction: example.output for example in examples}
            whole = [{text: one.row for text, one in sent.items() if one.why == GOOD} for sent in answered(run)]
            assert told in whole
        for example in examples:
            assert schema.line(replace(example, output="") if task == "instruction" else example) in good
            said = json.dumps(schema.dump(example), ensure_ascii=False)
            for trace in ("think>", "```", "Query-1", "instruction>", "can't", "kann diese", "无法", "draft"):
                assert trace not in said
