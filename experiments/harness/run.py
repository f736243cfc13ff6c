"""How an experiment runs: its plan is laid out, what is missing is built, its records are viewed.

The same plan is printed by dry_run=true and looked at by the doctor.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from experiments.harness import plan as plans
from experiments.harness import records
from experiments.harness.backends import Backend, Workers, advance, on_gpu
from experiments.harness.cluster import Cluster
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Experiment, Plan, Results, Trial
from experiments.harness.graph import Graph, TrialSteps
from experiments.harness.listing import claims
from experiments.harness.session import Session, store_of
from experiments.tasks import TASKS
from fac.errors import FacError
from fac.spread import Spread
from fac.store import Step, Store, missing


@dataclass(frozen=True)
class LaidOut:
    """A plan with the steps of its trials; `stops` says what some could not be laid out for."""

    plan: Plan
    trials: dict[Trial, TrialSteps]
    stops: tuple[str, ...] = ()

    @property
    def targets(self) -> list[Step]:
        """What is built, in this order; the rest is built on the way."""
        return [*(target for steps in self.trials.values() for target in steps.targets), *self.plan.steps]


def lay_out(experiment: Experiment, run: RunConfig, graph: Graph, strict: bool = True) -> LaidOut:
    """The plan of an experiment and its steps; everything that it reads of the configuration is read here.

    Unless `strict`, a trial that cannot be laid out is left out, and said. Raises FacError for settings that cannot be,
    and for those of the command line that nothing reads.
    """
    plan = experiment.plan(run, graph)
    trials: dict[Trial, TrialSteps] = {}
    stops: dict[str, None] = {}
    for trial in plan.trials:
        try:
            trials[trial] = graph.steps(trial)
        except FacError as error:
            if strict:
                raise
            stops[str(error)] = None
    if not stops:  # what is not laid out would have read more
        run.check_read()
    return LaidOut(plan, trials, tuple(stops))


def dry_run(experiment: Experiment, run: RunConfig) -> str:
    """The plan as text; nothing is done."""
    with Graph(run, _quiet) as graph:
        laid = lay_out(experiment, run, graph, strict=False)
        title = f"experiment={experiment.name} model={run.model.name} scale={run.scale}"
        targets = {trial: steps.targets for trial, steps in laid.trials.items()}
        return plans.report(title, targets, laid.plan.steps, store_of(run), laid.stops)


def execute(experiment: Experiment, run: RunConfig) -> Path:
    """Build what is missing, and write what it comes to; returns the folder of the results."""
    import torch

    backend = _backend(run)
    with Graph(run, _say, _spread(run, backend)) as graph:
        laid = lay_out(experiment, run, graph)
        if laid.trials:
            torch.set_num_threads(1)  # the other cores train
        elif run.workers is not None:  # else all cores measure
            torch.set_num_threads(run.workers)
        _check_engines(laid, store_of(run))
        with Session.open(run) as session, backend as workers:
            graph.on_sae_step = session.sae_curve
            for found in session.store.mend([*laid.targets, *(s for t in laid.trials.values() for _, s in t.named())]):
                session.say(found)
            _build(laid, graph, session, workers)
            found = [session.tracked(records.record_of(t, steps, session.store)) for t, steps in laid.trials.items()]
            page = laid.plan.page(Results(found, laid.trials, session.store))
            tasks = dict.fromkeys(trial.task for trial in laid.trials)
            warnings = {name: TASKS[name].warning for name in tasks if TASKS[name].warning}
            page = replace(page, paper=claims(experiment), warnings=warnings)
            places = [(step.name, step.key) for steps in laid.trials.values() for _, step in steps.named()]
            places += [(step.name, step.key) for step in laid.plan.steps]
            if found:
                page = replace(page, files={**page.files, "records.json": records.dump(found)})
            return session.finish(page, places)


def _check_engines(laid: LaidOut, store: Store) -> None:
    """Raise FacError if an LLM that is still to be asked lacks a key or a package: now, and not after hours."""
    if not (left := missing(laid.targets, store)):
        return  # and no library of models is loaded
    from experiments.harness.doctor.uses import engines_of  # the doctor lays plans out, too

    for step in left:
        for _, engine in engines_of(step):
            engine.settings.check()


def _backend(run: RunConfig) -> Backend:
    """Who builds the steps that need not be built here."""
    root = store_of(run).root
    return Cluster(root, run.workers, run.ray.address) if run.backend == "ray" else Workers(root, run.workers)


def _spread(run: RunConfig, backend: Backend) -> Spread | None:
    """Who measures parts of large corpora: a cluster; workers of this machine have no cores to spare."""
    return Spread(backend.each, backend.size, run.ray.texts) if isinstance(backend, Cluster) else None


def _build(laid: LaidOut, graph: Graph, session: Session, workers: Backend) -> None:
    """Steps of this process in the order of the trials, those that may run elsewhere beside them.

    On a GPU they wait: this process' encoder and writer, and a training do not fit beside each other. One worker has
    nothing beside it in a plan without trials: a process of its own would only be waited for.
    """
    if not laid.trials and isinstance(workers, Workers) and session.run.workers == 1 and not on_gpu():
        for target in laid.targets:
            session.store.get(target)
        return
    left = laid.targets
    while left:
        waiting: list[list[Step]] = []
        left = advance(left, session.store, waiting.append if on_gpu() else workers.submit)
        if on_gpu():
            graph.release()
        for chain in waiting:
            workers.submit(chain)
        for event in workers.results():
            session.record(event)


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _quiet(text: str) -> None:
    """Of a plan, in which nothing happens."""
