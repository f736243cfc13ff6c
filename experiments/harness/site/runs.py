"""Finished runs, found by the files that they leave in their folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from experiments.harness.experiment import Record
from experiments.harness.listing import is_of_paper, paper_order
from experiments.harness.report import kept
from experiments.harness.report.kept import PAGE, Kept
from experiments.harness.results import LAB_LABEL, STEPS, Table, short_commit
from fac.errors import FacError

TABLE, CONFIG, RECORDS, REPORT = "table.json", "config.yaml", "records.json", "report.html"
LEAVES = (TABLE, CONFIG, RECORDS, PAGE, REPORT)  # what a run leaves, the table last


@dataclass(frozen=True)
class Run:
    """One finished run."""

    name: str  # its folder, as seen from the folder of outputs
    folder: Path
    tables: tuple[Table, ...]  # that of its table.json first
    config: Mapping[str, Any]
    kept: Kept
    records: tuple[Record, ...]
    lacks: tuple[str, ...]  # what its folder does not hold, a sentence each

    @property
    def experiment(self) -> str:
        return str(self.config["experiment"]["name"])

    @property
    def model(self) -> str:
        return str(self.config["model"]["name"])

    @property
    def slug(self) -> str:
        """Its name as that of a file."""
        return "-".join(
            "".join(c if c.isalnum() or c in "_.-" else "-" for c in part) for part in Path(self.name).parts
        )

    @property
    def label(self) -> str:
        """What has to be known before any number is read."""
        return self.tables[0].told()

    @cached_property
    def paper(self) -> tuple[str, ...]:
        """What it makes of the paper; of a run that did not say, the table most of whose numbers stand in its own."""
        found = self.kept.paper
        if self.kept.warnings is None:
            printed = [cell.paper for cell in self.tables[0].cells if cell.paper]
            told = Counter(number.place.partition("/")[0] or _name_of(number.source) for number in printed)
            found = tuple(name for name, _ in told.most_common(1))
        return tuple(sorted(filter(is_of_paper, found), key=paper_order))

    @cached_property
    def commits(self) -> tuple[str, ...]:
        """Of the code that computed its steps, and of that which wrote it, if it is another; each once."""
        made = self.tables[0].provenance
        found = [origin["commit"] for origin in made.get(STEPS, ())] or [made.get("git_sha")]
        return tuple(dict.fromkeys(short_commit(commit) for commit in found))

    @cached_property
    def over(self) -> str:
        """What its numbers were had again over: the highest of worlds, generations and training seeds."""
        world = "world" if self.label == LAB_LABEL else "draw of the data"
        trials = [record.trial for record in self.records]
        if len({trial.data_seed for trial in trials}) > 1:
            return "worlds" if world == "world" else "draws of the data"
        if len({trial.generation for trial in trials}) > 1:
            return f"generations of one {world}"
        return f"training seeds of one {world}" if trials else "seeds"

    @property
    def chooses(self) -> bool:
        """Whether it is scored on validation data, to choose settings by: no result."""
        return self.config["experiment"].get("test") == "validation"

    @property
    def store(self) -> Path | None:
        """The folder of its steps; None if it is not there."""
        told = Path(self.config["paths"]["store"]).expanduser()
        places = [told] if told.is_absolute() else [at / told for at in (Path.cwd(), *self.folder.parents)]
        return next((place for place in places if place.is_dir()), None)


def find(outputs: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """All finished runs below these folders in the order of their names, and what was left out, a sentence each.

    Raises FacError for a folder that is not there.
    """
    runs: list[Run] = []
    left_out: list[str] = []
    for root in outputs:
        if not root.is_dir():
            raise FacError(f"There is no folder {root}: name that of the runs with outputs=DIR.")
        for folder in _folders(root):
            name = str(folder.relative_to(root)) if folder != root else root.absolute().name
            try:
                run = _read(name, folder)
            except (FacError, OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                left_out.append(f"{name} is left out: {reason.rstrip('.')}.")
                continue
            runs += [run] if run is not None else []
    return _named_apart(sorted(runs, key=lambda run: run.name)), left_out


def _folders(root: Path) -> list[Path]:
    """Folders in which a run may lie; those of stores, sites and hidden ones are not looked into."""
    found = []
    for place, folders, files in os.walk(root):
        here, empty = Path(place), not (files or folders)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "store" and not _is_store(here / f))
        if set(files) & set(LEAVES) or empty:
            found.append(here)
    return found


def _is_store(folder: Path) -> bool:
    """Whether steps lie here: NAME/KEY/stage.json; or this is a site of ours."""
    return (folder / ".runs").is_dir() or (folder / "site.js").is_file()


def _read(name: str, folder: Path) -> Run | None:
    """One run. Raises FacError where it is half there, and what its files raise where they cannot be read."""
    there = [leaf for leaf in LEAVES if (folder / leaf).is_file()]
    if TABLE not in there:
        raise FacError(f"it has no {TABLE}, so its run has not finished: run it again, and it continues")
    if CONFIG not in there:
        if not set(there) - {TABLE}:
            return None  # a table of something else
        raise FacError(f"it has no {CONFIG}: run it again")
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    for keys in (("experiment", "name"), ("model", "name"), ("paths", "store")):
        if (
            not isinstance(config, Mapping)
            or not isinstance(config.get(keys[0]), Mapping)
            or keys[1] not in config[keys[0]]
        ):
            raise FacError(f"its {CONFIG} does not say {'.'.join(keys)}: run it again")
    lacks = []
    told = Kept()
    if PAGE in there:
        told = kept.load((folder / PAGE).read_text(encoding="utf-8"))
    else:
        lacks.append("It was written by a fac that kept no figures and facts: they stand in its own page only.")
    names = list(told.tables) or ["table", *sorted(p.stem for p in folder.glob("*.json") if _is_table(p))]
    tables = tuple(Table.from_json((folder / f"{n}.json").read_text(encoding="utf-8")) for n in dict.fromkeys(names))
    found: list[Record] = []
    if RECORDS in there:
        found = [Record.from_json(one) for one in json.loads((folder / RECORDS).read_text(encoding="utf-8"))]
    else:
        lacks.append("It has no records of trials, so that none of its features are shown.")
    run = Run(name, folder, tables, config, told, tuple(found), tuple(lacks))
    if found and run.store is None:
        lacks.append(f"Its store {config['paths']['store']} is not here, so that none of its features are shown.")
    return replace(run, lacks=tuple(lacks))


def _is_table(path: Path) -> bool:
    """Whether a JSON file of an old run, which does not name its tables, is one of them."""
    if path.name in (TABLE, RECORDS, PAGE):
        return False
    text = path.read_text(encoding="utf-8")
    return '"cells"' in text and '"config_hash"' in text


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with names of which no two are the same."""
    seen: dict[str, int] = {}
    told = []
    for run in runs:
        seen[run.slug] = seen.get(run.slug, 0) + 1
        again = seen[run.slug]
        told.append(run if again == 1 else replace(run, name=f"{run.name} {again}"))
    return told


def _name_of(source: str) -> str:
    """ "arXiv 2602.10388v4, Table 1" is of "table1"."""
    last = source.partition(" (")[0].rpartition(", ")[2]
    return last.replace(" ", "").replace("Fig.", "Figure").lower()
