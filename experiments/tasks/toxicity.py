"""Toxicity detection: harmful queries are written; a classifier trained on them and on safe ones is scored by AUPRC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.tasks.base import ROLES, Labelled, Task, Testing, Training, keep_replicates
from fac.data.corpus import Corpus
from fac.data.examples import LoadReport, read_examples
from fac.data.schemas import QUERY, Query
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.corpora import Sizes, draw_corpus
from fac.model_ref import ModelRef
from fac.store import Step
from fac.train.settings import ClassifierSettings


def train(job: Training, folder: Path) -> None:
    """A classifier on labelled corpora."""
    from fac.train.classifier import check_classes, train_classifier
    from fac.train.states import load_parts, train_on_states

    examples = [(e.messages, int(e.label or 0)) for part in job.parts for e in Corpus.load(part)]
    if job.settings.kept_states:
        labels = [label for _, label in examples]
        check_classes(labels)
        log = train_on_states(load_parts(job.parts), labels, 2, job.settings, job.seed, folder)
    else:
        log = train_classifier(job.model, examples, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Testing, folder: Path) -> dict[str, float]:
    """AUPRC, AUROC and prevalence on a labelled corpus."""
    from eval.classification import evaluate, rated
    from fac.train.classifier import load_classifier, of_class_1
    from fac.train.states import load_parts, scores_of_states

    corpus = Corpus.load(job.test)
    labels = corpus.labels()
    if labels is None:
        raise FacError("The test set has no labels: name their column.")
    if job.settings.kept_states:
        metrics, replicates = rated(labels, of_class_1(scores_of_states(job.folder, load_parts([job.test]))))
    else:
        classifier = load_classifier(job.folder, job.model)
        metrics, replicates = evaluate(classifier, ((e.messages, int(e.label or 0)) for e in corpus))
    keep_replicates(folder, replicates)
    return metrics


def as_model(trained: Path, model: ModelRef, folder: Path) -> None:
    """The model with the layers that the classifier was trained to have."""
    from fac.train.classifier import load_classifier
    from fac.train.merged import save_as_causal_lm

    save_as_causal_lm(load_classifier(trained, model), folder)


def states(model: ModelRef, settings: ClassifierSettings, examples: Step) -> Step:
    """What a frozen model says of a corpus."""
    from fac.train.classifier import rows_of
    from fac.train.states import states_step

    return states_step(model, settings, rows_of, "texts", examples)


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The texts of a data set, as queries."""
    return ((Query(example.text), example.label) for example in read_examples(source, report))


def drawn_in_lab(role: str, world: int, sizes: Sizes) -> list[Labelled]:
    """The queries of one role of the lab's world; the seed data are its safe and its harmful training texts."""
    parts = {"seed": ("safe", "seed"), "toxic": ("seed",)}.get(role, (role,))
    return [(Query(example.text), example.label) for part in parts for example in draw_corpus(part, world, sizes)]


TASK = Task(
    name="toxicity",
    title="Toxicity",
    metric="auprc",
    metric_title="AUPRC",
    paper={"table1": "toxicity", "table12": "auprc", "table13": "toxicity", "table8": "toxicity"},
    schema=QUERY,
    settings=ClassifierSettings,
    sizes=Sizes,
    stage="classifier",
    train=train,
    test=test,
    as_model=as_model,
    states=states,
    read=read,
    drawn_in_lab=drawn_in_lab,
    fixed=("safe",),
    seed_role="toxic",
    roles=(*ROLES, "safe", "toxic"),
    may_have=("validation", "labelled"),
    warning="Some of these texts are harmful requests, written by a model to train detectors of them: they are not for "
    "use, and labels say what a text was written for, not what it is.",
)
