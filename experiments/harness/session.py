"""One run: its store, its tracker, what is shown while steps are made, and how it ends in `out`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import yaml
from tqdm import tqdm

from experiments.harness import outputs
from experiments.harness.config import RunConfig
from experiments.harness.experiment import Record
from experiments.harness.report import Page, kept, render
from experiments.harness.results import provenance
from experiments.harness.tracking import Tracker
from fac.jsonl import write_json_atomic
from fac.sae.settings import OnStep
from fac.store import StageEvent, Store

LABEL, PAPERS = "label", "the paper's setting"  # tag of a tracked run, and what it says where a table has no label
RUNS = ".runs"  # folder of the store: which tracked run a trial is, by the key of its last step


@dataclass(frozen=True)
class StepTime:
    """Cost of all steps of one name in this run."""

    name: str
    built: int
    reused: int
    seconds: float  # of those built now
    cpu_seconds: float


@dataclass
class Session:
    """Opened by `open`; a context manager that ends the tracked run FINISHED or FAILED."""

    run: RunConfig
    tracker: Tracker
    config_hash: str
    store: Store = field(init=False)
    started: float = field(default_factory=time.monotonic)
    events: list[StageEvent] = field(default_factory=list)

    @classmethod
    def open(cls, run: RunConfig) -> Session:
        """Make the run's folder and start the tracked run. Raises FacError for a folder that cannot be written."""
        outputs.check_writable(run.out)
        digest = outputs.config_hash(run.values)
        tracker = Tracker.open(
            run.tracking.uri,
            experiment=run.name,
            run_name=run.name,
            out=run.out,
            outputs=Path(run.paths.outputs).expanduser().absolute(),
            config=run.values,
            tags={"model": run.model.name, "scale": run.scale, "config_hash": digest}
            | {key: value for key, value in provenance().items() if key == "git_sha"},
            enabled=run.tracking.enabled,
        )
        session = cls(run, tracker, digest)
        if outdated := session.store.outdated():
            session.say(
                f"{outdated} steps in {session.store.root} were made by an older version of fac and are not used any "
                f"more: to free their space, delete that folder when no run needs it."
            )
        return session

    def __post_init__(self) -> None:
        self.store = store_of(self.run, self)

    def record(self, event: StageEvent) -> None:
        """Show and track what happened to a step (in this process or a worker)."""
        if event.kind == "started":
            return
        self.events.append(event)
        if event.kind == "built":
            self.say(f"{event.name} {event.key[:8]} built in {event.seconds:.1f} s")
            self.tracker.stage(event.name, seconds=event.seconds, params={"key": event.key})

    def say(self, text: str) -> None:
        """One line of progress, between the bars."""
        tqdm.write(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr)

    def sae_curve(self, name: str = "sae") -> OnStep:
        """What an SAE that is trained on the way reports its steps to: curves NAME/metric of the tracked run."""

        def track(step: int, metrics: Mapping[str, float]) -> None:
            self.tracker.log(metrics={f"{name}/{metric}": {step: value} for metric, value in metrics.items()})

        return track

    def tracked(self, record: Record) -> Record:
        """The record with the id of its tracked run, kept beside the store so that a rerun's table is the same."""
        key = record.steps.get("scores") or record.steps.get("coverage", "")
        note = self.store.root / RUNS / f"{key}.json"
        if not note.exists():
            trial = record.trial
            seconds = sum(event.seconds for event in self.events if event.key in record.steps.values())
            run_id = self.tracker.stage(
                "trial",
                seconds=seconds,
                params={"method": trial.method, "features_of": trial.features_of, "writer": trial.writer},
                metrics=record.metrics,
                tags={"seed": str(trial.seed), "method": trial.method, "task": trial.task},
            )
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(note, run_id or "")
        return replace(record, run_id=json.loads(note.read_text()))

    def times(self) -> list[StepTime]:
        """Cost per name of step, in order of first appearance."""
        table = []
        for name in dict.fromkeys(event.name for event in self.events):
            built = [e for e in self.events if e.name == name and e.kind == "built"]
            reused = len({e.key for e in self.events if e.name == name} - {e.key for e in built})
            seconds, cpu = (sum(e.seconds for e in built), sum(e.cpu_seconds for e in built))
            table.append(StepTime(name, len(built), reused, round(seconds, 1), round(cpu, 1)))
        return table

    def finish(self, page: Page, steps: Iterable[tuple[str, str]]) -> Path:
        """Write the results to the run's folder and hand them to the tracker; returns the folder.

        The page's first table is table.json and table.md, the others are named after themselves. `steps` (name, key)
        are those that the numbers come from.
        """
        times = self.times()
        origins = self.store.origins(steps)
        tables = [table.computed_by(origins) for table in page.tables]
        page = replace(page, tables=tables, stage_seconds=[(t.name, t.seconds) for t in times])
        written = {"config.yaml": yaml.safe_dump(dict(self.run.values), sort_keys=False), **page.files}
        named = [*((table.experiment, table) for table in page.tables[1:]), ("table", page.tables[0])]
        written[kept.PAGE] = kept.dump(page)
        written["report.html"] = render(page)
        written |= {f"{name}.md": table.to_markdown() for name, table in named}
        written |= {f"{name}.json": table.to_json() for name, table in named}
        out = self.run.out
        outputs.write_outputs(out, written)
        outputs.copy_folders(out, page.copies)
        metrics = {f"{cell.column}/{cell.row}": cell.mean for table in page.tables[:1] for cell in table.cells}
        self.tracker.tag(LABEL, page.tables[0].told() or PAPERS)
        self.tracker.log(metrics=metrics, artifacts=[out / name for name in written])
        for t in times:
            if t.built:
                cost = f"{t.seconds:7.1f} s ({t.cpu_seconds:.1f} CPU s)"
                self.say(f"{t.name:16s} {t.built:3d} new in {cost}, {t.reused} reused")
        return out

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracker.__exit__(kind, error, trace)


def store_of(run: RunConfig, session: Session | None = None) -> Store:
    """The store of a run; what happens in it is told to the session."""
    return Store(run.paths.root, None if session is None else session.record)
