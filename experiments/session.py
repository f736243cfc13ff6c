"""One run of one experiment: its store, its tracker, its stage times, and how it ends in `out`.

Knows: where things go and what is shown while they are made. Does not know: what the stages compute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from experiments import results, unread
from experiments.config import plain, value
from experiments.harness.report import Page, render
from experiments.harness.tracking import Tracker, flatten
from experiments.walk import NotStored, current_walk
from fac.sae.recipe import OnStep
from fac.store import StageEvent, Store


@dataclass(frozen=True)
class StageTime:
    """Cost of all stages of one name in this run."""

    name: str
    built: int
    reused: int
    seconds: float  # of those built now
    cpu_seconds: float


@dataclass
class Session:
    """Opened by `open`; a context manager that ends the tracked run FINISHED or FAILED."""

    cfg: DictConfig
    out: Path
    tracker: Tracker
    config_hash: str
    store: Store = field(init=False)
    started: float = field(default_factory=time.monotonic)
    events: list[StageEvent] = field(default_factory=list)

    @classmethod
    def open(cls, cfg: DictConfig) -> Session:
        """Check the whole configuration, make `out`, start the tracked run. A dry run makes and tracks nothing.

        Raises FacError for a value left open, a setting that the experiment has not read by now, a folder that cannot
        be written.
        """
        config = plain(cfg)
        unread.check(list(flatten(config)))
        digest = results.config_hash(config)
        out, outputs = (Path(str(name)).expanduser().absolute() for name in (config["out"], config["paths"]["outputs"]))
        real = current_walk() is None
        if real:
            results.check_writable(out)
        tracker = Tracker.open(
            config["tracking"]["uri"],
            experiment=config["experiment"]["name"],
            run_name=config["experiment"]["name"],
            out=out,
            outputs=outputs,
            config=config,
            tags={"model": config["model"]["name"], "scale": config["scale"]["name"], "config_hash": digest}
            | {key: value for key, value in results.provenance().items() if key == "git_sha"},
            enabled=real and value(cfg, "tracking.enabled", bool),
        )
        session = cls(cfg, out, tracker, digest)
        if real and (outdated := session.store.outdated()):
            session.say(
                f"{outdated} steps in {session.store.root} were made by an older version of fac and are not used any "
                f"more: to free their space, delete that folder when no run needs it."
            )
        return session

    def __post_init__(self) -> None:
        root, walk = Path(str(plain(self.cfg, "paths.store"))).expanduser(), current_walk()
        self.store = Store(root, self.record) if walk is None else walk.store(root)

    def record(self, event: StageEvent) -> None:
        """Show and track one stage event (from this process or a worker's)."""
        if event.kind == "started":
            return
        self.events.append(event)
        if event.kind == "built":
            self.say(f"{event.name} {event.key[:8]} built in {event.seconds:.1f} s")
            self.tracker.stage(event.name, seconds=event.seconds, params={"key": event.key})

    def say(self, text: str) -> None:
        """One line of progress, between the bars."""
        if current_walk() is None:
            tqdm.write(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr)

    def sae_curve(self, name: str = "sae") -> OnStep:
        """What an SAE that is trained on the way reports its steps to: curves NAME/metric of the tracked run."""

        def track(step: int, metrics: Mapping[str, float]) -> None:
            self.tracker.log(metrics={f"{name}/{metric}": {step: value} for metric, value in metrics.items()})

        return track

    def times(self) -> list[StageTime]:
        """Cost per stage name, in order of first appearance."""
        table = []
        for name in dict.fromkeys(event.name for event in self.events):
            built = [e for e in self.events if e.name == name and e.kind == "built"]
            reused = len({e.key for e in self.events if e.name == name} - {e.key for e in built})
            seconds, cpu = (sum(e.seconds for e in built), sum(e.cpu_seconds for e in built))
            table.append(StageTime(name, len(built), reused, round(seconds, 1), round(cpu, 1)))
        return table

    def finish(
        self,
        page: Page,
        metrics: Mapping[str, float],
        files: Sequence[Path] = (),
        texts: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the results to `out` and hand them, with `files`, to the tracker; returns `out`.

        The page's first table is table.json and table.md, the others are named after themselves; `texts` are more
        files, by name. A dry run ends here.
        """
        if current_walk() is not None:
            raise NotStored("table")
        times = self.times()
        origins = self.store.origins((event.name, event.key) for event in self.events)
        tables = [table.computed_by(origins) for table in page.tables]
        page = replace(page, tables=tables, stage_seconds=[(t.name, t.seconds) for t in times])
        written = {"config.yaml": OmegaConf.to_yaml(self.cfg, resolve=True), **(texts or {})}
        named = [*((table.experiment, table) for table in page.tables[1:]), ("table", page.tables[0])]
        written["report.html"] = render(page)
        written |= {f"{name}.md": table.to_markdown() for name, table in named}
        written |= {f"{name}.json": table.to_json() for name, table in named}
        results.write_outputs(self.out, written)
        self.tracker.log(metrics=metrics, artifacts=[*(self.out / name for name in written), *files])
        for t in times:
            if t.built:
                cost = f"{t.seconds:7.1f} s ({t.cpu_seconds:.1f} CPU s)"
                self.say(f"{t.name:16s} {t.built:3d} new in {cost}, {t.reused} reused")
        return self.out

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracker.__exit__(kind, error, trace)
