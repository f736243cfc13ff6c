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
from support.cli import fac_here
from support.openai_server import FaultyServer
from support.real_writer import GOOD, RealWriter, Sent
from support.reduced import reduced

from experiments.harness.experiment import Record
from experiments.harness.records import load
from experiments.harness.results import Table
from experiments.harness.tables import TITLES
from experiments.tasks import TASKS
from fac.data.example_set import load_examples
from fac.llm.base import request_seed
from fac.llm.openai import SEEDS
from fac.prompts import ROOT
from fac.synthesis.generate import WRITING
from fac.synthesis.samples import LOST, REASONS, Sample, load_samples
from fac.synthesis.writer import SAMPLES

NAMES = ("toxicity", "reward", "sycophancy", "instruction")
METHODS = ("random_features", "fac")
BUDGET, GENERATION, THRESHOLD = 60, 42, 0.3
REDUCED = [
    "experiment=main_results",
    f"experiment.tasks=[{','.join(NAMES)}]",
    "experiment.methods=[baseline,random_features,fac]",
    *reduced(*NAMES, budget=BUDGET),
    *(f"tasks.{task}.sizes.anchor=14" for task in NAMES if task != "toxicity"),  # fewer features to write for
    "interpret.spans=3",
    f"thresholds.default={THRESHOLD}max",
    "synthesis.n=2",
    "synthesis.top_up=1",
    f"seeds.generation={GENERATION}",
    "llm=openai",
    "llm.model=real-8b",
    "llm.key_env=null",
    "llm.budget_usd=null",
    "annotator=transformers",
    "workers=1",
    "tracking.enabled=false",
    "out=out",
]


class Run(NamedTuple):
    folder: Path
    writer: RealWriter
    records: dict[tuple[str, str], Record]  # by task and method

    def step(self, task: str, method: str, part: str, name: str) -> Path:
        """The folder of what a step (by its name in the store) made as a part of a trial."""
        return self.folder / "outputs" / "store" / name / self.records[task, method].steps[part]

    @property
    def table(self) -> Table:
        return Table.from_json((self.folder / "out" / "table.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("real")
    prompts = [f"tasks.{task}.prompts={prompts_of(task, folder / 'prompts')}" for task in NAMES]
    writer = RealWriter()
    with FaultyServer(writer) as server:
        done = fac_here(*REDUCED, *prompts, f"llm.url={server.url}", cwd=folder)
    assert done.code == 0, done.err
    assert set(server.answered.values()) == {1}
    records = {(one.trial.task, one.trial.method): one for one in load(folder / "out" / "records.json")}
    return Run(folder, writer, records)


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


def meant(run: Run, task: str, sample: Sample) -> Sent:
    """What the writer meant by the answer behind a sample."""
    return run.writer.sent[task, sample.step, sample.seed % SEEDS]


def meant_example(task: str, sent: Sent) -> Any | None:
    """What the planted text is as an example."""
    if not sent.row:
        return None
    return TASKS[task].schema.load(sent.row if task == "toxicity" else json.loads(sent.row))


def written(run: Run, task: str, method: str, step: int) -> list[Sample]:
    """A method's samples of one step as they were read, in the order in which they were asked for."""
    folder = run.step(task, method, "synthesis", "synthesis") / WRITING
    calls = [load_samples(TASKS[task].schema, file) for file in folder.glob(f"*/{SAMPLES}")]
    rounds = sorted((call for call in calls if call[0].step == step), key=lambda call: call[0].attempt)
    return [sample for call in rounds for sample in call]


def said(run: Run, task: str, method: str) -> str:
    """What the report says that became of a method's samples."""
    page = (run.folder / "out" / "report.html").read_text()
    title = re.escape(f"{TASKS[task].title}, {TITLES[method]}: written")
    fact = re.search(rf"{title}</dt>\s*<dd>(.*?)</dd>", page, re.DOTALL)
    assert fact, (task, method)
    return fact[1].strip()


def trained_on(run: Run, task: str, method: str) -> list[Any]:
    """The examples that a method's model was trained on beside those of the baseline's, as the store has them."""

    def parts(method: str) -> list[dict[str, str]]:
        made = json.loads((run.step(task, method, "trained", TASKS[task].stage) / "stage.json").read_text())["inputs"]
        return [part for part in made if part["name"] != "steering_choice"]

    *others, added = parts(method)
    assert others == parts("baseline")
    assert added["key"] == run.records[task, method].steps["added"]
    return load_examples(TASKS[task].schema, [run.step(task, method, "added", added["name"])])


def becomes(run: Run, task: str, samples: list[Sample]) -> dict[str, int]:
    """By hand, what has to become of samples: by what was sent, what the SAE measured, and what was there before."""
    plain = TASKS[task].schema.plain
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for sample in samples:
        sent = meant(run, task, sample)
        why = sent.why
        if why == GOOD and not (sample.relative_activation or 0.0) > THRESHOLD:
            why = "does not activate"
        elif why == GOOD and plain(meant_example(task, sent)) in seen:
            why = "repeats another"
        elif why == GOOD:
            seen.add(plain(meant_example(task, sent)))
        counts[why] += 1
    return counts


def sentence(counts: dict[str, int], added: int, before: list[Sent], answers: dict[str, int], rounds: int) -> str:
    """The counts as the report has to say them, but for features without a contrast."""
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
@pytest.mark.parametrize("task", NAMES)
def test_every_answer_is_read_as_it_was_meant(run: Run, task: str):
    """Examples are the planted texts to the letter; whatever else was sent has the reason for which it is none."""
    samples = [sample for method in METHODS for step in (1, 2) for sample in written(run, task, method, step)]
    assert len(samples) > 80
    for sample in samples:
        sent = meant(run, task, sample)
        assert (sample.example, sample.rejected_because) == (meant_example(task, sent), sent.why), sent.way
    ways = {meant(run, task, sample).why for sample in samples}
    assert ways == {GOOD, "refusal", "unreadable", "cut off"}
    refused = sum(meant(run, task, sample).why == "refusal" for sample in samples) / len(samples)
    assert 0.1 < refused < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", NAMES)
def test_the_report_counts_what_was_sent_by_reason(run: Run, task: str, method: str):
    first, samples = (written(run, task, method, step) for step in (1, 2))
    counts = becomes(run, task, samples)
    rounds = max(sample.attempt for sample in samples)  # of one request each
    assert rounds == (becomes(run, task, [s for s in samples if not s.attempt])[GOOD] < BUDGET)
    answers = Counter(sent.why for sent in answered(run, method).values() if sent.why) if task == "instruction" else {}
    added = min(counts[GOOD], BUDGET) - sum(answers.values())
    plainly = re.sub(r"; \d+ features without a contrast|; \d+ requests of .*", "", said(run, task, method))
    assert plainly == sentence(counts, added, [meant(run, task, s) for s in first], answers, rounds)
    cell = run.table.cell(method, f"{task}_rows")
    assert cell is not None
    assert cell.mean == added


def answered(run: Run, method: str) -> dict[str, Sent]:
    """What was sent for a method's instructions, in the order in which they were asked."""
    folder = run.step("instruction", method, "synthesis", "synthesis")
    asked = [example.instruction for example in load_examples(TASKS["instruction"].schema, [folder])]
    seeds = [request_seed(GENERATION, i) % SEEDS for i in range(len(asked))]
    return {text: run.writer.sent["answer", text, seed] for text, seed in zip(asked, seeds, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("task", NAMES)
def test_nothing_is_trained_on_but_good_texts(run: Run, task: str):
    """No debris, no mark, no thought, no fence, no refusal: every added example is a planted one, each once."""
    schema = TASKS[task].schema
    sent_to = [sent for (name, *_), sent in run.writer.sent.items() if name == task]
    good = {schema.line(meant_example(task, sent)) for sent in sent_to if sent.why == GOOD}
    for method in METHODS:
        examples, cell = trained_on(run, task, method), run.table.cell(method, f"{task}_rows")
        assert cell is not None
        assert len(examples) == cell.mean > 10
        assert len(set(map(schema.plain, examples))) == len(examples)
        if task == "instruction":
            told = {example.instruction: example.output for example in examples}
            assert told == {text: one.row for text, one in answered(run, method).items() if one.why == GOOD}
        for example in examples:
            assert schema.line(replace(example, output="") if task == "instruction" else example) in good
            line = json.dumps(schema.dump(example), ensure_ascii=False)
            for trace in ("think>", "```", "Query-1", "instruction>", "can't", "kann diese", "无法", "draft"):
                assert trace not in line
