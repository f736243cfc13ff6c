"""What `experiments.steering` shows: how far answers move, a curve for each behaviour, and the vectors beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.steering import Answers, replicates, score
from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.report import Figure, Page, Series
from experiments.harness.results import Cell, Table, measured
from experiments.harness.tables import table as table_of
from experiments.steps.steering import BehaviorSteps, SteeringSteps
from experiments.steps.steering_questions import QuestionFiles, Questions
from fac.data.choices import POLARITY
from fac.data.examples import left_out
from fac.store import Step

if TYPE_CHECKING:
    from experiments.steering import Options
    from fac.train.steering import SteeringVector

PAPER_COLUMNS = {"sycophancy": "sycophancy", "survival-instinct": "survival"}  # of Table 1
REPLICATED = {"robust": "scr", "p_matching": "matching_range"}  # columns whose differences are resampled
COLUMNS = {
    "robust": "robust accuracy",
    "standard": "standard accuracy",
    "p_matching": "P(matching)",
    "mass": "P(any letter)",
}
Curve = Mapping[float, Answers]  # by multiplier


@dataclass(frozen=True)
class Measured:
    """What one behaviour came to."""

    files: QuestionFiles
    questions: Questions
    vectors: Mapping[int, SteeringVector]  # by seed, as they were added
    curves: Mapping[int, Curve]  # by seed

    @property
    def name(self) -> str:
        return self.files.behavior

    def is_drawn(self, options: Options) -> bool:
        """Whether each seed drew pairs of its own, and did not take all."""
        return options.pairs not in (None, len(self.questions.pairs))

    def of_seeds(self, seeds: Sequence[int]) -> Measured:
        """The same of some seeds only."""
        vectors, curves = ({seed: held[seed] for seed in seeds} for held in (self.vectors, self.curves))
        return replace(self, vectors=vectors, curves=curves)  # type: ignore[arg-type]


def page(run: RunConfig, steps: SteeringSteps, results: Results) -> Page:
    """The table, a curve for each behaviour, and the vectors beside them."""
    options: Options = run.experiment
    found = [_measured(of, steps.equal, options.multipliers, results) for of in steps.behaviors]
    # Where every seed took all pairs, the first tells what all do.
    seeds = list(steps.equal) if any(of.is_drawn(options) for of in found) else list(steps.equal)[:1]
    behaviors = [of.of_seeds(seeds) for of in found]
    main, layer = table(run, behaviors), _layer(behaviors)
    return Page(
        title=main.title,
        subtitle=f"{run.model.name}, layer {layer}: what it answers while a multiple of the vector is added.",
        tables=[main],
        facts=_facts(behaviors, options),
        figures=[_figure(of.name, of.curves) for of in behaviors],
        copies={
            f"vectors/{of.name}/{seed}": results.folder(steps.equal[seed]) / of.name for of in found for seed in seeds
        },
    )


def _measured(of: BehaviorSteps, equal: Mapping[int, Step], multipliers: Sequence[float], results: Results) -> Measured:
    from fac.train.steering import SteeringVector

    vectors = {seed: SteeringVector.load(results.folder(step) / of.files.behavior) for seed, step in equal.items()}
    curves = {}
    for seed, step in of.answers.items():
        steps = {m: of.plain if m == 0 and of.plain else step for m in multipliers}
        curves[seed] = {m: Answers.load(results.folder(at) / f"{m:g}") for m, at in steps.items()}
    return Measured(of.files, Questions.load(results.folder(of.questions)), vectors, curves)


def table(run: RunConfig, behaviors: Sequence[Measured]) -> Table:
    """One row per behaviour and multiplier, and one for the difference between +1 and -1: SCR."""
    options: Options = run.experiment
    kinds: dict[str, labels.Kind] = {of.name: _kind(run, of) for of in behaviors}
    beside = [name for name, kind in kinds.items() if labels.stands_beside(kind, run.model.name)]
    printed = {name: _paper(name, options) for name in beside}
    seeded = any(of.is_drawn(options) for of in behaviors)
    rows: dict[str, str] = {}  # key -> printed name
    cells: list[Cell] = []
    for of in behaviors:
        scores = {seed: {m: score(answers) for m, answers in curve.items()} for seed, curve in of.curves.items()}
        for m in sorted(options.multipliers):
            row = f"{of.name}/{m:g}"
            rows[row] = f"{of.name}, {m:+g}" if m else f"{of.name}, 0"
            for column in COLUMNS:
                values = {seed: 100 * getattr(at[m], column) for seed, at in scores.items()}
                cells.append(_cell(row, column, values, seeded and m != 0))  # without the vector, seeds share answers
        row = f"{of.name}/scr"
        rows[row] = f"{of.name}, SCR (+1 less -1)"
        drawn = [replicates(curve[-1.0], curve[1.0]) for curve in of.curves.values()]
        for column in COLUMNS:
            moved = {seed: 100 * (getattr(at[1.0], column) - getattr(at[-1.0], column)) for seed, at in scores.items()}
            resampled = [100 * found[REPLICATED[column]] for found in drawn] if column in REPLICATED else ()
            paper = printed.get(of.name) if column == "robust" else None
            cells.append(_cell(row, column, moved, seeded, unit="points", paper=paper, replicates=resampled))
        norms = {seed: vector.norm for seed, vector in of.vectors.items()}
        cells.append(_cell(row, "norm", norms, seeded, unit=""))
    return table_of(
        run,
        "steering",
        "Behaviour steering: answers by multiplier",
        list(rows),
        [*COLUMNS, "norm"],
        cells,
        {**COLUMNS, "norm": "length of the vector", **rows},
        _notes(run, behaviors, any(printed.values())),
        kinds.values(),
    )


def _cell(row: str, column: str, by_seed: Mapping[int, float], seeded: bool, **more: Any) -> Cell:
    """`measured`; of no seed where seeds change nothing, so that one run does not pass for several."""
    if seeded:
        return measured(row, column, by_seed, **more)
    first = min(by_seed)
    drawn = list(more.pop("replicates", ()))[:1]
    return replace(measured(row, column, {first: by_seed[first]}, replicates=drawn, **more), seeds=())


def _kind(run: RunConfig, of: Measured) -> labels.Kind:
    test = of.files.test
    published = test.limit is None and labels.is_caa_test(of.name, test.paths[0])
    return labels.kind("paper" if published else "own", {run.model.name: run.model.ref})


def _paper(behavior: str, options: Options) -> PaperNumber | None:
    if options.method is None or behavior not in PAPER_COLUMNS:
        return None
    return paper_table("table1").get(options.method, PAPER_COLUMNS[behavior])


def _layer(behaviors: Sequence[Measured]) -> int:
    return next(iter(behaviors[0].vectors.values())).layer


def _notes(run: RunConfig, behaviors: Sequence[Measured], printed: bool) -> list[str]:
    options, layer = run.experiment, _layer(behaviors)
    where = "at all positions, as the released code does" if options.positions == "all" else "after the user's words"
    read = "the letter of the answer" if options.contrast == "answer" else "the end of prompts with opposite cues"
    notes = [
        f"The vector is the mean difference between matching and other, read at {read}, layer {layer} (the output of "
        f"model.layers[{layer - 1}]); multiples of it are added {where}.",
        "Robust: the matching letter is the most probable in both orders of the two options. Standard: in the order of "
        "the data set. P(matching): its probability among the letters of the question, mean over both orders. P(any "
        "letter): that of all these letters among all tokens. SCR is the last row of each behaviour.",
    ]
    notes += [
        f"{of.name}: the matching answer is that of an assistant that {POLARITY[of.name].matching}."
        for of in behaviors
        if of.name in POLARITY
    ]
    if len(behaviors) > 1:
        notes.append("All vectors of one seed are brought to their mean length, which the row SCR gives.")
    if not any(of.is_drawn(options) for of in behaviors):
        notes.append("Every seed takes all pairs, so seeds change nothing: the numbers are of one run.")
    notes += [note for of in behaviors for note in of.questions.notes(of.name)]
    if options.method is not None and printed:
        notes.append(f"Paper: the row {paper_table('table1').names[options.method]} of Table 1, for SCR.")
    if labels.is_shipped(run.model.ref):
        notes.append(
            "Tiny models give noise here: robust accuracy flips on shifts that P(matching) hardly shows, "
            "and where P(any letter) is small the model would not name a letter at all."
        )
    reports = {f"{of.name}, {role}": report for of in behaviors for role, report in of.questions.reports.items()}
    return [*notes, *left_out(reports)]


def _facts(behaviors: Sequence[Measured], options: Options) -> list[tuple[str, str]]:
    facts = []
    for of in behaviors:
        norms = [vector.norm for vector in of.vectors.values()]
        low, high = min(norms), max(norms)
        norm = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        count = len(of.questions.pairs)
        pairs = f"{options.pairs} of {count}" if of.is_drawn(options) else count
        facts.append((of.name, f"{pairs} pairs, {len(of.questions.test)} questions, vector of norm {norm}"))
        facts += [(f"{of.name}, {role}", str(r)) for role, r in of.questions.reports.items() if r.skipped]
    return facts


def _figure(name: str, by_seed: Mapping[int, Curve]) -> Figure:
    """Fig. 13 and 14: how the answers follow the multiplier."""
    x = sorted(next(iter(by_seed.values())))
    series = []
    for column in ("robust", "standard", "p_matching"):
        values = np.array([[100 * getattr(score(curve[m]), column) for m in x] for curve in by_seed.values()])
        low, high = (values.min(axis=0).tolist(), values.max(axis=0).tolist()) if len(values) > 1 else ((), ())
        series.append(Series(COLUMNS[column], x, values.mean(axis=0).tolist(), low, high, dashed=column == "standard"))
    caption = "Mean over seeds; the bands reach from the lowest to the highest seed."
    return Figure(f"{name}: answers by multiplier", "multiplier", "%", series, caption)
