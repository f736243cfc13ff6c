"""What stands on the command line, before Hydra reads it.

Values that Hydra would misread are quoted for it (a path with brackets, a comma, "=" or letters beyond ASCII), what
cannot be is said in one sentence, and the jobs of a sweep that would write to one folder get one each in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fac.errors import FacError, closest

CONF = Path(__file__).resolve().parent.parent / "conf"
# Keys whose values are names of files, whatever they look like: out=2026 is a folder.
NAMES = ("annotations", "behavior", "calibration", "out", "outputs", "path", "reference", "replies", "store")
NUMBER = "${hydra:job.num}"
PLAIN = re.compile(r"[\w.-]+")  # what may stand in the name of a folder as it is
HASH = re.compile(r'"config_hash": "(\w+)"')


def is_setting(argument: str) -> bool:
    """Whether it is one of ours, not an option of Hydra."""
    return "=" in argument and not argument.startswith("-")


def quoted(argument: str, sweep: bool) -> str:
    """A setting with its value in quotes where Hydra would not take the value as it was meant.

    That is a value that it cannot read, one that it would take apart although a file of that name exists, and a number
    where a path is asked for. In a sweep, commas separate values. Other arguments come back as they are.
    """
    if not is_setting(argument):
        return argument
    key, _, value = argument.partition("=")
    if (setting := parsed(argument)) is None:
        return f"{key}={_quoted_parts(key, value, sweep)}"
    held = setting.value()
    taken_apart = setting.is_sweep_override() or isinstance(held, list | dict)
    number = isinstance(held, int | float) and key.rpartition(".")[2] in NAMES
    return f"{key}={_in_quotes(value)}" if number or (taken_apart and _exists(value)) else argument


def parsed(argument: str) -> Override | None:
    """A setting as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _quoted_parts(key: str, value: str, sweep: bool) -> str:
    """A value that cannot be read: quoted as a whole, or the parts of a list or of a sweep that need it."""
    is_list = value.startswith("[") and value.endswith("]")
    if (is_list or (sweep and "," in value)) and not _exists(value):
        inner = value[1:-1] if is_list else value
        parts = [part if parsed(f"{key}={part}") else _in_quotes(part) for part in inner.split(",")]
        joined = f"[{','.join(parts)}]" if is_list else ",".join(parts)
        if parsed(f"{key}={joined}"):
            return joined
    return _in_quotes(value)


def _in_quotes(value: str) -> str:
    return QuotedString(value, Quote.single).with_quotes()


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long for a name; no such user
        return False


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration with these overrides. Raises FacError for one that cannot be."""
    for override in overrides:
        if _setting(override).is_sweep_override():
            key, _, value = override.partition("=")
            raise FacError(
                f"{override} is a sweep over several values: put -m before it, or quote a single value that holds a "
                f"comma: \"{key}='{value}'\"."
            )
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise FacError(_explain(error, overrides)) from None


def _setting(override: str) -> Override:
    if not is_setting(override) and not override.startswith("~"):
        raise FacError(f"'{override}' is no setting: write KEY=VALUE, such as experiment=lab.")
    setting = parsed(override)
    if setting is None:
        key, _, value = override.partition("=")
        hint = f", and quote a value that Hydra cannot read: \"{key}='{value}'\"" if parsed(f"{key}=0") else ""
        raise FacError(f"'{override}' is no setting: write KEY=VALUE{hint or f', where {key!r} is no name of a key'}.")
    return setting


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    first = str(error).strip().splitlines()[0].rstrip(".")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        named = ("annotator", "experiment", "llm", "model", "parity", "sae", "scale")
        chosen = [o for o in overrides if "=" in o and o.split("=")[0] in named]
        try:
            known = _keys(hydra.compose("config", overrides=chosen))
        except (HydraException, OmegaConfBaseException, ValueError):
            groups = {p.parent.name: [q.stem for q in p.parent.glob("*.yaml")] for p in CONF.glob("*/*.yaml")}
            for override in chosen:
                group, _, option = override.partition("=")
                option = option.strip("'\"")
                if option not in groups[group]:
                    return f"There is no {group}={option}{closest(option, groups[group])}."
            return f"The configuration cannot be composed: {first}."
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key not in known and "=" in override and not key.startswith("hydra"):
            return f"The configuration has no key {key}{closest(key, known)}."
    return f"The configuration cannot be composed: {first}."


def _keys(cfg: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in cfg:
        keys.append(prefix + str(key))
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            keys += _keys(node, f"{prefix}{key}.")
    return keys


def given(overrides: Sequence[str]) -> dict[str, str]:
    """The keys that settings set, as names of the configuration, and the settings."""
    found = {override: _setting(override) for override in overrides}
    return {str(setting.package or setting.key_or_group): override for override, setting in found.items()}


# Sweeps


def is_sweep(arguments: Sequence[str]) -> bool:
    return any(argument in ("-m", "--multirun") or argument.lower() == "hydra.mode=multirun" for argument in arguments)


def own_folders(settings: Sequence[str]) -> tuple[list[str], list[Path]]:
    """The settings of a sweep, with an `out` for each job where several would write to one, and the jobs' folders.

    It lies in the folder that they would share, and is called after the values swept, or the job's number where those
    are no names. Raises FacError for settings that cannot be, and where a job's folder holds results of others.
    """
    settings = [argument.replace("${hydra.job.", "${hydra:job.") for argument in settings]
    if any(argument.startswith(("hydra/sweeper", "hydra.sweeper")) for argument in settings):
        if not any(argument.startswith("out=") and NUMBER in argument for argument in settings):
            raise FacError(
                f"With a sweeper of your own, each job needs its folder: add \"out='outputs/NAME/{NUMBER}'\"."
            )
        return settings, []
    overrides = [_setting(argument) for argument in settings if not argument.startswith("hydra")]
    configs = [composed(job) for job in BasicSweeper.split_arguments(overrides, None)[0]]
    outs = _outs(configs)
    if _are_shared(outs):
        written = {OmegaConf.to_container(cfg)["out"] for cfg in configs}  # type: ignore[index, call-overload]
        if len(written) > 1:
            raise FacError("Several jobs of this sweep would write to one folder: leave out out=, each gets its own.")
        settings = [argument for argument in settings if not argument.startswith("out=")]
        shared = written.pop()
        for name in (_name(overrides, configs), NUMBER):
            if _are_shared(outs) and name:
                for cfg in configs:
                    cfg.out = f"{shared}/{name}"
                outs = _outs(configs)
        settings.append(f"out={_in_quotes(OmegaConf.to_container(configs[0])['out'])}")  # type: ignore[index, call-overload]
    for cfg, out in zip(configs, outs, strict=True):
        _check_results(cfg, out)
    return settings, outs


def _outs(configs: Sequence[DictConfig]) -> list[Path]:
    """Where each job writes."""
    from experiments.config import plain  # which loads the libraries of all experiments

    outs = []
    for number, cfg in enumerate(configs):
        written = OmegaConf.to_container(cfg)["out"]  # type: ignore[index, call-overload]
        with open_dict(cfg):
            cfg.out = re.sub(r"\$\{hydra:job\.(num|id)\}", str(number), str(written))
            outs.append(Path(plain(cfg, "out")).expanduser().absolute())
            cfg.out = written
    return outs


def _are_shared(outs: Sequence[Path]) -> bool:
    return len(set(outs)) < len(outs)


def _name(overrides: Sequence[Override], configs: Sequence[DictConfig]) -> str | None:
    """The values that are swept, as interpolations of the configuration; None if they make no name of a folder."""
    parts = []
    for key in (str(found.key_or_group) for found in overrides if found.is_sweep_override()):
        nodes = [OmegaConf.select(cfg, key) for cfg in configs]
        held = f"{key}.name" if all(isinstance(node, DictConfig) and "name" in node for node in nodes) else key
        values = [str(OmegaConf.select(cfg, held)) for cfg in configs]
        if not all(PLAIN.fullmatch(text) for text in (key, *values)):
            return None
        parts.append(f"{key}=${{{held}}}")
    return ",".join(parts) or None


def _check_results(cfg: DictConfig, out: Path) -> None:
    """Raise FacError if `out` holds the table of another configuration."""
    from experiments.config import plain
    from experiments.harness.results import config_hash

    file = out / "table.json"
    kept = HASH.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    cfg.out = str(out)
    if kept and kept[1] != config_hash(plain(cfg)):
        raise FacError(
            f"{out} holds the results of another configuration, which this sweep would overwrite: name another folder "
            f"with out=DIR."
        )
