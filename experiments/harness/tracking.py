"""The record of a run in MLflow: one parent run, one nested run per finished stage, and never a reason to fail.

If MLflow cannot be reached, or goes away later, one warning says so and the records go to `tracking.jsonl` in the run's
folder instead. MLflow's global "active run" is not touched, so trackers may live side by side.
"""

from __future__ import annotations

import json
import logging
import os
import re
import textwrap
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote

log = logging.getLogger(__name__)

LONGEST_NAME = 250  # MLflow's limit
LONGEST_PARAM = 500  # MLflow 3 takes 6,000 characters, older servers 500; what is longer becomes an artifact
# A server that is away is found out in seconds, not in MLflow's minutes. What the user has set wins.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

Metrics = Mapping[str, float | Sequence[float] | Mapping[int, float]]  # a curve by its positions, or by its steps
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What is recorded of one finished stage."""

    name: str
    seconds: float
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()


class Sink(Protocol):
    """Where records go. `start` and `stage` return the id of the run they made."""

    def start(self, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str: ...

    def stage(self, parent: str, stage: Stage) -> str: ...

    def log(self, run: str, metrics: Metrics, artifacts: Sequence[Path]) -> None: ...

    def tag(self, run: str, name: str, value: str) -> None: ...

    def end(self, run: str, status: str) -> None: ...


class JsonlSink:
    """One JSON object per event, appended to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def start(self, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
        run = uuid.uuid4().hex
        self._write(event="start", run=run, name=name, tags=tags, params=params)
        return run

    def stage(self, parent: str, stage: Stage) -> str:
        run = uuid.uuid4().hex
        self._write(event="stage", run=run, parent=parent, **asdict(stage))
        return run

    def log(self, run: str, metrics: Metrics, artifacts: Sequence[Path]) -> None:
        self._write(event="log", run=run, metrics=metrics, artifacts=artifacts)

    def tag(self, run: str, name: str, value: str) -> None:
        self._write(event="tag", run=run, name=name, value=value)

    def end(self, run: str, status: str) -> None:
        self._write(event="end", run=run, status=status)

    def _write(self, **event: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False, default=str)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class MlflowSink:
    """An MLflow server or database, reached at `start`. Any of MLflow's many exceptions may come out of any method."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri = uri
        self._experiment = experiment

    def __str__(self) -> str:
        return "MLflow"  # not the URI, which may hold a password

    def start(self, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)  # failures are said once, by the tracker
        location, written, folder = None, None, None  # a server knows its own
        if self._uri.startswith("sqlite:///"):
            written = Path(self._uri.removeprefix("sqlite:///").partition("?")[0]).absolute().parent
            folder = Path(unquote(str(written)))
            folder.mkdir(parents=True, exist_ok=True)
            location = (folder / "mlartifacts").as_uri()
        self._client = MlflowClient(self._uri)
        if written is not None and written != folder:  # MLflow makes the folder as it is written, too
            with suppress(OSError):
                os.removedirs(written)
        found = self._client.get_experiment_by_name(self._experiment)
        made = found.experiment_id if found else self._client.create_experiment(self._experiment, location)
        self._experiment_id = made
        return self._create(name, tags, params, int(time.time() * 1000))

    def stage(self, parent: str, stage: Stage) -> str:
        tags = {**stage.tags, "mlflow.parentRunId": parent}
        run = self._create(stage.name, tags, stage.params, int((time.time() - stage.seconds) * 1000))
        self.log(run, {**stage.metrics, "seconds": stage.seconds}, stage.artifacts)
        self.end(run, "FINISHED")
        return run

    def log(self, run: str, metrics: Metrics, artifacts: Sequence[Path]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [
            Metric(_clean(name), float(value), now, step)
            for name, series in metrics.items()
            for step, value in _points(series)
        ]
        self._client.log_batch(run, metrics=points)  # which cuts itself to the sizes that servers take
        for path in artifacts:
            self._client.log_artifact(run, str(path))

    def tag(self, run: str, name: str, value: str) -> None:
        self._client.set_tag(run, name, value)

    def end(self, run: str, status: str) -> None:
        self._client.set_terminated(run, status)

    def _create(self, name: str, tags: Mapping[str, str], params: Mapping[str, str], began: int) -> str:
        from mlflow.entities import Param

        made = self._client.create_run(self._experiment_id, start_time=began, tags=dict(tags), run_name=name)
        run = made.info.run_id
        short = []
        for key, value in params.items():
            if len(value) > LONGEST_PARAM:
                file = f"params/{_clean(key).replace('/', '_')}.txt"
                self._client.log_text(run, value, file)
                value = f"({len(value)} characters: see the artifact {file})"
            short.append(Param(_clean(key), value))
        self._client.log_batch(run, params=short)
        return run


class Tracker:
    """One tracked run; made by `open`. As a context manager it ends FINISHED, or FAILED if an exception passes."""

    def __init__(self, sinks: list[Sink], tags: Mapping[str, str]) -> None:
        self._sinks = sinks  # in order of preference; one that fails is dropped
        self._tags = tags
        self.run_id: str | None = None

    @classmethod
    def open(
        cls,
        uri: str | None,
        *,
        experiment: str,
        run_name: str,
        out: Path,
        outputs: Path,
        config: Mapping[str, Any] | None = None,
        tags: Mapping[str, object] | None = None,
        enabled: bool = True,
    ) -> Tracker:
        """Start the parent run.

        Args:
            uri: an MLflow tracking URI; None is the database `outputs/mlflow.db`, with files in `outputs/mlartifacts`.
            out: this run's folder, where `tracking.jsonl` goes if MLflow is away.
            config: the resolved configuration in plain containers, logged as flat dotted parameters.
            tags: of the parent and of every stage (model, sae, task, git_sha, config_hash).
            enabled: False tracks nothing, and every run id is None.
        """
        database = (
            f"sqlite:///{quote(str(outputs.absolute() / 'mlflow.db'), safe='/ #')}"  # a "?" would begin its options
        )
        sinks: list[Sink] = [MlflowSink(uri or database, experiment), JsonlSink(out / "tracking.jsonl")]
        texts = {name: str(value) for name, value in (tags or {}).items()}
        tracker = cls(sinks if enabled else [], texts)
        tracker.run_id = tracker._record(lambda sink: sink.start(run_name, texts, flatten(config or {})))
        return tracker

    def stage(
        self,
        name: str,
        *,
        seconds: float,
        params: Mapping[str, Any] | None = None,
        metrics: Metrics | None = None,
        tags: Mapping[str, object] | None = None,
        artifacts: Sequence[Path] = (),
    ) -> str | None:
        """Record one finished stage or cell as a nested run; returns its id, for `Cell.run_ids`.

        Args:
            seconds: how long it took; also logged as the metric "seconds".
            metrics: slash-named, such as "fac/coverage"; a sequence of floats is logged as a curve, a mapping as points
                of one by their steps.
            tags: beside the run's own and `stage`, such as seed and method.
            artifacts: files to keep, such as the samples as JSONL.
        """
        own = {key: str(value) for key, value in (tags or {}).items()}
        stage = Stage(
            name=name,
            seconds=round(seconds, 3),
            params=flatten(params or {}),
            metrics=metrics or {},
            tags={**self._tags, "stage": name, **own},
            artifacts=artifacts,
        )
        return self._record(lambda sink: sink.stage(self.run_id or "", stage))

    def log(self, *, metrics: Metrics | None = None, artifacts: Sequence[Path] = ()) -> None:
        """Add numbers and files (config.yaml, table.json, table.md, report.html) to the parent run."""
        self._record(lambda sink: sink.log(self.run_id or "", metrics or {}, artifacts))

    def tag(self, name: str, value: str) -> None:
        """Say of the parent run what is known at its end only."""
        self._record(lambda sink: sink.tag(self.run_id or "", name, value))

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._record(lambda sink: sink.end(self.run_id or "", "FINISHED" if kind is None else "FAILED"))

    def _record(self, write: Callable[[Sink], T]) -> T | None:
        while self._sinks:
            try:
                return write(self._sinks[0])
            except Exception as error:  # whatever it is, a run of many hours must not end because of its diary
                failed = self._sinks.pop(0)
                instead = f"the records go to {self._sinks[0]}" if self._sinks else "tracking ends here"
                reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
                log.warning("%s cannot be written (%s); %s, and the run itself goes on.", failed, reason, instead)
        return None


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested containers as dotted keys and texts: {"a": {"b": [1]}} gives {"a.b": "[1]"}."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            flat[f"{prefix}{key}"] = text
    return flat


def _points(series: float | Sequence[float] | Mapping[int, float]) -> Iterable[tuple[int, float]]:
    if isinstance(series, Mapping):
        return series.items()
    return enumerate(series if isinstance(series, Sequence) else [series])


def _clean(name: str) -> str:
    """A name that MLflow takes; `fac/coverage@1.0` becomes `fac/coverage_1.0`."""
    return re.sub(r"[^\w.\- /]", "_", name)[:LONGEST_NAME]
