"""From the composed configuration to typed settings: the only place that reads Hydra's containers.

Knows: which group becomes which dataclass, and how a wrong key, type or missing value is said in one sentence. Does not
know: what the settings do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from experiments import unread
from experiments.engines import ANNOTATORS, KINDS, Engine, Engines
from experiments.results import REPOSITORY
from fac.backbone import ModelRef
from fac.data.source import Source, first_line
from fac.errors import FacError, closest
from fac.features import FeatureSettings
from fac.lab import shipped
from fac.pipeline import ReadSettings, Thresholds
from fac.sae import SaeRef, TrainSettings
from fac.sae.checkpoint import SUFFIXES
from fac.sae.recipe import RecipeSettings
from fac.synthesis.settings import Settings as SynthesisSettings
from fac.train.classifier import ClassifierSettings

T = TypeVar("T")
LAB = "lab:"  # model.path=lab:llama names a model that the package ships
MODELS = REPOSITORY / "conf" / "model"


def plain(cfg: DictConfig, key: str | None = None) -> Any:
    """The configuration resolved, or a part of it, as plain containers. Raises FacError for a value left open.

    The part counts as read (`experiments.unread`).
    """
    if key is not None:
        unread.note(key)
    return _resolved(cfg, key)


def _resolved(cfg: DictConfig, key: str | None) -> Any:
    try:
        node = cfg if key is None else OmegaConf.select(cfg, key, throw_on_missing=True)
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        name = getattr(error, "full_key", None) or key
        if isinstance(error, InterpolationResolutionError):
            raise FacError(
                f"{name} cannot be resolved ({first_line(error)}): in a value, ${{KEY}} stands for another key of the "
                f"configuration."
            ) from None
        raise FacError(f"{name} is not set: give it on the command line, {name}=VALUE.") from None


def group(cfg: DictConfig, name: str) -> dict[str, Any]:
    """One group of the configuration. Raises FacError if it was replaced by a single value."""
    unread.note(name)
    return _group(cfg, name)


def _group(cfg: DictConfig, name: str) -> dict[str, Any]:
    values = _resolved(cfg, name)
    if not isinstance(values, dict):
        raise FacError(f"{name} is a group of settings, not a value: set its keys, such as {name}.KEY=VALUE.")
    return values


def value(cfg: DictConfig, key: str, kind: Any) -> Any:
    """One value, checked to be of `kind` (a type, also `list[int]` or `int | None`)."""
    try:
        return TypeAdapter(kind).validate_python(plain(cfg, key))
    except ValidationError as error:
        raise _wrong(key, error) from None


def settings(
    cls: type[T],
    cfg: DictConfig,
    name: str,
    *,
    leave: Iterable[str] = (),
    positive: Iterable[str] = (),
    given: Mapping[str, Any] | None = None,
) -> T:
    """The group as a dataclass, its types checked.

    `leave` names keys that belong to others; what is `given` stands in place of the group's.
    """
    left = {*leave, *(given or {})}
    held = {key: value for key, value in _group(cfg, name).items() if key not in left}
    unread.note(*(f"{name}.{key}" for key in held))
    return typed(cls, {**held, **(given or {})}, name, positive)


def typed(cls: type[T], values: Mapping[str, Any], name: str, positive: Iterable[str] = ()) -> T:
    """`cls(**values)` with types checked. Raises FacError, naming the key, for a wrong key or type.

    `positive` names numbers that must be above 0.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise FacError(f"{name}.{key} is no setting{closest(key, known)}.")
    try:
        made = TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise _wrong(name, error) from None
    for key in positive:
        if not getattr(made, key) > 0:
            raise FacError(f"{name}.{key}={getattr(made, key)} will not do: it must be above 0.")
    return made


def _wrong(name: str, error: ValidationError) -> FacError:
    first = error.errors()[0]
    if first["type"] == "missing":
        return FacError(f"{name}.{first['loc'][0]} is missing: give it a value.")
    key = ".".join(str(part) for part in (name, *first["loc"]))
    return FacError(f"{key}={first['input']!r} will not do: {first['msg'].lower()}.")


def model_ref(cfg: DictConfig) -> ModelRef:
    values = group(cfg, "model")
    keys = ("chat_template", "dtype")
    return ModelRef(_local(values["path"]), _revision(cfg, "path", "revision"), **{key: values[key] for key in keys})


def base_ref(cfg: DictConfig) -> ModelRef | None:
    """The base (not instruct) model of the family, which instruction following is trained from."""
    values = group(cfg, "model")
    if values["base"] is None:
        return None
    return ModelRef(_local(values["base"]), _revision(cfg, "base", "base_revision"), dtype=values["dtype"])


def _revision(cfg: DictConfig, path: str, revision: str) -> str | None:
    """What `model` says under the key `revision`; a revision pinned for one model (`at`) is not asked of another."""
    values = group(cfg, "model")
    pinned = values.get("at", {}).get(cfg.scale.name, {})
    other = bool(pinned) and values[path] != pinned[path] and values[revision] == pinned.get(revision)
    return None if other else values[revision]


def sae_of(cfg: DictConfig) -> SaeRef | TrainSettings | RecipeSettings:
    """The SAE that the configuration names, or how to train one."""
    values = group(cfg, "sae")
    if values["train"] is not None:
        if values["path"] or values["release"]:
            raise FacError(
                "An SAE is named and one is to be trained: leave out sae=train, or sae.path and sae.release."
            )
        return _sae_training(group(cfg, "sae.train"))
    if values["release"]:
        if not values["id"]:
            raise FacError(f"sae.release={values['release']} holds several SAEs: name one of them with sae.id.")
        return SaeRef(None, values["release"], values["id"])
    if values["path"] is None:
        raise FacError(f"No SAE is named for {plain(cfg, 'model')['path']}: set sae.path=DIR, or sae=train.")
    path = _local(str(values["path"]))
    if path.endswith(SUFFIXES) and not Path(path).is_file():
        raise FacError(f"There is no SAE checkpoint {path}: set sae.path to the file, or to hub:OWNER/REPOSITORY.")
    if path.startswith(("/", ".")) and not Path(path).exists():
        raise FacError(f"There is no SAE folder {path}: set sae.path to a SAELens folder, or use sae=train.")
    return SaeRef(path, sae_id=values["id"])


def _sae_training(values: dict[str, Any]) -> TrainSettings | RecipeSettings:
    kinds = {"sae_lens": TrainSettings, "paper": RecipeSettings}
    recipe = str(values.pop("recipe", "sae_lens"))
    if recipe not in kinds:
        raise FacError(f"There is no sae.train.recipe={recipe}{closest(recipe, kinds)}.")
    positive = {"width", "k", "steps", "batch_size", "lr", "max_tokens"}
    positive |= {"anneal_steps", "epochs", "eps", "batch_tokens", "checkpoint_every"}
    made = typed(kinds[recipe], values, "sae.train", positive & {field.name for field in fields(kinds[recipe])})
    if made.k > made.width:
        raise FacError(f"sae.train.k={made.k} will not do: an SAE of width {made.width} has no more features.")
    return made


def model_named(cfg: DictConfig, name: str) -> tuple[ModelRef, SaeRef | TrainSettings | RecipeSettings]:
    """A model by the name of its file in conf/model, and its SAE, for experiments on several models.

    The model that the run chose (model=NAME) is taken with its overrides, any other at the run's scale as its file
    says. The group `sae` holds for all: sae=pretrained is each model's own, sae=train trains one for each. Raises
    FacError for a name that has no file, and where `sae` names one SAE (sae.path, sae.release) for several models.
    """
    known = sorted(file.stem for file in MODELS.glob("*.yaml"))
    if name not in known:
        raise FacError(f"There is no model={name}{closest(name, known)}.")
    chosen = plain(cfg, "model.name")
    if name != chosen:
        sae = group(cfg, "sae")
        if sae["release"] or (sae["path"] and not OmegaConf.is_interpolation(cfg.sae, "path")):
            raise FacError(
                f"sae.path and sae.release name one SAE, but {chosen} and {name} need one each: leave them out, set "
                f"model.sae=DIR for {chosen}, or train one for each model with sae=train."
            )
        cfg = cfg.copy()
        cfg.model = OmegaConf.load(MODELS / f"{name}.yaml")
    return model_ref(cfg), sae_of(cfg)


def sae_layer(cfg: DictConfig) -> int | None:
    return value(cfg, "sae.layer", int | None)


def source(cfg: DictConfig, name: str) -> Source:
    return typed(Source, {**group(cfg, f"data.{name}"), "name": name}, f"data.{name}")


def feature_settings(cfg: DictConfig) -> FeatureSettings:
    positive = ("max_tokens", "top_spans", "batch_tokens", "encode_elements")
    made = settings(FeatureSettings, cfg, "features", positive=positive)
    if made.shift is not None and made.shift < 0:
        raise FacError(f"features.shift={made.shift} will not do: it is the index of the first token that counts.")
    return made


def read_settings(cfg: DictConfig) -> ReadSettings:
    values = {**group(cfg, "interpret"), "missing": value(cfg, "missing.rule", Literal["activation", "annotation"])}
    return typed(ReadSettings, values, "interpret", positive=("spans", "span_tokens", "max_new_tokens"))


def thresholds(cfg: DictConfig) -> Thresholds:
    values = group(cfg, "thresholds")
    return typed(Thresholds, {**values, "default": str(values["default"])}, "thresholds")


def synthesis_settings(cfg: DictConfig, **given: Any) -> SynthesisSettings:
    """The group `synthesis`, where what is `given` does not stand in its place."""
    positive = ("n", "m", "max_new_tokens", "span_tokens")
    made = settings(SynthesisSettings, cfg, "synthesis", leave=("prompts", "budget"), positive=positive, given=given)
    if made.spans < 0:
        raise FacError(f"synthesis.spans={made.spans} will not do: it is 0 or more.")
    return made


def tested_on(cfg: DictConfig) -> str:
    """Which set of the lab's world is scored."""
    role, known = value(cfg, "experiment.test", str), ("test", "validation")
    if role not in known:
        raise FacError(f"experiment.test cannot be {role}{closest(role, known)}.")
    return role


def classifier_settings(cfg: DictConfig) -> ClassifierSettings:
    positive = ("rank", "epochs", "learning_rate", "batch_size", "gradient_accumulation", "max_tokens")
    return settings(ClassifierSettings, cfg, "train", leave=("seeds",), positive=positive)


def engines(cfg: DictConfig) -> Engines:
    """Who writes (group `llm`) and who annotates (group `annotator`, where each role may have its own)."""
    writer = _engine(group(cfg, "llm"), "llm", None)
    values = group(cfg, "annotator")
    roles = group(cfg, "annotator.roles")
    annotator = _engine({key: held for key, held in values.items() if key != "roles"}, "annotator", writer)
    for role in roles:
        if role not in ANNOTATORS:
            raise FacError(f"annotator.roles.{role} is no role{closest(role, ANNOTATORS)}.")
    by_role = {
        role: _engine(group(cfg, f"annotator.roles.{role}"), f"annotator.roles.{role}", writer) for role in roles
    }
    annotators = {role: by_role.get(role, annotator) for role in ANNOTATORS}
    return Engines(writer, annotators, Path(str(plain(cfg, "paths.replies"))).expanduser().absolute())


def _engine(values: dict[str, Any], name: str, writer: Engine | None) -> Engine:
    kind, path, revision = (values.pop(key, None) for key in ("engine", "path", "revision"))
    if kind == "writer" and writer is not None:
        return writer
    if kind not in KINDS:
        raise FacError(f"There is no {name}.engine={kind}{closest(str(kind), KINDS)}.")
    positive = {"batch", "max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "cpu_cache_gib"}
    held = positive & {field.name for field in fields(KINDS[kind])}
    placed = {"place": name} if kind == "openai" else {}
    made = typed(KINDS[kind], values | placed, name, held)
    return Engine(made, None if path is None else ModelRef(_local(str(path)), revision))


def _local(path: str) -> str:
    return str(shipped(path.removeprefix(LAB))) if str(path).startswith(LAB) else str(Path(path).expanduser())
