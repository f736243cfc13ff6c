"""From trials to steps: which data, features, interpretations, samples, training and test a trial comes to.

Nothing is loaded, read or written here; whatever must be looked up is looked up when a step's key is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

from experiments.harness.config import RunConfig
from experiments.harness.experiment import BASE, Trial
from experiments.harness.sections import TaskConfig
from experiments.tasks import TASKS
from experiments.tasks.base import Task, TaskSteps, as_read, scores_step, train_step, trained_model
from experiments.tasks.sources import pool_step, task_steps
from fac.clusters import clusters_step, dense_coverage
from fac.data.corpus import joined
from fac.data.mixture import Mixture, mix
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.gap import Mining, mine
from fac.llm.base import ChatModel
from fac.llm.engines import Judge, LLMs
from fac.model_ref import MadeModel, ModelRef
from fac.noise import with_noise
from fac.prompts import Prompts
from fac.sae.settings import OnStep
from fac.spread import Spread
from fac.store import Step
from fac.synthesis.covered import coverage
from fac.synthesis.generate import synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.needs import Extras
from fac.synthesis.selection import selection

IMPROVING = "fac"  # the method that a model improves itself by


@dataclass(frozen=True)
class TrialSteps:
    """The steps of one trial; None where it does without."""

    data: TaskSteps
    mining: Mining | None
    synthesis: Step | None  # what the method wrote
    added: Step | None  # ... as it is trained on
    coverage: Step | None
    trained: Step | None
    scores: Step | None
    added_features: Step | None = None  # of what is trained on
    chosen: Step | None = None  # settings of the training that held-out examples decide

    @property
    def targets(self) -> list[Step]:
        """What is built, in this order; the rest is built on the way."""
        return [step for step in (self.coverage, self.scores) if step is not None]

    def named(self) -> Iterator[tuple[str, Step]]:
        """The steps by what they are to the trial, for its record."""
        yield "draw", self.data.draw
        if self.mining is not None:
            yield "features", self.mining.anchor_features
            yield "interpretations", self.mining.interpretations
            yield "missing", self.mining.missing
        for name in ("synthesis", "added", "coverage", "chosen", "trained", "scores"):
            if (step := getattr(self, name)) is not None:
                yield name, step


class Graph:
    """The steps of the trials of one run. A context manager that closes the LLMs it opened."""

    def __init__(self, run: RunConfig, say: Callable[[str], None], spread: Spread | None = None) -> None:
        self.run = run
        self.say = say  # a line of progress
        self.spread = spread  # who measures large corpora elsewhere
        self.on_sae_step: Callable[[str], OnStep] | None = None  # by the name of its curves, who watches a training
        self._stack = ExitStack()
        self._encoders: dict[Any, FeatureEncoder] = {}
        self._llms: dict[Any, LLMs] = {}
        self._prompts: dict[str, Prompts] = {}
        self._trials: dict[Trial, TrialSteps] = {}
        self._improved: dict[Trial, MadeModel] = {}  # by the trial that trained it
        self._mixtures: dict[str, Mixture] = {}  # of texts that SAEs learn from

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def steps(self, trial: Trial) -> TrialSteps:
        """The steps of a trial. Raises FacError for settings that cannot be."""
        if trial not in self._trials:
            self._trials[trial] = self._laid_out(trial)
        return self._trials[trial]

    def config_of(self, trial: Trial) -> RunConfig:
        """The run's configuration with what the trial changes of it."""
        return self.run.with_(dict(trial.settings))

    def encoder(self, run: RunConfig, anchor: Step | None = None, trained: ModelRef | None = None) -> FeatureEncoder:
        """The features of a run's model and SAE, one for all that measure with the same.

        An SAE that is to be trained learns from the texts of its own settings (`sae.texts`), or else from `anchor`.
        `trained` is a model that was trained from the run's, to be measured in its place: with an SAE of its own if one
        is to be trained, else with the one that the run's model has.
        """
        texts = None
        if run.values["sae"]["train"] is not None:
            texts = self.sae_mixture(run).train if run.sae_texts else anchor
        model, origin = trained or run.model.ref, run.model.ref if trained and texts is None else None
        key = (model, run.sae, run.sae_layer, run.features, id(texts))
        if key not in self._encoders:
            name = "sae" if run.model.name == self.run.model.name else f"sae_{run.model.name}"
            watched = partial(self._sae_step, name)
            how = (run.sae, run.sae_layer, run.features, texts, watched, origin, self.spread)
            self._encoders[key] = FeatureEncoder(model, *how)
        return self._encoders[key]

    def sae_mixture(self, run: RunConfig) -> Mixture:
        """The texts that the SAE's settings name, with a share that it does not learn from."""
        key = repr(run.sae_texts)
        if key not in self._mixtures:
            self._mixtures[key] = mix(run.sae_texts)
        return self._mixtures[key]

    def _sae_step(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """Tell of a step of an SAE's training, which begins when all is laid out and a run is tracked."""
        if self.on_sae_step is not None:
            self.on_sae_step(name)(step, metrics)

    def llms(self, run: RunConfig, model: ModelRef) -> LLMs:
        """Who writes and annotates in a run on `model`; each loads or starts with its first request."""
        key = repr((run.llms.writer, run.llms.annotators)), model  # settings of engines hold mappings: no hash
        if key not in self._llms:
            self._llms[key] = self._stack.enter_context(run.llms.open(model, self.say))
        return self._llms[key]

    def prompts(self, run: RunConfig, task: Task) -> Prompts:
        """What a task's LLMs are asked with; each folder is read once."""
        folder = run.tasks[task.name].prompts
        if folder not in self._prompts:
            self._prompts[folder] = Prompts(folder)
        return self._prompts[folder]

    def release(self) -> None:
        """Give back the memory of everything that measures."""
        for encoder in self._encoders.values():
            encoder.release()

    def data(self, run: RunConfig, task: str, data_seed: int, test: str) -> TaskSteps:
        """The data of a task."""
        return task_steps(TASKS[task], run.tasks[task], data_seed, test)

    def data_of(self, trial: Trial) -> TaskSteps:
        """The data of a trial: in a later round what FAC added in those before it belongs to the seed data."""
        data = self.data(self.config_of(trial), trial.task, trial.data_seed, trial.test)
        rounds = (self.steps(self._earlier(trial, number)).added for number in range(1, trial.round))
        added = tuple(step for step in rounds if step is not None)
        if not added:
            return data
        return replace(data, seed=joined((data.seed, *added)), fixed=(*data.fixed, *added))

    def improved(self, trial: Trial) -> MadeModel | None:
        """The model of a later round of self-improvement: what the round before trained with the first training seed.

        None in the first. Raises FacError where that round trains no model.
        """
        if trial.round == 1:
            return None
        before = self._earlier(trial, trial.round - 1)
        if before not in self._improved:
            run, task, trained = self.config_of(before), TASKS[trial.task], self.steps(before).trained
            model = self.improved(before) or model_of(run, before, task)
            assert trained is not None
            name = f"{run.for_model(trial.trained).model.ref.name} after round {before.round}"
            self._improved[before] = trained_model(task, model, trained, run.paths.root, name)
        return self._improved[before]

    def _earlier(self, trial: Trial, number: int) -> Trial:
        """The trial of an earlier round whose rows and model a later one goes on with."""
        if not trial.features_of == trial.writer == trial.trained:
            raise ValueError("a model improves itself: it is measured, writes and is trained")
        return replace(trial, method=IMPROVING, round=number, seed=self.run.seeds.training[0])

    def mining(self, run: RunConfig, task: Task, data: TaskSteps, trained: ModelRef | None = None) -> Mining:
        """What the seed data of a task miss, by the features of the run's model, or of one that was `trained` from it.

        Those who annotate are the run's in either case.
        """
        annotators = self.llms(run, run.model.ref).annotators
        prompts = self.prompts(run, task)
        encoder = self.encoder(run, data.anchor, trained)
        how = run.interpret
        found = mine(encoder, data.anchor, data.seed, annotators, prompts, how, run.thresholds, data.labelled)
        return with_noise(found, how)

    def _laid_out(self, trial: Trial) -> TrialSteps:
        run, task = self.config_of(trial), TASKS[trial.task]
        config = run.tasks[task.name]
        improved = self.improved(trial)
        data = self.data_of(trial)
        model = improved or model_of(run, trial, task)
        if trial.method == BASE:
            return self._tested(run, trial, task, data, TrialSteps(data, None, None, None, None, None, None))
        mining = self.mining(run.for_model(trial.features_of), task, data, improved)
        written = added = None
        if METHODS[trial.method].adds:
            writing = run.for_writer(trial.writer)
            writer = self.llms(writing, improved or writing.model.ref).writer
            settings = run.synthesis(task.name, seed=trial.generation)
            written = added = self._written(run, trial, task, data, mining, writer)
            if METHODS[trial.method].prompts:
                added = selection(written, mining, task.schema, settings, config.budget)
            if task.complete is not None:
                added = task.complete(added, writer, self.prompts(run, task), settings)
        covered = coverage(mining, task.schema, added, written)
        measured = None if added is None else mining.encoder.features(added)
        steps = TrialSteps(data, mining, written, added, covered, None, None, measured)
        if trial.seed is None:
            return steps
        fixed, alone = data.fixed, added is not None and config.protocol == "alone"
        chosen = None if task.choose is None else task.choose(data, model, config.train)
        read = partial(as_read, task, model, config.train)
        seed_examples = None if alone else read(data.seed_examples)
        rows = None if added is None else read(added)
        trained = train_step(
            task, model, config.train, trial.seed, tuple(map(read, fixed)), seed_examples, rows, chosen
        )
        return self._tested(run, trial, task, data, replace(steps, trained=trained, chosen=chosen))

    def _written(
        self, run: RunConfig, trial: Trial, task: Task, data: TaskSteps, mining: Mining, writer: ChatModel
    ) -> Step:
        config, method = run.tasks[task.name], METHODS[trial.method]
        settings = run.synthesis(task.name, seed=trial.generation)
        budget = None if method.name == "full" and config.full == "all" else config.budget
        return synthesis(
            method, mining, writer, self.prompts(run, task), task.schema, settings, budget,
            data.seed_examples, data.human, data.draw, self._extras(trial, task, data, config),
        )  # fmt: skip

    def _extras(self, trial: Trial, task: Task, data: TaskSteps, config: TaskConfig) -> Extras:
        """What the trial's method needs beyond what all are given; nothing else is read or laid out."""
        needs = METHODS[trial.method].needs
        return Extras(
            pool=pool_step(task, config, trial.data_seed, data) if "pool" in needs else None,
            clusters=self.clusters(trial) if "clusters" in needs else None,
        )

    def clusters(self, trial: Trial) -> Step:
        """The clusters of embeddings that stand beside the features of a trial (App. G, Table 12)."""
        run, task = self.config_of(trial).for_model(trial.features_of), TASKS[trial.task]
        mining = self.mining(run, task, self.data_of(trial), self.improved(trial))
        annotators, prompts = self.llms(run, run.model.ref).annotators, self.prompts(run, task)
        share = run.synthesis(task.name, seed=trial.generation).clusters
        return clusters_step(mining, annotators, prompts, run.interpret, share, trial.data_seed)

    def dense_coverage(self, trial: Trial) -> Step:
        """How far clusters tell which features the rows of a trial's method activate (`load_dense_coverage`).

        Raises ValueError for a method that adds nothing.
        """
        steps = self.steps(trial)
        if steps.mining is None or steps.added is None:
            raise ValueError(f"{trial.method} adds nothing")
        return dense_coverage(self.clusters(trial), steps.mining, steps.added)

    def _tested(self, run: RunConfig, trial: Trial, task: Task, data: TaskSteps, steps: TrialSteps) -> TrialSteps:
        """The steps with the test of what was trained, or of the model as it is."""
        config, model = run.tasks[task.name], self.improved(trial) or model_of(run, trial, task)
        references, judge = {}, None
        if task.references is not None:
            references = task.references(data, config.evaluation)
            judge = Judge(run.llms, run.for_model(trial.trained).model.ref) if "reference" in references else None
            if judge is not None and config.evaluation is not None:
                config.evaluation.check(judge)
        test = as_read(task, model, config.train, data.test)
        scores = scores_step(task, model, config.train, steps.trained, test, references, judge)
        return replace(steps, scores=scores)


def model_of(run: RunConfig, trial: Trial, task: Task) -> ModelRef:
    """The model that a trial trains. Raises FacError if the task trains a base model and none is named."""
    model = run.for_model(trial.trained).model
    if not task.from_base:
        return model.ref
    if model.base_ref is None:
        raise FacError(f"The {task.name} task trains a base model: set model.base to a folder or hub id.")
    return model.base_ref
