"""From the composed configuration to typed settings: the only place that reads Hydra's containers.

Knows: which group becomes which dataclass, and how a wrong key, type or missing value is said in one sentence. Does not
know: what the settings do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from fac.backbone import ModelRef
from fac.data.files import Source
from fac.errors import FacError, closest
from fac.features import FeatureSettings
from fac.lab import shipped
from fac.pipeline import ReadSettings, Thresholds
from fac.sae import SaeRef, TrainSettings
from fac.synthesis.two_step import Settings as SynthesisSettings
from fac.train.classifier import ClassifierSettings

T = TypeVar("T")
LAB = "lab:"  # model.path=lab:llama names a model that the package ships


def plain(cfg: DictConfig, group: str | None = None) -> Any:
    """The resolved configuration, or one group of it, as plain containers. Raises FacError for a value left open."""
    node = cfg if group is None else OmegaConf.select(cfg, group)
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or group
        raise FacError(f"{key} is not set: give it on the command line, {key}=VALUE.") from None


def settings(cls: type[T], cfg: DictConfig, group: str, *, leave: Iterable[str] = ()) -> T:
    """The group as a dataclass, its types checked; `leave` names keys that belong to others."""
    values = {key: value for key, value in plain(cfg, group).items() if key not in set(leave)}
    return typed(cls, values, group)


def typed(cls: type[T], values: Mapping[str, Any], group: str) -> T:
    """`cls(**values)` with types checked. Raises FacError, naming the key, for a wrong key or type."""
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise FacError(f"{group}.{key} is no setting{closest(key, known)}.")
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in (group, *first["loc"]))
        raise FacError(f"{key}={first['input']!r} will not do: {first['msg'].lower()}.") from None


def model_ref(cfg: DictConfig) -> ModelRef:
    values = plain(cfg, "model")
    keys = ("revision", "chat_template", "dtype")
    return ModelRef(_local(values["path"]), **{key: values[key] for key in keys})


def sae_of(cfg: DictConfig) -> SaeRef | TrainSettings:
    """The SAE that the configuration names, or how to train one."""
    values = plain(cfg, "sae")
    if values["train"] is not None:
        return typed(TrainSettings, values["train"], "sae.train")
    if values["path"] is None and values["release"] is None:
        raise FacError(f"No SAE is named for {plain(cfg, 'model')['path']}: set sae.path=DIR, or sae=train.")
    return SaeRef(None if values["release"] else _local(values["path"]), values["release"], values["id"])


def source(cfg: DictConfig, name: str) -> Source:
    return typed(Source, {**plain(cfg, f"data.{name}"), "name": name}, f"data.{name}")


def feature_settings(cfg: DictConfig) -> FeatureSettings:
    return settings(FeatureSettings, cfg, "features")


def read_settings(cfg: DictConfig) -> ReadSettings:
    return settings(ReadSettings, cfg, "interpret")


def thresholds(cfg: DictConfig) -> Thresholds:
    values = plain(cfg, "thresholds")
    return typed(Thresholds, {**values, "default": str(values["default"])}, "thresholds")


def synthesis_settings(cfg: DictConfig) -> SynthesisSettings:
    return settings(SynthesisSettings, cfg, "synthesis", leave=("prompts", "budget"))


def classifier_settings(cfg: DictConfig) -> ClassifierSettings:
    return settings(ClassifierSettings, cfg, "train", leave=("seeds",))


def _local(path: str) -> str:
    return str(shipped(path.removeprefix(LAB))) if str(path).startswith(LAB) else str(Path(path).expanduser())
