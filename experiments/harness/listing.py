"""What there is: experiments, methods, metrics, models and tasks, found where they lie, without a list of their names.

An experiment is a module of experiments/ that defines EXPERIMENT, any object with a `name` and, where it has them:

- `paper`: what it makes of the paper: "table3", or ("table9", "figure4"); each of these names chooses it, too;
- `options`: a frozen dataclass of what can be set in the group `experiment`, with its defaults;
- `short`: names of options that may be given without their group: ("budget",) lets budget=500 stand for
  experiment.budget=500;
- `settings`: other keys that it sets, over its scale's: {"seeds.training": (42, 43, 44, 45, 46)};
- `data`: the roles of data sets of one's own that it reads: ("anchor", "seed"), or with what differs from
  conf/data/source.yaml: {"corpus": {"path": None}} need not be given;
- `defaults`: entries for its defaults list in Hydra: ({"override /tasks": "${scale}_heads"},).
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

import experiments as package
from fac.errors import FacError
from fac.settings import UNSET

DEFINES = re.compile(r"^EXPERIMENT\b", re.MULTILINE)
PAPER_NAME = re.compile(r"(table|figure)([1-9]\d*)")
GROUP = "experiment"
CONF = Path(__file__).resolve().parents[2] / "conf"


def experiments() -> dict[str, Any]:
    """All experiments by name, sorted. Raises FacError for a module that cannot be imported, and for a name twice."""
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.ispkg or not _defines_experiment(info):
            continue
        module = f"{package.__name__}.{info.name}"
        try:
            experiment = importlib.import_module(module).EXPERIMENT
        except Exception as error:  # whatever a module of one's own raises
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise FacError(f"The experiment {module} cannot be imported ({reason}): correct it.") from error
        if experiment.name in found:
            raise FacError(f"{places[experiment.name]} and {module} are both called {experiment.name}: rename one.")
        found[experiment.name], places[experiment.name] = experiment, module
    return dict(sorted(found.items()))


def of_paper() -> dict[str, str]:
    """The name of the experiment that makes each table and figure of the paper, in the paper's order.

    Raises FacError if two experiments claim the same one, and for a claim that is no name of the paper.
    """
    found: dict[str, str] = {}
    for name, experiment in experiments().items():
        for claimed in claims(experiment):
            if not is_of_paper(claimed):
                raise FacError(f"The experiment {name} claims {claimed!r} of the paper: write table9 or figure4.")
            if claimed in found:
                raise FacError(f"The experiments {found[claimed]} and {name} both claim {claimed}: leave it to one.")
            found[claimed] = name
    return dict(sorted(found.items(), key=lambda entry: paper_order(entry[0])))


def claims(experiment: Any) -> tuple[str, ...]:
    """The tables and figures of the paper that an experiment makes."""
    claimed = getattr(experiment, "paper", None) or ()
    return (claimed,) if isinstance(claimed, str) else tuple(claimed)


def paper_order(name: str) -> tuple[bool, int]:
    """Sorts names of the paper: its tables by number, then its figures."""
    kind, number = _named(name)
    return kind == "figure", int(number)


def is_of_paper(name: str) -> bool:
    """Whether this is how a table or figure of the paper is called, such as "table9"."""
    return PAPER_NAME.fullmatch(name) is not None


def title_of_paper(name: str) -> str:
    """A name of the paper as it is told: "table9" is "Table 9"."""
    kind, number = _named(name)
    return f"{kind.capitalize()} {number}"


def _named(name: str) -> tuple[str, str]:
    found = PAPER_NAME.fullmatch(name)
    assert found is not None, name
    return found[1], found[2]


def register() -> dict[str, Any]:
    """Make every experiment an option of Hydra's group `experiment`, by its name and by what it makes of the paper.

    Returns the experiments by these names.
    """
    own = experiments()
    found = {**own, **{claimed: own[name] for claimed, name in of_paper().items()}}
    for name, experiment in found.items():
        ConfigStore.instance().store(name, node_of(experiment), group=GROUP, package="_global_")
    return found


def node_of(experiment: Any) -> dict[str, Any]:
    """What choosing an experiment adds to the configuration, as a config file would say it."""
    data = getattr(experiment, "data", None) or {}
    roles = data if isinstance(data, Mapping) else {role: {} for role in data}
    sources = [{f"/data@data.{role}": "source"} for role in roles]
    node: dict[str, Any] = {"defaults": [*sources, "_self_", *(getattr(experiment, "defaults", None) or ())]}
    node[GROUP] = {"name": experiment.name, **_defaults_of(getattr(experiment, "options", None))}
    changed = {**(getattr(experiment, "settings", None) or {})}
    for key, value in [*((f"data.{role}", values) for role, values in roles.items() if values), *changed.items()]:
        *groups, last = key.split(".")
        place = node
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = plain(value)
    return node


def plain(value: Any) -> Any:
    """A value as a configuration file holds it: lists for tuples, texts for paths."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def experiment_lines() -> str:
    """One line for each experiment: its name and what it is."""
    return _lines({name: summary(experiment) for name, experiment in experiments().items()})


def paper_lines() -> str:
    """One line for each table and figure of the paper that is made: its name, the experiment and what that is."""
    found = experiments()
    made = {claimed: (name, summary(found[name])) for claimed, name in of_paper().items()}
    width = max((len(name) for name, _ in made.values()), default=0)
    return _lines({claimed: f"{name:{width}}  {told}" for claimed, (name, told) in made.items()})


def method_lines() -> str:
    """One line for each method of synthesis: its name and what it is."""
    from fac.synthesis.methods import METHODS

    return _lines({name: summary(method) for name, method in METHODS.items()})


def metric_lines() -> str:
    """One line for each diversity metric: its name, what it is, of what, which way it points and its source."""
    from fac.diversity.metrics import METRICS

    return _lines({name: metric.told for name, metric in METRICS.items()})


def model_lines() -> str:
    """One line for each model of conf/model: its name, and what its file says of it in the first line."""
    files = sorted((CONF / "model").glob("*.yaml"))
    heads = {file.stem: file.read_text(encoding="utf-8").partition("\n")[0] for file in files}
    return _lines({name: head.partition(": ")[2] if head.startswith("#") else "" for name, head in heads.items()})


def task_lines() -> str:
    """One line for each task: its name, and the number that its test gives."""
    from experiments.tasks import TASKS

    return _lines({name: f"{task.title}, {task.metric_title}" for name, task in TASKS.items()})


def summary(thing: Any) -> str:
    """What an experiment or method is: its `help`, its `title`, or the first line of its own docstring."""
    told = getattr(thing, "help", None) or getattr(thing, "title", None)
    if told is None:
        told = thing.__doc__ if callable(thing) else getattr(thing, "__dict__", {}).get("__doc__")
    return str(told or "").strip().partition("\n")[0]


def _defines_experiment(info: pkgutil.ModuleInfo) -> bool:
    """Whether a module defines EXPERIMENT, without importing it: what lies beside the experiments may be heavy."""
    spec = info.module_finder.find_spec(info.name, None)  # type: ignore[call-arg]
    origin = spec.origin if spec else None
    return origin is not None and origin.endswith(".py") and bool(DEFINES.search(Path(origin).read_text("utf-8")))


def _defaults_of(options: type | None) -> dict[str, Any]:
    if options is None:
        return {}
    values: dict[str, Any] = {}
    for field in fields(options):
        if field.default is not MISSING:
            values[field.name] = plain(field.default)
        elif field.default_factory is not MISSING:
            values[field.name] = plain(field.default_factory())
        else:
            values[field.name] = UNSET
    return values


def _lines(told: Mapping[str, str]) -> str:
    width = max(map(len, told), default=0)
    return "\n".join(f"{name:{width}}  {text}".rstrip() for name, text in told.items())
