"""Are the data there? Data sets in files and on the hub, benchmarks, and other files that steps read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nltk

from eval.harness import data_set_of
from experiments.harness.doctor.base import Finding, checked
from experiments.harness.doctor.hub import cached, on_hub
from experiments.harness.doctor.uses import Uses
from fac.data.files import read_rows
from fac.data.hub import hub_name
from fac.data.source import Malformed, Source
from fac.errors import FacError

ROWS_READ = 5  # of every file
CLONES = {"CAA": "git clone https://github.com/nrimsky/CAA"}  # data in repositories, by the folder that a clone makes


def data_sets(uses: Uses, online: bool) -> Iterator[Finding]:
    """Every data set, each once, with all that it is for."""
    repositories: dict[tuple[str, str | None], list[str]] = {}
    in_files: dict[str, dict[str, Source]] = {}
    for key, source in uses.sources.items():
        if source.on_hub and not Path(hub_name(source.paths[0]).id).is_dir():
            repositories.setdefault((hub_name(source.paths[0]).id, source.revision), []).append(key)
        else:
            in_files.setdefault(str(source), {})[key] = source
    for name, held in in_files.items():
        yield from checked(f"data {name}", lambda n=name, h=held: data_files(n, h))
    for (name, revision), keys in repositories.items():
        yield from checked(f"data {name}", lambda n=name, r=revision, k=keys: hub_data(n, r, k, online))


def data_files(name: str, uses: Mapping[str, Source]) -> Iterator[Finding]:
    """Data in files, by the keys they are for: they are there, and the first rows can be read under each key."""
    what, used, counts = f"data {name}", f"for {', '.join(uses)}", []
    for key, source in uses.items():
        try:
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


def lab_data(uses: Uses) -> Iterator[Finding]:
    """Tasks whose data the lab's world draws."""
    if uses.drawn:
        yield Finding("ok", "data", f"{', '.join(uses.drawn)}: drawn from the lab's written world, no files needed")


def benchmarks(uses: Uses, online: bool) -> Iterator[Finding]:
    """What tests read beside their test sets."""
    for key, held in uses.evaluations.items():
        for name in held.benchmarks:
            if not (name == "ifeval" and held.ifeval):
                yield from checked(f"benchmark {name}", lambda n=name, k=key: benchmark(n, k, online))
        if "ifeval" in held.benchmarks:
            yield from rule_data()


def benchmark(name: str, key: str, online: bool) -> Iterator[Finding]:
    """A task of lm-eval: its data on the hub."""
    what, held = f"benchmark {name}", data_set_of(name)
    if held and cached(held[0], None, "dataset") is None:
        loaded = ", ".join(f"'{name}'" for name in held if name)  # lm-eval reads the cache of datasets
        way = f'python -c "import datasets; datasets.load_dataset({loaded})", or leave it out of {key}.benchmarks'
        yield on_hub(what, held[0], None, "dataset", online, way)
    else:
        yield Finding("ok", what, f"{held[0]}, in the hub's cache" if held else "needs no data set of the hub")


def rule_data() -> Iterator[Finding]:
    """What IFEval's rules are checked with."""
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        said = "not here, and some of IFEval's rules are checked with it: the run fetches it, or"
        yield Finding("warning", "nltk's punkt_tab", f"{said} python -m nltk.downloader punkt_tab")


def named_files(uses: Uses) -> Iterator[Finding]:
    """Files that steps read beside data sets."""
    yield from (named_file(key, file) for key, file in uses.files.items())


def named_file(key: str, path: str | Path) -> Finding:
    """Whether a file, or the folder that holds it, is there."""
    file = Path(path).expanduser()
    said = "is there" if file.exists() else f"is not there: set {key} to a file that is"
    return Finding("ok" if file.exists() else "missing", f"file {file}", f"{said} ({key})")
