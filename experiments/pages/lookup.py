"""What `experiments.lookup` shows: features with their spans and verdicts, beside the paper's words for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import yaml

from experiments.harness import labels
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Results
from experiments.harness.paper_numbers import PAPER_TABLES
from experiments.harness.report import Feature, Page, Span
from experiments.harness.results import Cell, observed
from experiments.harness.tables import table
from experiments.tasks import TASKS
from fac.corpus_features import CorpusFeatures
from fac.coverage import counts, threshold_grid
from fac.data.corpus import Corpus
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.interpret import RELEVANT, Interpretation, load_interpretations
from fac.store import Step

SHOWN = {True: 3, False: 2}  # relevant features and others of each task where none are named, as Table 2 has them
COLUMNS = {"anchor": "anchor texts", "seed": "seed texts", "strongest": "strongest activation"}


@dataclass(frozen=True)
class Looked:
    """What one task's features are looked up in."""

    encoder: FeatureEncoder
    anchor: Step  # corpus
    anchor_features: Step
    seed_features: Step
    told: Step  # interpretations
    ids: tuple[int, ...]  # none: chosen by what the annotator said


@dataclass(frozen=True)
class PapersFeature:
    """A feature that the paper shows."""

    task: str
    feature: int
    words: str
    relevant: bool | None  # None: not known


@dataclass(frozen=True)
class Found:
    """One feature of one task, looked up. Texts activate it above the run's threshold."""

    task: str
    card: Feature
    papers: PapersFeature | None

    @property
    def row(self) -> str:
        return f"{self.task}/{self.card.id}"

    @property
    def is_relevant(self) -> bool:
        return self.card.relevance in RELEVANT

    def __str__(self) -> str:
        card, said = self.card, "no text of the anchor activates it"
        if card.anchor_count or card.spans:
            fits = f"fits its spans: {card.verdict}; " if card.verdict else ""
            words = f"“{card.explanation}”" if card.explanation else "no explanation"
            said = f"{words} ({fits}relevant: {card.relevance or 'no verdict'})"
        if self.papers is None:
            return said
        verdict = {True: "relevant", False: "irrelevant", None: "verdict not known"}[self.papers.relevant]
        return f"{said}; the paper: {self.papers.words} ({verdict})"


def papers_features(run: RunConfig) -> list[PapersFeature]:
    """Those that the paper shows; none unless this run is at its scale on its model and SAE."""
    told = yaml.safe_load((PAPER_TABLES / "texts" / "features.yaml").read_text(encoding="utf-8"))
    sae = run.values["sae"]
    own = sae["train"] is None and sae["release"] is None and sae["path"] == run.values["model"]["sae"]
    if run.scale != "paper" or run.model.name != told["model"] or not own:
        return []
    return [PapersFeature(**feature) for feature in told["features"]]


def page(run: RunConfig, looked: Mapping[str, Looked], results: Results) -> Page:
    """A row for each feature of each task, with all that is known of it."""
    papers = {(f.task, f.feature): f for f in papers_features(run)}
    found = [
        Found(t, card, papers.get((t, card.id))) for t, one in looked.items() for card in _cards(run, one, results)
    ]
    if not found:
        raise FacError("No feature of these tasks is known by its id: set experiment.ids=[ID,ID].")
    kinds: list[labels.Kind] = [labels.kind_of(run, task, [run.model.name]) for task in looked]
    names = COLUMNS | {f.row: f"{TASKS[f.task].title} {f.card.id}" for f in found}
    notes = [f"{names[f.row]}: {f}." for f in found]
    notes += [f"Texts activate a feature above {run.thresholds.default}. {run.llms.note(run.model.ref)}"]
    title = f"Features of {run.model.name}"
    main = table(run, "lookup", title, [f.row for f in found], list(COLUMNS), _cells(found), names, notes, kinds)
    known = [f for f in found if f.papers is not None and f.papers.relevant is not None]
    agreeing = sum(f.is_relevant == f.papers.relevant for f in known if f.papers is not None)
    return Page(
        title=title,
        subtitle="Tables 2 and 16 to 19 of the paper: what single features are, and which task they matter for.",
        tables=[main],
        facts=[("Relevance judged as in the paper", f"{agreeing} of {len(known)} features")] if known else [],
        features=[f.card for f in found],
    )


def _cells(found: Sequence[Found]) -> list[Cell]:
    cells = []
    for f in found:
        strongest = max((span.value for span in f.card.spans), default=0.0)
        cells.append(observed(f.row, "anchor", f.card.anchor_count, unit="count"))
        cells.append(observed(f.row, "seed", f.card.seed_count, unit="count"))
        cells.append(observed(f.row, "strongest", strongest, unit="activation"))
    return cells


def _cards(run: RunConfig, looked: Looked, results: Results) -> Iterator[Feature]:
    """Raises FacError for an id that the SAE does not have."""
    anchor, seed = (CorpusFeatures.load(results.folder(s)) for s in (looked.anchor_features, looked.seed_features))
    width = anchor.pooled.n_features
    if beyond := [feature for feature in looked.ids if feature >= width]:
        raise FacError(f"experiment.ids={beyond[0]} will not do: the SAE has {width} features, from 0 to {width - 1}.")
    chosen = run.thresholds.chosen
    cuts = threshold_grid(chosen.absolute, chosen.relative, anchor.pooled.maxima()).cuts
    in_anchor, in_seed = (counts(measured.pooled, cuts)[0] for measured in (anchor, seed))
    told = load_interpretations(results.folder(looked.told))
    ids = looked.ids or most_active(told, in_anchor)
    how, corpus = run.interpret, Corpus.load(results.folder(looked.anchor))
    spans = looked.encoder.spans(corpus, anchor.tops, ids, how.spans, how.span_tokens)
    for feature in ids:
        said = told.get(feature, Interpretation(feature, (), ""))
        yield Feature(
            id=feature,
            explanation=said.explanation,
            verdict=said.verification,
            relevance=said.relevance,
            spans=[Span(s.text, s.start, len(s.text), s.value) for s in spans[feature]],
            anchor_count=int(in_anchor[feature]),
            seed_count=int(in_seed[feature]),
        )


def most_active(told: Mapping[int, Interpretation], in_anchor: np.ndarray) -> list[int]:
    """The relevant features, and then the others with a verdict, that most texts activate: as many as SHOWN says."""
    ranked = sorted((f for f, said in told.items() if said.relevance), key=lambda f: (-in_anchor[f], f))
    chosen = []
    for relevant, count in SHOWN.items():
        chosen += [f for f in ranked if (told[f].relevance in RELEVANT) == relevant][:count]
    return chosen
