"""What is known of every SAE feature that an annotator looked at, for each model and task, as data of the browser.

A set of features is what one mining step found (`fac.gap`): the features of one model that one task's anchor corpus
activates. All runs that share the step share the set, so that each method is in it once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.harness.experiment import Record, Trial
from experiments.harness.report.parts import spans_of
from experiments.harness.site.runs import Run
from fac.corpus_features import CorpusFeatures
from fac.coverage import counts, own_counts
from fac.gap import MissingFeatures, load_tokens
from fac.interpret import Interpretation, load_interpretations
from fac.store import RECORD
from fac.synthesis.generate import CHOSEN
from fac.synthesis.methods import METHODS
from fac.synthesis.samples import Sample, written_for
from fac.synthesis.writer import SAMPLES

SAMPLES_OF_A_METHOD = 4  # shown for each feature, those that were added first
ENCODERS, MATCHES = "encoders.json", "matches.jsonl"  # of a run that matched the features of models
UNKNOWN = (
    "The run that wrote these samples did not say whether its task asks for harmful texts: some may be, and are not "
    "for use."
)


@dataclass(frozen=True)
class Written:
    """What one method added, as one trial wrote it."""

    name: str
    any: NDArray[np.int64]  # [features], added texts that activate it
    own: NDArray[np.int64] | None  # ... that were written for it; None: written for no feature
    samples: Mapping[int, Sequence[Sample]]  # by the feature that they were written for


@dataclass(frozen=True)
class FeatureSet:
    """The features of one model for one task."""

    key: str  # of the mining step
    sae: str  # key of the SAE's step
    model: str
    task: str
    data_seed: int
    warning: str  # "": its samples harm nobody
    runs: tuple[str, ...]
    found: MissingFeatures
    told: Mapping[int, Interpretation]
    anchor: CorpusFeatures
    tokens: Mapping[int, Sequence[int]]  # `fac.gap.load_tokens`
    marked: bool  # whether spans end with the activating token
    written: tuple[Written, ...]
    note: str = ""  # what sets it apart from others of its title
    matches: Mapping[str, Mapping[int, tuple[int, float]]] = field(default_factory=dict)  # by model: (feature, r)

    @property
    def title(self) -> str:
        return f"{self.model}, {self.task}, data seed {self.data_seed}{self.note}"


class Steps:
    """The finished steps of one store, by name and key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, key: str) -> Path:
        return self.root / name / key

    def record(self, name: str, key: str) -> dict[str, Any]:
        """How a step was made. Raises OSError if it is not there."""
        return json.loads((self.folder(name, key) / RECORD).read_text(encoding="utf-8"))

    def inputs(self, name: str, key: str) -> list[tuple[str, str]]:
        """Name and key of each input."""
        return [(part["name"], part["key"]) for part in self.record(name, key)["inputs"]]


def sets(runs: Iterable[Run], left_out: list[str]) -> Iterator[FeatureSet]:
    """Every set of features once, as it is read; what cannot be read is said in `left_out`."""
    runs = list(runs)
    mined = _mined(runs)
    links = list(matches(runs, left_out))
    titles: dict[str, int] = {}
    for key, held in mined.items():
        run, record = held[0]
        try:
            found = _read(key, held)
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{record.trial.features_of}, {record.trial.task}"
            left_out.append(f"The features of {what} ({run.name}) are left out: their steps cannot be read ({error}).")
            continue
        titles[found.title] = titles.get(found.title, 0) + 1
        note = f", set {titles[found.title]}" if titles[found.title] > 1 else ""
        joined = {model: pairs for sae, model, pairs in links if sae == found.sae}
        yield FeatureSet(**{**vars(found), "note": note, "matches": joined})


def number(runs: Iterable[Run]) -> int:
    """How many sets there are to read."""
    return len(_mined(runs))


def _mined(runs: Iterable[Run]) -> dict[str, list[tuple[Run, Record]]]:
    """The records with a mining step, by its key."""
    found: dict[str, list[tuple[Run, Record]]] = {}
    for run in runs:
        for record in run.records if run.store is not None else ():
            if "missing" in record.steps and "interpretations" in record.steps:
                found.setdefault(record.steps["missing"], []).append((run, record))
    return found


def _read(key: str, held: Sequence[tuple[Run, Record]]) -> FeatureSet:
    run, record = held[0]
    assert run.store is not None
    steps, trial = Steps(run.store), record.trial
    found = MissingFeatures.load(steps.folder("missing", key))
    measured = record.steps["features"]
    (_, sae) = next(part for part in steps.inputs("features", measured) if part[0] == "sae")
    told = record.steps["interpretations"]
    return FeatureSet(
        key=key,
        sae=sae,
        model=trial.features_of,
        task=trial.task,
        data_seed=trial.data_seed,
        warning=_warning(trial.task, [run for run, _ in held]),
        runs=tuple(dict.fromkeys(run.name for run, _ in held)),
        found=found,
        told=load_interpretations(steps.folder("interpret", told)),
        anchor=CorpusFeatures.load(steps.folder("features", measured)),
        tokens=load_tokens(steps.folder("interpret", told)),
        marked=steps.record("interpret", told)["params"].get("span_end", "at") == "at",
        written=tuple(_written(found, held)),
    )


def _warning(task: str, runs: Sequence[Run]) -> str:
    told = [run.kept.warnings for run in runs if run.kept.warnings is not None]
    return told[0].get(task, "") if told else UNKNOWN


def _written(found: MissingFeatures, held: Sequence[tuple[Run, Record]]) -> Iterator[Written]:
    """What each different step added, called by its method and what sets it apart from others of that method."""
    added: dict[str, tuple[Run, Record]] = {}
    for run, record in held:
        if "added" in record.steps and "coverage" in record.steps:
            added.setdefault(record.steps["added"], (run, record))
    trials = [record.trial for _, record in added.values()]
    for run, record in added.values():
        assert run.store is not None
        steps, cuts = Steps(run.store), found.grid.cuts[found.chosen : found.chosen + 1]
        _, (name, key), measured, written = steps.inputs("coverage", record.steps["coverage"])
        pooled = CorpusFeatures.load(steps.folder(*measured)).pooled
        chosen = read_samples(steps.folder(name, key) / CHOSEN)
        owners = bool(chosen) and all(sample.feature is not None for sample in chosen)
        own = own_counts(pooled, written_for(chosen), cuts)[0] if owners else None
        samples = _by_feature(chosen, read_samples(steps.folder(*written) / SAMPLES))
        yield Written(_called(record.trial, trials), counts(pooled, cuts)[0], own, samples)


def _called(trial: Trial, others: Sequence[Trial]) -> str:
    """The method's title, with what sets the trial apart from others of that method."""
    method = METHODS.get(trial.method)
    same = [other for other in others if other.method == trial.method]
    parts = {"writer": "written by {}", "generation": "generation {}"}
    told = [text.format(getattr(trial, p)) for p, text in parts.items() if len({getattr(o, p) for o in same}) > 1]
    twins = [o for o in same if all(getattr(o, part) == getattr(trial, part) for part in parts)]
    if len(twins) > 1:
        told += [f"{key}={value}" for key, value in trial.settings if any(o.setting(key) != value for o in twins)]
    return ", ".join([trial.method if method is None else method.title, *told])


def read_samples(file: Path) -> list[Sample]:
    """Samples of any task; their examples stay as they are stored."""
    return [Sample(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def _by_feature(chosen: Sequence[Sample], samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    """Some samples that were written for each feature, the added ones first."""
    found: dict[int, list[Sample]] = {}
    places = {(s.feature, s.step, s.attempt) for s in chosen}
    rest = [s for s in samples if (s.feature, s.step, s.attempt) not in places]
    for sample in (*chosen, *rest):
        if sample.feature is not None and len(held := found.setdefault(sample.feature, [])) < SAMPLES_OF_A_METHOD:
            held.append(sample)
    return found


def matches(runs: Iterable[Run], left_out: list[str]) -> Iterator[tuple[str, str, dict[int, tuple[int, float]]]]:
    """Of every run that matched models: key of an SAE's step, the other model, and each feature's match there."""
    for run in runs:
        if not (run.folder / MATCHES).is_file():
            continue
        try:
            steps = Steps(run.store) if run.store is not None else None
            measured = json.loads((run.folder / ENCODERS).read_text(encoding="utf-8")) if steps else {}
            saes = {m: dict(steps.inputs("features", key))["sae"] for m, key in measured.items()} if steps else {}
            rows = [json.loads(line) for line in (run.folder / MATCHES).read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, KeyError) as error:
            told = "it does not say which SAEs it matched" if isinstance(error, FileNotFoundError) else str(error)
            left_out.append(f"The matches of {run.name} are left out: {told}; run it again.")
            continue
        pairs: dict[tuple[str, str], dict[int, tuple[int, float]]] = {}
        for row in rows:
            (a, i), (b, j) = ((name, value) for name, value in row.items() if name != "r")
            pairs.setdefault((a, b), {})[i] = (j, row["r"])
            pairs.setdefault((b, a), {})[j] = (i, row["r"])
        yield from ((saes[a], b, held) for (a, b), held in pairs.items())


# As data of the browser ----------------------------------------------------------------------------------------------


def row(of: FeatureSet, feature: int) -> list[Any]:
    """What the list shows of a feature, in the order of `browser.js`."""
    about, found = of.told[feature], of.found
    at = found.chosen
    return [
        feature,
        about.explanation,
        about.verification,
        about.relevance,
        int(found.anchor_counts[at][feature]),
        int(found.seed_counts[at][feature]),
        round(float(found.anchor_max[feature]), 3),
        2 if found.missing()[feature] else int(found.active()[feature]),  # missing; relevant and active; neither
        about.spans[0] if about.spans else "",
        [int(written.any[feature]) for written in of.written],
        [None if written.own is None else int(written.own[feature]) for written in of.written],
    ]


def detail(of: FeatureSet, feature: int) -> dict[str, Any]:
    """What is shown of a feature when it is opened."""
    spans = spans_of(of.told[feature], of.anchor.tops.values[feature], of.tokens.get(feature, ()))
    return {
        "spans": [[s.text, s.start if of.marked else len(s.text), round(s.value, 3)] for s in spans],
        "samples": [[_sample(s) for s in written.samples.get(feature, ())] for written in of.written],
        "matches": [[model, *pairs[feature]] for model, pairs in of.matches.items() if feature in pairs],
    }


def _sample(sample: Sample) -> list[Any]:
    value = None if sample.activation is None else round(sample.activation, 3)
    return [sample.text or sample.reply, sample.span, value, sample.kept, sample.rejected_because, sample.step]
