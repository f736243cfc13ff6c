"""Are the data there? Data sets in files and on the hub, and what the tests of the tasks read beside them.

Knows: where each would come from, and how one gets it. Does not know: how many texts they hold (`workload`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nltk
from omegaconf import DictConfig, OmegaConf

from eval.alpaca import HUB_FILE, HUB_REPOSITORY
from eval.harness import data_set_of
from experiments import config
from experiments.doctor import workload
from experiments.doctor.base import Finding, checked
from experiments.doctor.hub import cached, on_hub
from experiments.steering import files_of
from experiments.tasks import TASKS
from experiments.tasks.data import Sources, origin_of
from experiments.tasks.instruction import Evaluation
from fac.data.files import read_rows
from fac.data.hub import hub_name, is_hub
from fac.data.source import Malformed
from fac.errors import FacError

ROWS_READ = 5  # of every file
CLONES = {"CAA": "git clone https://github.com/nrimsky/CAA"}  # data in repositories, by the folder that a clone makes


def data_sets(cfg: DictConfig, online: bool) -> Iterator[Finding]:
    """Every data set that the configuration names, each once, with all that it is for."""
    repositories: dict[tuple[str, str | None], list[str]] = {}
    in_files: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, values in workload.sources(cfg):
        named = values["path"]
        path = Path(", ".join(map(str, named)) if isinstance(named, list) else str(named))
        if is_hub(path) and not Path(hub_name(path).id).is_dir():
            repositories.setdefault((hub_name(path).id, values.get("revision")), []).append(key)
        else:
            in_files.setdefault(str(path), {})[key] = values
    for name, uses in in_files.items():
        yield from checked(f"data {name}", lambda n=name, u=uses: data_files(n, u))
    for (name, revision), keys in repositories.items():
        yield from checked(f"data {name}", lambda n=name, r=revision, k=keys: hub_data(n, r, k, online))


def data_files(name: str, uses: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Data in files, by the keys they are for: they are there, and the first rows can be read under each key."""
    what, used, counts = f"data {name}", f"for {', '.join(uses)}", []
    for key, values in uses.items():
        try:
            source = workload.as_source(key, values)
            rows = list(read_rows(source, of_each=ROWS_READ))
        except FacError as error:
            command = CLONES.get(Path(name).parts[0])
            said = str(error).replace(f"data.{key.rpartition('.')[2]}.", f"{key}.")
            if command and not Path(name).exists():
                said = f"not here: {command}, or name a file with {key}.path=FILE"
            yield Finding("missing", what, f"{said} ({used})")
            return
        broken = [f"{row.place}: {row.values}" for row in rows if isinstance(row.values, Malformed)]
        if not rows:
            yield Finding("missing", what, f"{name} has no rows: name a file that has with {key}.path=FILE")
            return
        if broken and source.on_error == "fail":
            yield Finding("missing", what, f"{broken[0]}: mend it, or set {key}.on_error=skip")
            return
        counts.append(len(rows))
    yield Finding("ok", what, f"the first {min(counts)} rows can be read ({used})")


def hub_data(name: str, revision: str | None, keys: Sequence[str], online: bool) -> Iterator[Finding]:
    """A data set of the hub: in its cache, or there for the asking."""
    what, used = f"data {name}", f"for {', '.join(keys)}"
    if cached(name, None, "dataset") is not None:
        yield Finding("ok", what, f"in the hub's cache, {used}")
        return
    way = f"hf download --repo-type dataset {name}, or give files instead, {keys[0]}.path=FILE"
    found = on_hub(what, name, revision, "dataset", online, way)
    yield Finding(found.status, what, f"{found.said} ({used})")


def lab_data(cfg: DictConfig) -> Iterator[Finding]:
    """Tasks whose data the lab's world draws."""
    drawn = [load.name for load in workload.loads(cfg) if load.from_lab]
    if drawn:
        yield Finding("ok", "data", f"{', '.join(drawn)}: drawn from the lab's written world, no files needed")


def beside_tests(cfg: DictConfig, online: bool) -> Iterator[Finding]:
    """What the tests of the tasks read beside their test sets: benchmarks."""
    for task in workload.tasks(cfg) if "tasks" in cfg else ():
        origin = origin_of(TASKS[task], config.group(cfg, f"tasks.{task}"))
        if isinstance(origin, Sources) and isinstance(held := origin.evaluation, Evaluation):
            key = f"tasks.{task}.evaluation"
            for name in held.benchmarks:
                own = held.ifeval if name == "ifeval" else None
                yield from checked(f"benchmark {name}", lambda n=name, o=own, k=key: benchmark(n, o, k, online))


def calibration(key: str, value: str | None, online: bool) -> Iterator[Finding]:
    """The file that AlpacaEval's length control (LC) is fitted with."""
    if value is None:
        return
    if value != "hub":
        yield named_file(key, value)
        return
    from huggingface_hub import try_to_load_from_cache

    what = f"file {HUB_FILE}"
    if isinstance(try_to_load_from_cache(HUB_REPOSITORY, HUB_FILE, repo_type="dataset"), str):
        yield Finding("ok", what, f"in the hub's cache, for {key}")
        return
    way = f"hf download --repo-type dataset {HUB_REPOSITORY} {HUB_FILE}, or {key}=FILE"
    yield on_hub(what, HUB_REPOSITORY, None, "dataset", online, way)


def benchmark(name: str, file: str | None, key: str, online: bool) -> Iterator[Finding]:
    """A task of lm-eval: its data, from `file` or the hub, and what its metrics need."""
    what = f"benchmark {name}"
    held = None if file else data_set_of(name)
    if file:
        yield named_file(f"{key}.{name}", file)
    elif held and cached(held[0], None, "dataset") is None:
        loaded = ", ".join(f"'{name}'" for name in held if name)  # lm-eval reads the cache of datasets
        way = f'python -c "import datasets; datasets.load_dataset({loaded})", or leave it out of {key}.benchmarks'
        yield on_hub(what, held[0], None, "dataset", online, way)
    else:
        yield Finding("ok", what, f"{held[0]}, in the hub's cache" if held else "needs no data set of the hub")
    if name == "ifeval":
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError:
            said = "not here, and some of IFEval's rules are checked with it: the run fetches it, or"
            yield Finding("warning", "nltk's punkt_tab", f"{said} python -m nltk.downloader punkt_tab")


def named_files(cfg: DictConfig, online: bool) -> Iterator[Finding]:
    """Files that an experiment names by keys of its own."""
    if cfg.experiment.name == "alpaca_eval":
        given = {key: cfg[key] for key in ("annotations", "outputs", "reference") if cfg[key] is not None}
        yield from (named_file(key, path) for key, path in given.items())
        if given.keys() not in ({"annotations"}, {"outputs", "reference"}):
            yield Finding("missing", "files", "set annotations=FILE, or outputs=FILE and reference=FILE")
        yield from calibration("calibration", cfg.calibration, online)
    if cfg.experiment.name == "steering" and not OmegaConf.is_missing(cfg, "behavior"):
        folders = [cfg.behavior] if isinstance(cfg.behavior, str) else cfg.behavior
        for role, path in ((role, file) for folder in folders for role, file in files_of(folder).items()):
            if cfg.data[role].path is None:
                yield named_file(f"data.{role}.path", path)


def named_file(key: str, path: str | Path) -> Finding:
    """Whether a file is there."""
    file = Path(path).expanduser()
    said = "is there" if file.is_file() else f"is not there: set {key} to a file that is"
    return Finding("ok" if file.is_file() else "missing", f"file {file}", f"{said} ({key})")
