"""The groups of the configuration as typed settings: which group becomes which dataclass, and what may stand in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from experiments.harness.listing import CONF
from experiments.tasks import TASKS
from experiments.tasks.base import Protocol, Task
from fac.data.hub import is_hub
from fac.data.mixture import Part
from fac.data.source import HUB_ONLY, Source
from fac.errors import FacError, closest
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, Thresholds
from fac.lab import shipped
from fac.lab.world.tasks import TaskSizes, known_themes
from fac.llm.engines import ANNOTATORS, KINDS, Engine, LLMConfig
from fac.model_ref import ModelRef
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.settings import Problems, SettingsError, checked, is_unset, not_set, typed
from fac.synthesis.settings import Settings as SynthesisSettings

LAB = "lab:"  # model.path=lab:llama names a model that the package ships
OF_DATA = {"data", "sample", "evaluation"}  # keys of a task that draws from data sets
POSITIVE = {  # numbers that must be above 0, of whichever group has them
    *("max_tokens", "top_spans", "batch_tokens", "encode_elements", "span_tokens", "max_new_tokens", "n", "m"),
    *("rank", "epochs", "learning_rate", "batch_size", "gradient_accumulation", "budget", "sae_tokens"),
    *("width", "k", "steps", "lr", "anneal_steps", "eps", "checkpoint_every"),
    *("batch", "max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "cpu_cache_gib"),
}


@dataclass(frozen=True)
class Section:
    """Settings that tell which of their fields are read, once they are `watched`."""

    def watched(self, note: Callable[[str], None]) -> None:
        """From now on `note` is told the name of every field that is read."""
        object.__setattr__(self, "_note", note)

    def __getattribute__(self, name: str) -> Any:
        note = object.__getattribute__(self, "__dict__").get("_note")
        if note is not None and name in type(self).__dataclass_fields__:
            note(name)
        return object.__getattribute__(self, name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_note"}


@dataclass(frozen=True)
class ModelConfig(Section):
    """One model: a file of conf/model."""

    name: str
    path: str
    revision: str | None = None
    sae: str | None = None  # its own SAE
    sae_tokens: int = 256  # of each text, for an SAE that is trained by the paper's recipe
    base: str | None = None  # the base (not instruct) model of the family, which instruction following is trained from
    base_revision: str | None = None
    chat_template: str | None = None
    dtype: str = "auto"

    @property
    def ref(self) -> ModelRef:
        """The model, for whoever loads it."""
        return ModelRef(self.path, self.revision, chat_template=self.chat_template, dtype=self.dtype)

    @property
    def base_ref(self) -> ModelRef | None:
        """The base model, for whoever loads it; None where there is none."""
        return None if self.base is None else ModelRef(self.base, self.base_revision, dtype=self.dtype)


@dataclass(frozen=True)
class Seeds(Section):
    """All that a run draws by, but for the training of an SAE (sae.train.seed)."""

    data: int  # the lab's world, or the rows that are drawn from data sets
    annotation: int  # requests that explain, verify and judge features
    generation: int  # requests that write
    training: tuple[int, ...]  # one model is trained with each

    def __post_init__(self) -> None:
        if not self.training or len(set(self.training)) < len(self.training):
            raise FacError("training needs at least one entry, and each only once.")


@dataclass(frozen=True)
class TaskConfig(Section):
    """One task: its data are drawn from the lab's world (`sizes`) or from data sets (`data`)."""

    prompts: str  # folder of fac/prompts, or of one's own
    max_new_tokens: int  # of what is written
    budget: int  # examples that each method adds
    protocol: Protocol
    train: Any  # the task's own dataclass (`Task.settings`)
    full: Literal["budget", "all"] = "budget"  # how many human examples the row "full" adds
    sizes: Any = None  # the task's own dataclass (`Task.sizes`); None: `data`
    pool: int | None = None  # human examples that methods of selection choose from, in the lab; None: those of `human`
    data: Mapping[str, Source] = field(default_factory=dict)  # by ROLE or ROLE_NAME, in order
    sample: Mapping[str, int] = field(default_factory=dict)  # examples drawn of a role; a role left out gives all
    evaluation: Any = None  # the task's own dataclass (`Task.evaluation`), of data sets


@dataclass(frozen=True)
class Paths:
    """Where things lie that all runs share."""

    outputs: str
    store: str  # finished steps
    replies: str  # what engines that are paid for have said
    data: str = "."  # where the files of scale=small lie

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return Path(self.store).expanduser().absolute()


@dataclass(frozen=True)
class Ray:
    """Which Ray cluster backend=ray uses; address None: one of this machine, for this run."""

    address: str | None = None
    texts: int = 2000  # of a corpus that one worker measures, at least


@dataclass(frozen=True)
class Tracking:
    """Whether and where MLflow keeps runs; uri None: sqlite in paths.outputs."""

    enabled: bool
    uri: str | None = None


def group(values: Mapping[str, Any], name: str, key: str | None = None) -> dict[str, Any]:
    """A group of settings, called `key` in sentences. Raises FacError if it is gone or a single value stands there."""
    key = key or name
    if name not in values:
        raise FacError(f"{key} is missing: give it a value.")
    if is_unset(values[name]):
        raise FacError(not_set(key))
    if not isinstance(values[name], dict):
        raise FacError(f"{key} is a group of settings, not a value: set its keys, such as {key}.KEY=VALUE.")
    return values[name]


def made(cls: Any, values: Mapping[str, Any], key: str) -> Any:
    """The settings as a dataclass. Raises SettingsError."""
    return typed(cls, values, key, POSITIVE & {found.name for found in fields(cls)})


def options_of(cls: type, values: Mapping[str, Any], key: str) -> Any:
    """An experiment's options. Raises SettingsError, also for a list with no entry (where none is no default) or one
    twice."""
    options = typed(cls, values, key)
    lists = {f.name: getattr(options, f.name) for f in fields(cls) if isinstance(getattr(options, f.name), tuple)}
    wrong = [
        f"{key}.{name} needs at least one entry, and each only once."
        for name, entries in lists.items()
        if len(set(entries)) < len(entries) or (not entries and cls.__dataclass_fields__[name].default != ())
    ]
    if wrong:
        raise SettingsError(wrong)
    return options


def under_its_own_name(written: Mapping[str, Any], given: Mapping[str, str]) -> Mapping[str, Any]:
    """The configuration with a model of one's own called as its folder or repository, not as the file of conf/model
    whose path was replaced."""
    model = written.get("model")
    if "model.path" not in given or "model.name" in given or not isinstance(model, Mapping):
        return written
    path = str(model.get("path"))
    if is_unset(model.get("path")) or "${" in path or path == path_of(str(model.get("name"))):
        return written
    name = f"lab_{path.removeprefix(LAB)}" if path.startswith(LAB) else Path(path).expanduser().resolve().name
    return {**written, "model": {**model, "name": name}}


def path_of(name: str) -> str | None:
    """Where the file of conf/model says that a model is; None if there is none, or if it leaves that to the user."""
    file = CONF / "model" / f"{name}.yaml"
    held = OmegaConf.load(file) if file.is_file() else OmegaConf.create()
    return None if OmegaConf.is_missing(held, "path") or "path" not in held else str(OmegaConf.select(held, "path"))


def model_of(values: Mapping[str, Any], given: Mapping[str, str]) -> ModelConfig:
    """The group `model`. A revision that is pinned for the file's model is not asked of another that is `given`."""
    kept = dict(values)
    for path, revision in (("path", "revision"), ("base", "base_revision")):
        if f"model.{path}" in given and f"model.{revision}" not in given:
            kept[revision] = None
        if isinstance(kept.get(path), str) and not is_unset(kept[path]):
            kept[path] = local(kept[path])
    return made(ModelConfig, kept, "model")


def local(path: str) -> str:
    """A path as it is found here: lab:NAME is a folder of the package. Raises FacError for one it does not ship."""
    return str(shipped(path.removeprefix(LAB))) if path.startswith(LAB) else str(Path(path).expanduser())


def sae_training(values: Mapping[str, Any]) -> TrainSettings | RecipeSettings:
    """The group `sae.train`. Raises SettingsError."""
    kinds = {"sae_lens": TrainSettings, "paper": RecipeSettings}
    kept = dict(values)
    recipe = str(kept.pop("recipe", "sae_lens"))
    if recipe not in kinds:
        raise FacError(f"There is no sae.train.recipe={recipe}{closest(recipe, kinds)}.")
    settings = made(kinds[recipe], kept, "sae.train")
    if settings.k > settings.width:
        raise FacError(f"sae.train.k={settings.k} will not do: an SAE of width {settings.width} has no more features.")
    return settings


def features_of(values: Mapping[str, Any]) -> FeatureSettings:
    settings = made(FeatureSettings, values, "features")
    if settings.shift is not None and settings.shift < 0:
        raise FacError(f"features.shift={settings.shift} will not do: it is the index of the first token that counts.")
    return settings


def interpret_of(values: Mapping[str, Any], seed: Any) -> InterpretSettings:
    """The group `interpret`; `seed` is seeds.annotation."""
    return made(InterpretSettings, _without_own(values, "interpret", {"seed": seed}), "interpret")


def thresholds_of(values: Mapping[str, Any]) -> Thresholds:
    kept = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if kept.get("default") is not None:
        kept["default"] = str(kept["default"])  # 0.5 is a number in a file
    return made(Thresholds, kept, "thresholds")


def synthesis_of(values: Mapping[str, Any], seed: Any, max_new_tokens: Any = 1) -> SynthesisSettings:
    """The group `synthesis`; `seed` is seeds.generation, `max_new_tokens` the task's."""
    given = {"seed": seed, "max_new_tokens": max_new_tokens}
    settings = made(SynthesisSettings, _without_own(values, "synthesis", given), "synthesis")
    if settings.spans < 0:
        raise FacError(f"synthesis.spans={settings.spans} will not do: it is 0 or more.")
    return settings


def _without_own(values: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A group with what other groups say in its place. Raises FacError for a key that belongs there."""
    homes = {"seed": f"seeds.{'annotation' if name == 'interpret' else 'generation'}"}
    for key in given.keys() & values.keys():
        raise FacError(f"{name}.{key} is no setting: set {homes.get(key, f'tasks.NAME.{key}')}.")
    return {**values, **given}


# Data sets


def data_of(values: Mapping[str, Any], problems: Problems) -> tuple[dict[str, Source], dict[str, Part]]:
    """The group `data`: data sets by role, and those of data.parts; a role whose path is null is left out."""
    sources: dict[str, Source] = {}
    parts: dict[str, Part] = {}
    for role in values:
        if values[role] is None or role == "licence":
            continue
        with problems.collected():
            told = group(values, role, f"data.{role}")
            if role == "parts":
                parts = parts_of(told, "data.parts", problems)
            elif told.get("path") is not None:
                sources[role] = typed(Source, {**told, "name": role}, f"data.{role}")
    return sources, parts


def parts_of(values: Mapping[str, Any], key: str, problems: Problems) -> dict[str, Part]:
    """The data sets of a mixture, at `key`: each with how many of its texts are drawn."""
    parts = {}
    for name in values:
        with problems.collected():
            if values[name] is None:
                continue
            told = dict(group(values, name, f"{key}.{name}"))
            sample = checked(int | None, told.pop("sample", None), f"{key}.{name}.sample")
            if source := source_of(told, f"{key}.{name}"):
                parts[name] = Part(source, sample)
    return parts


def source_of(values: Mapping[str, Any], key: str) -> Source | None:
    """The data set that the settings at `key`, such as tasks.reward.data.test, name; None if they name none.

    `subset`, `split` and `revision` belong to a hub data set: where `path` was set to a file, they are dropped.
    """
    if values.get("path") is None:
        return None
    on_hub = not isinstance(values["path"], list) and is_hub(Path(str(values["path"])))
    kept = {option: value for option, value in values.items() if on_hub or option not in HUB_ONLY}
    with at_key(key):
        return typed(Source, {**kept, "name": key.rpartition(".")[2]}, key)


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Failures of the data set at `key` name that place, of which `fac.data` knows the last two parts only."""
    name = key.rpartition(".")[2]
    try:
        yield
    except FacError as error:
        said = [re.sub(rf"(?<![\w.])data\.{name}\b", key, told) for told in getattr(error, "sentences", [str(error)])]
        way_out = f" Or do without it: {key}=null." if name.startswith("validation") else ""
        raise SettingsError(f"{sentence}{way_out}" for sentence in said) from None


# Tasks


def tasks_of(values: Mapping[str, Any], problems: Problems) -> dict[str, TaskConfig]:
    """The group `tasks`, as far as it can be read."""
    tasks = {}
    for name in values:
        if name not in TASKS:
            problems.add(f"tasks.{name} is no task{closest(name, TASKS)}.")
            continue
        with problems.collected():
            tasks[name] = _task_of(TASKS[name], group(values, name, f"tasks.{name}"))
    return tasks


def _task_of(task: Task, values: Mapping[str, Any]) -> TaskConfig:
    key = f"tasks.{task.name}"
    problems = Problems()
    kept: dict[str, Any] = {name: value for name, value in values.items() if name not in OF_DATA and name != "sizes"}
    with problems.collected():
        kept["train"] = None  # where it cannot be read
        kept["train"] = made(task.settings, group(values, "train", f"{key}.train"), f"{key}.train")
    if ("data" in values) == ("sizes" in values):
        problems.add(f"{key} needs either data, the data sets by role, or sizes, those of the lab's world.")
    elif "sizes" in values:
        problems.sentences += [
            f"{key}.{name} is of data sets, and this task draws from the lab's world: leave it out."
            for name in OF_DATA & values.keys()
        ]
        with problems.collected():
            kept["sizes"] = _sizes_of(task, group(values, "sizes", f"{key}.sizes"))
    else:
        with problems.collected():
            kept["data"] = _sets_of(task, group(values, "data", f"{key}.data"))
        with problems.collected():
            kept["sample"] = _samples_of(task, values.get("sample") or {})
        with problems.collected():
            evaluation = values.get("evaluation") or {}
            kept["evaluation"] = task.evaluation and made(task.evaluation, evaluation, f"{key}.evaluation")
    with problems.collected():
        config = made(TaskConfig, kept, key)
        problems.check()
        return config
    raise SettingsError(problems.sentences)


def _sizes_of(task: Task, values: Mapping[str, Any]) -> Any:
    sizes = typed(task.sizes, values, f"tasks.{task.name}.sizes")
    if isinstance(sizes, TaskSizes):
        known_themes(task.name, 0, sizes.known)  # refuses more than there are
    return sizes


def _sets_of(task: Task, values: Mapping[str, Any]) -> dict[str, Source]:
    key, roles = f"tasks.{task.name}.data", (*task.roles, *task.may_have)
    sets: dict[str, Source] = {}
    problems = Problems()
    for name, told in values.items():
        if not any(name == role or name.startswith(f"{role}_") for role in roles):
            problems.add(f"{key}.{name} is no role of the task{closest(name, roles)}.")
            continue
        with problems.collected():
            if told is not None and (source := source_of(group(values, name, f"{key}.{name}"), f"{key}.{name}")):
                sets[name] = source
    problems.check()
    for role in task.roles:
        if not any(name == role or name.startswith(f"{role}_") for name in sets):
            problems.add(f"{key}.{role} names no data set: set {key}.{role}.path to a file or to hub:ID.")
    problems.check()
    return sets


def _samples_of(task: Task, values: Mapping[str, Any]) -> dict[str, int]:
    key, roles = f"tasks.{task.name}.sample", (*task.roles, *task.may_have)
    problems = Problems()
    samples = {role: count for role, count in values.items() if count is not None}
    for role, count in samples.items():
        if role not in roles:
            problems.add(f"{key}.{role} is no role of the task{closest(role, roles)}.")
        elif not isinstance(count, int) or count < 1:
            problems.add(f"{key}.{role}={count} will not do: set it to 1 or more, or to null for all rows.")
    problems.check()
    return samples


# LLMs


def llms_of(values: Mapping[str, Any], replies: str, problems: Problems) -> LLMConfig | None:
    """Who writes (group `llm`) and who annotates (group `annotator`, where each role may have its own).

    None where that cannot be read, which is a problem.
    """
    before = len(problems.sentences)
    writer = annotator = None
    by_role: dict[str, Engine] = {}
    with problems.collected():
        writer = _engine(group(values, "llm"), "llm", None)
    with problems.collected():
        told = group(values, "annotator")
        for role in (roles := group(told, "roles", "annotator.roles")):
            if role not in ANNOTATORS:
                problems.add(f"annotator.roles.{role} is no role{closest(role, ANNOTATORS)}.")
                continue
            with problems.collected():
                place = f"annotator.roles.{role}"
                by_role[role] = _engine(group(roles, role, place), place, writer)
        annotator = _engine({key: held for key, held in told.items() if key != "roles"}, "annotator", writer)
    if writer is None or annotator is None or len(problems.sentences) > before:
        return None
    annotators = {role: by_role.get(role, annotator) for role in ANNOTATORS}
    return LLMConfig(writer, annotators, Path(replies).expanduser().absolute())


def _engine(values: Mapping[str, Any], name: str, writer: Engine | None) -> Engine:
    kept = dict(values)
    kind, path, revision = (kept.pop(key, None) for key in ("engine", "path", "revision"))
    if kind == "writer" and name != "llm":
        return writer or Engine(KINDS["transformers"]())  # a writer that cannot be is said already
    if kind not in KINDS:
        raise FacError(f"There is no {name}.engine={kind}{closest(str(kind), KINDS)}.")
    settings = made(KINDS[kind], kept | ({"place": name} if kind == "openai" else {}), name)
    return Engine(settings, None if path is None else ModelRef(local(str(path)), revision))
