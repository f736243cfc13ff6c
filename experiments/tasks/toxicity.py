"""Toxicity detection: harmful queries are written; a classifier trained on them and on safe ones is scored by AUPRC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.job import Job
from experiments.tasks.base import ROLES, Labelled, Task, keep_replicates
from fac.data.corpus import Corpus
from fac.data.examples import LoadReport, read_examples
from fac.data.schemas import QUERY, Query
from fac.data.source import Source
from fac.errors import FacError
from fac.train.classifier import ClassifierSettings


def train(job: Job, folder: Path) -> None:
    """A classifier on labelled corpora."""
    from fac.train.classifier import train_classifier

    examples = [(e.messages, int(e.label or 0)) for part in job.train for e in Corpus.load(part.path)]
    log = train_classifier(job.model, examples, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Job, trained: Path, folder: Path) -> dict[str, float]:
    """AUPRC, AUROC and prevalence on a labelled corpus."""
    from eval.classification import evaluate
    from fac.train.classifier import load_classifier

    corpus = Corpus.load(job.test.path)
    if corpus.labels() is None:
        raise FacError("The test set has no labels: name their column.")
    classifier = load_classifier(trained, job.model)
    metrics, replicates = evaluate(classifier, ((e.messages, int(e.label or 0)) for e in corpus))
    keep_replicates(folder, replicates)
    return metrics


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The texts of a data set, as queries."""
    return ((Query(example.text), example.label) for example in read_examples(source, report))


TASK = Task(
    "toxicity",
    "auprc",
    "toxicity",
    "Toxicity AUPRC",
    QUERY,
    ClassifierSettings,
    "classifier",
    train,
    test,
    read,
    roles=(*ROLES, "safe", "toxic"),
    may_have=("validation", "labelled"),
)
