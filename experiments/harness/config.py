"""The configuration of one run: composed by Hydra, typed at once, and asked in the end for what nobody read.

    run = read_config(["experiment=main_results", "model=lab_qwen"])
    run.tasks["toxicity"].budget, run.seeds.training, run.with_({"synthesis.temperature": 0.4})

Everything is checked when it is made; whoever reads a setting marks it as read by reading it. So the list of what an
experiment reads is its own code, and what was given on the command line and reaches nothing is refused (`check_read`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig

from experiments.harness import sections
from experiments.harness.keys import is_in, is_within, leaves, like_named, named, no_such_key, same_end
from experiments.harness.listing import CONF, GROUP, experiments, plain
from experiments.harness.overrides import (
    REFERS_TO,
    all_keys,
    as_written,
    composed,
    given_keys,
    in_full,
    no_such_option,
    resolved,
    texts,
)
from experiments.tasks import TASKS
from experiments.tasks.base import Task
from fac.data.mixture import Part
from fac.data.source import Source
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, Thresholds
from fac.llm.engines import LLMConfig
from fac.sae.ref import SUFFIXES, SaeRef
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.settings import Problems, SettingsError, checked, typed
from fac.synthesis.settings import Settings as SynthesisSettings

S = TypeVar("S", bound=sections.Section)
# Where and how a run goes, and choices that set keys in several groups.
ALWAYS = (
    *("backend", "dry_run", "experiment.name", "default_experiment", "hydra", "out", "paths", "ray", "tracking"),
    "workers",
)
CHOICES = ("experiment", "parity", "scale", "tasks")
BACKENDS = ("local", "ray")
VALUES = {  # keys that stand alone, with their types
    "scale": str,
    "default_experiment": str,
    "parity": str,
    "out": str,
    "backend": str,
    "workers": int | None,
    "dry_run": bool,
    "families": tuple[str, ...],
}
GROUPS = (
    *("model", "sae", "features", "interpret", "thresholds", "synthesis", "tasks", "seeds", "llm", "annotator"),
    *("data", GROUP, "paths", "ray", "tracking"),
)


def read_config(settings: Sequence[str], kind: type[RunConfig] | None = None) -> RunConfig:
    """The configuration with these settings of the command line; `kind` is a class of its own for it.

    Raises SettingsError with a sentence for each of them that will not do, and for every value that is not set.
    """
    problems, settings = Problems(), in_full(settings)
    cfg = composed(settings, problems)
    return (kind or RunConfig)(as_written(cfg), given_keys(settings), options_of(cfg), problems)


def options_of(cfg: DictConfig) -> type | None:
    """The dataclass of the options of the experiment that the configuration names; None where it has none."""
    return getattr(experiments()[cfg.experiment.name], "options", None)


class RunConfig:
    """All settings of a run, typed. Raises SettingsError for all that will not do."""

    def __init__(
        self,
        written: Mapping[str, Any],
        given: Mapping[str, str],
        options: type | None,
        problems: Problems | None = None,
        *,
        read: set[str] | None = None,
        hidden: Iterable[str] = (),
    ) -> None:
        """`written` is the configuration, with interpolations; `given` are the settings of the command line, KEY ->
        KEY=VALUE; `options` is the experiment's own dataclass; `problems` are what is known to be wrong already.

        `read` is the set that notes what is read, shared with the runs made of this one; keys and groups in `hidden`
        are not those of the command line here, and not noted.
        """
        self._written, self._given, self._options = written, dict(given), options
        self._read: set[str] = set() if read is None else read
        self._hidden = tuple(hidden)
        self._noted_here: set[str] = set()  # what another run has read may refer to other keys in this one
        problems = problems or Problems()
        self._values = resolved(sections.under_its_own_name(written, given), problems)
        self._typed: dict[str, Any] = {}
        self._others: dict[object, RunConfig] = {}  # made of this one, by what they change
        self._check(problems)
        problems.check()

    # Settings

    @property
    def scale(self) -> str:
        return self._typed["scale"]

    @property
    def families(self) -> tuple[str, ...]:
        """The models of this scale (names of conf/model) that experiments on several models take."""
        return self._noted("families")

    @property
    def model(self) -> sections.ModelConfig:
        return self._typed["model"]

    @property
    def sae(self) -> SaeRef | TrainSettings | RecipeSettings:
        """The SAE that is named, or how to train one. Raises FacError where none is, or none is there."""
        self._note("sae")
        values = self._values["sae"]
        if values["train"] is not None:
            if values["path"] or values["release"]:
                raise FacError(
                    "An SAE is named and one is to be trained: leave out sae=train, or sae.path and sae.release."
                )
            return self._typed["sae.train"]
        if values["release"]:
            if not values["id"]:
                raise FacError(f"sae.release={values['release']} holds several SAEs: name one of them with sae.id.")
            return SaeRef(None, values["release"], values["id"])
        if values["path"] is None:
            raise FacError(f"No SAE is named for {self._values['model']['path']}: set sae.path=DIR, or sae=train.")
        path = sections.local(str(values["path"]))
        self._check_there(path)
        return SaeRef(path, sae_id=values["id"])

    def _check_there(self, sae: str) -> None:
        """Raise FacError if the file or folder of an SAE is not there."""
        if sae.endswith(SUFFIXES) and not Path(sae).is_file():
            raise FacError(f"There is no SAE checkpoint {sae}: set sae.path to the file, or to hub:OWNER/REPOSITORY.")
        if sae.startswith(("/", ".")) and not Path(sae).exists():
            raise FacError(f"There is no SAE folder {sae}: set sae.path to a SAELens folder, or use sae=train.")

    @property
    def sae_layer(self) -> int | None:
        """The layer that is read; None: the one that the SAE says, or half the model's depth."""
        self._note("sae.layer")
        return self._typed["sae.layer"]

    @property
    def sae_texts(self) -> Mapping[str, Part]:
        """What an SAE is trained on in place of the anchor's texts, by name; nothing where those will do."""
        self._note("sae.texts")
        return self._typed["sae.texts"]

    @property
    def features(self) -> FeatureSettings:
        return self._noted("features")

    @property
    def interpret(self) -> InterpretSettings:
        """The group `interpret`, with seeds.annotation as its seed."""
        self._note("seeds.annotation")
        return self._noted("interpret")

    @property
    def thresholds(self) -> Thresholds:
        return self._noted("thresholds")

    def synthesis(self, task: str, seed: int | None = None) -> SynthesisSettings:
        """The group `synthesis` for a task, with its own max_new_tokens; `seed` None: seeds.generation, else unread."""
        self._note("synthesis", f"tasks.{task}.max_new_tokens")
        seed, length = self.seeds.generation if seed is None else seed, self._values["tasks"][task]["max_new_tokens"]
        return sections.synthesis_of(self._values["synthesis"], seed, length)

    def writing(self, max_new_tokens: int) -> SynthesisSettings:
        """The group `synthesis` for texts of no task, of so many tokens."""
        self._note("synthesis")
        return sections.synthesis_of(self._values["synthesis"], self.seeds.generation, max_new_tokens)

    @property
    def tasks(self) -> Mapping[str, sections.TaskConfig]:
        return self._typed["tasks"]

    def task(self, name: str) -> Task:
        """A task as it is tested in this run: some differ on the lab's examples."""
        task = TASKS[name]
        return replace(task, **task.in_lab) if self.tasks[name].sizes is not None else task

    @property
    def seeds(self) -> sections.Seeds:
        return self._typed["seeds"]

    @property
    def llms(self) -> LLMConfig:
        """Who writes and who annotates: the groups `llm` and `annotator`."""
        self._note("llm", "annotator")
        return self._typed["llms"]

    @property
    def data(self) -> Mapping[str, Source]:
        """Data sets of one's own, by role; a role whose path is null is not among them."""
        return _Roles(self._typed["data"], self._note)

    @property
    def parts(self) -> Mapping[str, Part]:
        """The data sets of data.parts, by name."""
        self._note("data.parts")
        return self._typed["parts"]

    @property
    def experiment(self) -> Any:
        """The options of the experiment, its own dataclass; None where it has none."""
        self._note(GROUP)
        return self._typed[GROUP]

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self._values[GROUP]["name"]

    @property
    def out(self) -> Path:
        """The folder of the results."""
        return Path(self._typed["out"]).expanduser().absolute()

    @property
    def paths(self) -> sections.Paths:
        return self._typed["paths"]

    @property
    def workers(self) -> int | None:
        """Processes at a time; None: one per core, or one per GPU."""
        return self._typed["workers"]

    @property
    def backend(self) -> str:
        """Where steps run that need not run in this process: one of `BACKENDS`."""
        return self._typed["backend"]

    @property
    def ray(self) -> sections.Ray:
        return self._typed["ray"]

    @property
    def dry_run(self) -> bool:
        return self._typed["dry_run"]

    @property
    def tracking(self) -> sections.Tracking:
        return self._typed["tracking"]

    @property
    def parity(self) -> str:
        """Which file of conf/parity was chosen; its switches are keys of other groups."""
        return self._typed["parity"]

    @property
    def values(self) -> Mapping[str, Any]:
        """The whole configuration as plain containers, not to be changed; looking at it marks nothing as read."""
        return self._values

    def value(self, key: str) -> Any:
        """The plain value of a dotted key, marked as read."""
        self._note(key)
        found: Any = self._values
        for part in key.split("."):
            found = found[part]
        return found

    def is_given(self, key: str) -> bool:
        """Whether the command line sets this very key."""
        return key in self._given

    # Runs like this one

    def with_(self, changes: Mapping[str, Any]) -> RunConfig:
        """The run with other values for some dotted keys, checked as on the command line.

        What is read of it counts as read of this run, but for the keys that it changes. Raises SettingsError.
        """
        if not changes:
            return self
        made = tuple(sorted((key, repr(value)) for key, value in changes.items()))
        if made not in self._others:
            self._others[made] = self._changed(changes)
        return self._others[made]

    def _changed(self, changes: Mapping[str, Any]) -> RunConfig:
        written, problems = copy.deepcopy(dict(self._written)), Problems()
        known = all_keys(written)
        for key, value in changes.items():
            if key in known:
                *groups, last = key.split(".")
                functools.reduce(lambda held, part: held[part], groups, written)[last] = plain(value)
            else:
                problems.add(no_such_key(key, known))
        changed = {key: f"{key}={value}" for key, value in changes.items()}
        hidden = (*self._hidden, *changes)
        return type(self)(written, self._given | changed, self._options, problems, read=self._read, hidden=hidden)

    def for_model(self, name: str) -> RunConfig:
        """The run with another model of conf/model, for experiments on several.

        The model that the run chose (model=NAME) is taken with its overrides, any other as its file says. The group
        `sae` holds for all: sae=pretrained is each model's own, sae=train trains one for each. Raises FacError for a
        name that has no file, and where `sae` names one SAE (sae.path, sae.release) for several models.
        """
        chosen = self._values["model"]["name"]
        if name == chosen or (name == self._written["model"]["name"] and sections.path_of(name) is None):
            return self  # "local" is whatever model.path says
        if name not in self._others:
            self._others[name] = self._on_model(name, chosen)
        return self._others[name]

    def for_writer(self, name: str) -> RunConfig:
        """The run as `name` writes in it: a model of conf/model with the run's engine, or an engine of conf/llm."""
        if not (CONF / "llm" / f"{name}.yaml").is_file():
            return self.for_model(name)
        if ("llm", name) not in self._others:
            engine = as_written(composed([f"experiment={self.name}", f"llm={name}"]))["llm"]
            own = {key: setting for key, setting in self._given.items() if not is_within(key, ["llm"])}
            written, hidden = {**self._written, "llm": engine}, (*self._hidden, "llm")
            made = type(self)(written, own, self._options, read=self._read, hidden=hidden)
            self._others["llm", name] = made
        return self._others["llm", name]

    def _on_model(self, name: str, chosen: str) -> RunConfig:
        sae = self._values["sae"]
        if sae["release"] or (sae["path"] and "${" not in str(self._written["sae"]["path"])):
            raise FacError(
                f"sae.path and sae.release name one SAE, but {chosen} and {name} need one each: leave them out, set "
                f"model.sae=DIR for {chosen}, or train one for each model with sae=train."
            )
        written = {**self._written, "model": self._model_named(name)}
        own = {key: setting for key, setting in self._given.items() if not is_within(key, ["model"])}
        return type(self)(written, own, self._options, read=self._read, hidden=(*self._hidden, "model"))

    def _model_named(self, name: str) -> dict[str, Any]:
        file = CONF / "model" / f"{name}.yaml"
        if file.is_file():
            return yaml.safe_load(file.read_text(encoding="utf-8"))
        searched = [setting for setting in self._given.values() if setting.startswith("hydra.searchpath")]
        if not searched:
            known = (other.stem for other in file.parent.glob("*.yaml"))
            raise FacError(no_such_option("model", name, known, self.scale))
        return as_written(composed([f"experiment={self.name}", f"model={name}", *searched]))["model"]

    # What nobody read

    def check_read(self) -> None:
        """Raise SettingsError if the command line gave settings that nothing has read by now, a sentence for each.

        Called when an experiment has planned. Choices, where results go, and what is set to null are let pass.
        """
        unread = []
        for key, setting in self._given.items():
            name = key.replace("/", ".")  # of hydra/launcher
            if setting.endswith("=null") or key in CHOICES or is_within(name, [*ALWAYS, *self._read]):
                continue
            read = [name for name in leaves(self._values) if name in self._read]
            others = same_end(key, read) or like_named(key, read)
            instead = f", or set {named(others)}" if others else ""
            unread.append(
                f"Nothing in this run reads {key}, so {setting} would change no number: leave it out{instead}."
            )
        if unread:
            raise SettingsError(unread)

    def _note(self, *keys: str) -> None:
        """All values at these keys and in these groups are read, and what they refer to, but for hidden ones."""
        for name, refers_to in self._leaves.items():
            if name not in self._noted_here and is_in(name, keys):
                self._noted_here.add(name)
                self._read.add(name)
                self._note(*refers_to)

    @cached_property
    def _leaves(self) -> dict[str, list[str]]:
        """The keys of all values that are not hidden, each with the keys that its interpolations name."""
        refers = {name: REFERS_TO.findall(text) for name, text in texts(self._written)}
        return {name: refers.get(name, []) for name in leaves(self._values) if not is_in(name, self._hidden)}

    def _noted(self, key: str) -> Any:
        self._note(key)
        return self._typed[key]

    # Types

    def _check(self, problems: Problems) -> None:
        """Type every group and value; what will not do is a problem."""
        values = self._values
        for key in sorted(values.keys() - {*GROUPS, *VALUES}):
            problems.add(no_such_key(key, [name for name in all_keys(self._written) if not is_within(name, [key])]))
        for key, kind in VALUES.items():
            with problems.collected():
                self._typed[key] = _value(values, key, kind)
        if (workers := self._typed.get("workers")) is not None and workers < 1:
            problems.add(f"workers={workers} will not do: it must be above 0.")
        if (backend := self._typed.get("backend", "local")) not in BACKENDS:
            problems.add(f"backend={backend} will not do: choose one of {', '.join(BACKENDS)}.")
        held: dict[str, dict[str, Any]] = {}
        for name in GROUPS:
            with problems.collected():
                held[name] = sections.group(values, name)
        seeds = held.get("seeds", {})
        for key, (name, make) in {
            "model": ("model", lambda told: self._watched(sections.model_of(told, self._given), "model")),
            "sae.layer": ("sae", lambda told: checked(int | None, told.get("layer"), "sae.layer")),
            "sae.train": ("sae", lambda told: told.get("train") and sections.sae_training(_training(told))),
            "features": ("features", sections.features_of),
            "interpret": ("interpret", lambda told: sections.interpret_of(told, seeds.get("annotation", 0))),
            "thresholds": ("thresholds", sections.thresholds_of),
            "synthesis": ("synthesis", lambda told: sections.synthesis_of(told, seeds.get("generation", 0))),
            "seeds": ("seeds", lambda told: self._watched(typed(sections.Seeds, told, "seeds"), "seeds")),
            "paths": ("paths", lambda told: typed(sections.Paths, told, "paths")),
            "ray": ("ray", lambda told: typed(sections.Ray, told, "ray")),
            "tracking": ("tracking", lambda told: typed(sections.Tracking, told, "tracking")),
            GROUP: (GROUP, self._experiment),
        }.items():
            if name in held:
                with problems.collected():
                    self._typed[key] = make(held[name])
        self._typed["sae.texts"] = sections.parts_of(held.get("sae", {}).get("texts") or {}, "sae.texts", problems)
        tasks = sections.tasks_of(held.get("tasks", {}), problems)
        self._typed["tasks"] = {name: self._watched(task, f"tasks.{name}") for name, task in tasks.items()}
        self._typed["data"], self._typed["parts"] = sections.data_of(held.get("data", {}), problems)
        if {"llm", "annotator", "paths"} <= held.keys():
            self._typed["llms"] = sections.llms_of(held, str(held["paths"].get("replies")), problems)

    def _experiment(self, told: Mapping[str, Any]) -> Any:
        """The options of the experiment that is named."""
        options = self._options
        values = {key: value for key, value in told.items() if key != "name"}
        if options is None and values:
            raise SettingsError(f"{GROUP}.{key} is no setting: {told['name']} has no options." for key in values)
        return None if options is None else sections.options_of(options, values, GROUP)

    def _watched(self, section: S, name: str) -> S:
        section.watched(lambda field: self._note(f"{name}.{field}") if field != "name" else None)  # a title, no more
        return section


class _Roles(Mapping[str, Source]):
    """Data sets by role; one that is looked at is told to `note`."""

    def __init__(self, sources: Mapping[str, Source], note: Callable[[str], None]) -> None:
        self._sources, self._tell = sources, note

    def __getitem__(self, role: str) -> Source:
        self._tell(f"data.{role}")
        return self._sources[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def _value(values: Mapping[str, Any], key: str, kind: Any) -> Any:
    if key not in values:
        raise FacError(f"{key} is missing: give it a value.")
    return checked(kind, values[key], key)


def _training(sae: Mapping[str, Any]) -> Mapping[str, Any]:
    return sections.group(dict(sae), "train", "sae.train")
