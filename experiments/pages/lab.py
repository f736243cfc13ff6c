"""What the lab's page shows beside its table: coverage by threshold, what is missing, the ground truth, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results, matching
from experiments.harness.graph import TrialSteps
from experiments.harness.paper_numbers import paper_table
from experiments.harness.report import Figure, Page, Series, parts
from experiments.harness.results import Cell, Table, observed
from experiments.harness.tables import TITLES, found_missing, table, written
from experiments.pages import lab_truth
from experiments.pages.lab_table import main_table
from experiments.tasks import TASKS
from fac.coverage import Fac, bootstrap, counts, fac_ratio, overlap, own_counts
from fac.data.corpus import Corpus
from fac.encoder import CorpusFeatures
from fac.gap import MissingFeatures, load_relevant
from fac.interpret import Interpretation, load_interpretations
from fac.pooled import Pooled
from fac.store import Step
from fac.synthesis.generate import SAMPLES, Generated

TASK = "toxicity"


@dataclass(frozen=True)
class Lab:
    """What the page is made of."""

    run: RunConfig
    results: Results
    kind: labels.Kind
    steps: Mapping[str, TrialSteps]  # by method
    missing: MissingFeatures
    official: MissingFeatures  # the same with Top-K off
    statistical: NDArray[np.bool_]  # F by the statistical judge
    anchor: CorpusFeatures
    official_anchor: CorpusFeatures
    anchor_texts: Corpus
    seed_texts: Corpus
    told: Mapping[int, Interpretation]
    generated: Mapping[str, Generated]  # by method that writes
    added: Mapping[str, Path]  # features of what a method adds, by method

    @property
    def schema(self) -> Any:
        return TASKS[TASK].schema


def loaded(run: RunConfig, results: Results, kind: labels.Kind, diagnostics: Mapping[str, Step]) -> Lab:
    """Read what the steps hold."""
    from experiments.tasks import TASKS

    steps = {record.trial.method: results.trials[record.trial] for record in reversed(results.records)}
    one = next(iter(steps.values()))
    assert one.mining is not None
    mining, folder, schema = one.mining, results.folder, TASKS[TASK].schema
    official = diagnostics["official"]
    writing = {name: held for name, held in steps.items() if held.synthesis is not None}
    return Lab(
        run,
        results,
        kind,
        steps,
        MissingFeatures.load(folder(mining.missing)),
        MissingFeatures.load(folder(official)),
        load_relevant(folder(diagnostics["statistical"])),
        CorpusFeatures.load(folder(mining.anchor_features)),
        CorpusFeatures.load(folder(official.inputs[0])),
        Corpus.load(folder(one.data.anchor)),
        Corpus.load(folder(one.data.seed)),
        load_interpretations(folder(mining.interpretations)),
        {name: Generated.load(schema, folder(held.synthesis)) for name, held in writing.items() if held.synthesis},
        {name: folder(mining.encoder.features(held.added)) for name, held in writing.items() if held.added},
    )


def page(run: RunConfig, diagnostics: Mapping[str, Step], results: Results) -> Page:
    """The page with its tables, figures, facts, features and samples."""
    kind = labels.kind_of(run, TASK, [run.model.name])
    main, lab = main_table(run, results, kind), loaded(run, results, kind, diagnostics)
    covered = coverage_by_threshold(lab)
    fac = lab.generated.get("fac")
    writers = {
        name: held.synthesis for name, held in lab.steps.items() if held.synthesis and lab.generated[name].samples
    }
    return Page(
        title=main.title,
        subtitle="FAC Synthesis on the written world: which features the seed data miss, what was written for them, "
        "and what a classifier gains.",
        tables=[main, covered, missing_by_threshold(lab)],
        facts=_facts(lab),
        figures=[figure for figure in _figures(lab, main, covered) if figure.series],
        truth=_truth(lab),
        features=parts.missing_features(lab.missing, lab.told, lab.anchor, fac, lab.schema),
        samples=parts.samples(fac),
        sample_note=TASKS[TASK].warning,
        files={f"samples-{name}.jsonl": (results.folder(step) / SAMPLES).read_text() for name, step in writers.items()},
    )


def coverage_by_threshold(lab: Lab) -> Table:
    """Table 10's analogue: share of F_miss covered above every threshold, one step against two, own and any sample."""
    grid, missing = lab.missing.grid, lab.missing.missing()
    thresholds = [str(threshold) for threshold in grid.thresholds]
    beside = labels.stands_beside(lab.kind, lab.run.model.name, lab.run.experiment.test)
    cells: list[Cell] = []
    names = {}
    for row, (title, pooled, owners) in _written(lab).items():
        for kind, tally in (("any", counts(pooled, grid.cuts)), ("own", own_counts(pooled, owners, grid.cuts))):
            for threshold, active in zip(thresholds, tally, strict=True):
                paper = paper_table("table10").get(f"{row}@{threshold}", TASK) if beside and kind == "any" else None
                share = 100 * float((active[missing] > 0).mean())
                cells.append(observed(f"{row}_{kind}", threshold, share, paper=paper))
            names[f"{row}_{kind}"] = f"{title}, {kind} sample"
    rows = list(dict.fromkeys(cell.row for cell in cells))
    return table(
        lab.run,
        "coverage_by_threshold",
        "Share of the missing features covered, by threshold δ",
        rows,
        thresholds,
        cells,
        names,
        [
            f"Missing features: the {missing.sum()} of the threshold used for synthesis "
            f"({grid.thresholds[lab.missing.chosen]}), at every column. All samples of the last step's first round "
            "count, kept or not.",
            "Columns with ×max are relative to each feature's maximum on the anchor; absolute ones are the paper's, "
            "whose units (and so whose percentages) are those of another SAE.",
        ],
        [lab.kind],
    )


def _written(lab: Lab) -> dict[str, tuple[str, Pooled, NDArray[np.int64]]]:
    """What was written in one step (the last m of each feature, and all) and in two: activations, and the features."""
    found = {}
    if "fac_one_step" in lab.generated and (written := lab.generated["fac_one_step"].written(lab.schema)):
        pooled, owners = written
        _, per_feature = np.unique(owners, return_counts=True)
        late = np.flatnonzero(np.concatenate([np.arange(n) >= n - lab.run.value("synthesis.m") for n in per_feature]))
        found["one_step"] = "One step, as many samples as step 2", pooled.take(late), owners[late]
        found["one_step_all"] = "One step, as many requests", pooled, owners
    if "fac" in lab.generated and (written := lab.generated["fac"].written(lab.schema)):
        found["two_step"] = "Two steps", *written
    return found


def missing_by_threshold(lab: Lab) -> Table:
    """Size of F_miss at every threshold under both rules, and what it finds of the truly missing concepts."""
    cells: list[Cell] = []
    for rule, found, anchor in (
        ("paper", lab.missing, lab.anchor),
        ("official", lab.official, lab.official_anchor),
    ):
        match = lab_truth.match_features(lab.anchor_texts, anchor, found.thresholds)
        for index, threshold in enumerate(found.grid.thresholds):
            truth = lab_truth.missing_concepts(found, match, index, lab.run.seeds.data, lab.run.tasks[TASK].sizes)
            finer = lab_truth.missing_wordings(found, match, index, lab.seed_texts)
            numbers = {
                "missing": (float(found.missing(index).sum()), "count"),
                "precision": (100 * truth.precision, "percent"),
                "recall": (100 * truth.recall, "percent"),
                "wording_precision": (100 * finer.precision, "percent"),
                "wording_recall": (100 * finer.recall, "percent"),
            }
            cells += [observed(str(threshold), f"{rule}_{k}", v, unit=unit) for k, (v, unit) in numbers.items()]
    kinds = {
        "missing": "missing features",
        "precision": "concept precision",
        "recall": "concept recall",
        "wording_precision": "wording precision",
        "wording_recall": "wording recall",
    }
    rules = {"paper": "Top-K kept", "official": "Top-K off"}
    return table(
        lab.run,
        "missing_by_threshold",
        "What is missing, by threshold δ and rule",
        [str(threshold) for threshold in lab.missing.grid.thresholds],
        [f"{rule}_{kind}" for rule in rules for kind in kinds],
        cells,
        {f"{rule}_{kind}": f"{label}, {text}" for rule, label in rules.items() for kind, text in kinds.items()},
        [
            "Precision and recall are of the harmful concepts (and wordings) behind the missing features, against "
            "those that the seed data really lack (the lab's ground truth). Seed data that know a concept can still "
            "lack some of its wordings, which costs concept precision but is no error.",
            "Top-K off is the released code's rule: every positive pre-activation counts.",
        ],
        [lab.kind],
    )


def _facts(lab: Lab) -> list[tuple[str, str]]:
    found, records = lab.missing, lab.results.records
    at = found.anchor_counts[found.chosen]
    seed = fac_ratio(at, found.seed_counts[found.chosen], found.relevant, found.anchor_mean)
    facts = [
        ("Threshold used", str(found.grid.thresholds[found.chosen])),
        ("Features active on the anchor", str(int((at > 0).sum()))),
        *found_missing(records),
        ("FAC ratio of the seed data, binary / frequency / magnitude", _three(seed)),
    ]
    for method in (name for name in ("fac_one_step", "fac") if name in lab.added):
        pooled = CorpusFeatures.load(lab.added[method]).pooled
        interval = bootstrap(
            pooled, found.thresholds, anchor=found.active(), missing=found.missing(), relevant=found.relevant
        ).covered_missing
        shares = next(matching(records, method=method)).coverage["chosen"]
        weights = " / ".join(f"{100 * shares[f'any{end}']:.1f}" for end in ("", "_frequency", "_magnitude"))
        facts += [
            (f"{TITLES[method]}: missing features covered by its training texts, binary / frequency / magnitude",
             f"{weights} %"),
            (f"{TITLES[method]}: 95 % bootstrap interval over texts",
             f"{100 * interval.low:.1f} – {100 * interval.high:.1f} %"),
        ]  # fmt: skip
    agree = overlap(lab.statistical & (at > 0), found.active())
    return [*facts, *written(records), ("Statistical judge against LLM judge, Jaccard of F", f"{agree.jaccard:.2f}")]


def _three(value: Fac) -> str:
    return f"{100 * value.binary:.1f} / {100 * value.frequency:.1f} / {100 * value.magnitude:.1f} %"


def _figures(lab: Lab, main: Table, covered: Table) -> Sequence[Figure]:
    relative = [threshold.value for threshold in lab.missing.grid.thresholds if threshold.relative]
    lines = {}
    for row in covered.rows:
        held = {column: cell.mean for column in covered.columns if (cell := covered.cell(row, column))}
        lines[covered.name(row)] = held
    added = {TITLES[method]: folder for method, folder in lab.added.items()}
    return [
        parts.covered_figure(lines, relative, dashed="any sample"),
        parts.rarefaction_figure(lab.missing, added),
        _scatter(main),
        parts.missing_figure({"Top-K kept": lab.missing, "Top-K off": lab.official}),
    ]


def _scatter(main: Table) -> Figure:
    """Coverage and performance, a point for each method."""
    points = []
    for row in main.rows:
        score, share = main.cell(row, "auprc_added"), main.cell(row, "fac_any")
        if score and share:
            spread = score.std or 0.0
            bar = [score.mean - spread], [score.mean + spread]
            points.append(Series(main.name(row), [share.mean], [score.mean], *bar, line=False))
    caption = "One point per row; bars are one standard deviation over classifier seeds."
    return Figure("Coverage and performance", "% of F_miss covered", "AUPRC, added (%)", points, caption)


def _truth(lab: Lab) -> list[tuple[str, str]]:
    found = lab.missing
    match = lab_truth.match_features(lab.anchor_texts, lab.anchor, found.thresholds)
    sizes = lab.run.tasks[TASK].sizes
    concepts = lab_truth.missing_concepts(found, match, found.chosen, lab.run.seeds.data, sizes)
    finer = lab_truth.missing_wordings(found, match, found.chosen, lab.seed_texts)
    relevance = lab_truth.relevance_quality(found, match)
    detected, total = lab_truth.features_as_wordings(found, match)
    rows = [
        ("Missing concepts: precision, recall", _quality(concepts)),
        ("Missing wordings: precision, recall", _quality(finer)),
        ("Relevant features (LLM judge): precision, recall", f"{relevance.precision:.2f}, {relevance.recall:.2f}"),
        ("Wordings that one feature detects (F1 > 0.8)", f"{detected} of {total}"),
    ]
    for method, generated in lab.generated.items():
        if generated.chosen:
            made = lab_truth.check_texts([sample.text for sample in generated.chosen])
            told = f"{made.valid:.2f} / {made.harmful:.2f} / {made.two_requests:.2f}"
            rows.append((f"{TITLES[method]}: training texts valid / harmful / with two requests", told))
    return rows


def _quality(found: lab_truth.Found) -> str:
    return f"{found.precision:.2f}, {found.recall:.2f} ({found.found} found, {found.true} truly missing)"
