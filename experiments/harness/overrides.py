"""What stands on the command line, before Hydra reads it.

Values that Hydra would misread are quoted for it (a path with brackets, a comma, "=" or letters beyond ASCII), what
cannot be is said, a sentence for each setting and all of them at once, and the jobs of a sweep that would write to one
folder get one each in it.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.harness.keys import is_in, leaves, no_such_key, with_groups
from experiments.harness.listing import CONF, GROUP, is_of_paper, register, title_of_paper
from fac.errors import FacError, closest
from fac.settings import UNSET, Problems, SettingsError, not_set

# Keys whose values are names of files, whatever they look like: out=2026 is a folder.
NAMES = ("annotations", "behavior", "calibration", "out", "outputs", "path", "reference", "replies", "store")
SENTENCES = ("description",)  # keys whose values are words of the user's, in which a comma is a comma
NUMBER = "${hydra:job.num}"
PLAIN = re.compile(r"[\w.-]+")  # what may stand in the name of a folder as it is
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
REFERS_TO = re.compile(r"\$\{([\w.]+)")  # the key that an interpolation names
HASH = re.compile(r'"config_hash": "(\w+)"')


def is_setting(argument: str) -> bool:
    """Whether it is one of ours, not an option of Hydra."""
    return "=" in argument and not argument.startswith("-")


def quoted(argument: str, sweep: bool) -> str:
    """A setting with its value in quotes where Hydra would not take the value as it was meant.

    That is a value that it cannot read, one that it would take apart although a file of that name exists or words are
    asked for, and a number where a path is asked for. In a sweep, commas separate values. Other arguments come back as
    they are.
    """
    if not is_setting(argument):
        return argument
    key, _, value = argument.partition("=")
    if (setting := parsed(argument)) is None:
        return f"{key}={_quoted_parts(key, value, sweep)}"
    held = setting.value()
    taken_apart = setting.is_sweep_override() or isinstance(held, list | dict)
    last = key.rpartition(".")[2]
    number = isinstance(held, int | float) and last in NAMES
    words = last in SENTENCES and not sweep
    return f"{key}={_in_quotes(value)}" if number or (taken_apart and (words or _exists(value))) else argument


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


def composed(settings: Sequence[str], problems: Problems | None = None) -> DictConfig:
    """The configuration with these settings. Raises SettingsError with a sentence for each that cannot be.

    With `problems` these sentences are left there, and the configuration is that of the other settings, if it has one.
    """
    register()
    if problems is None:
        problems = Problems()
        cfg = composed(settings, problems)
        problems.check()
        return cfg
    kept = []
    for setting in settings:
        with problems.collected():
            _check_single(setting)
            kept.append(setting)
    kept = with_experiment(kept)
    chosen = [setting for setting in kept if is_choice(setting)]
    try:
        return _compose(kept)
    except HYDRA_ERRORS as error:
        reason = _first_line(error)
    elsewhere = any(setting.startswith("hydra.searchpath") for setting in kept)
    wrong = [setting for setting in chosen if not (elsewhere or _is_option(setting, chosen, problems))]
    chosen = with_experiment([setting for setting in chosen if setting not in wrong])
    kept = [setting for setting in kept if not any(is_in(key, given_keys(wrong)) for key in given_keys([setting]))]
    try:
        known = all_keys(as_written(_compose(chosen)))
        kept = [setting for setting in kept if _is_known(setting, known, chosen, problems)]
        return _compose(with_experiment(kept))
    except HYDRA_ERRORS:
        raise SettingsError(problems.sentences or [f"The configuration cannot be composed: {reason}."]) from None


def _compose(settings: Sequence[str]) -> DictConfig:
    """Hydra holds one configuration at a time: that of the run that goes on steps aside for this one."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", overrides=list(settings))
    finally:
        if running is not None:
            GlobalHydra.instance().clear()
            GlobalHydra.instance().initialize(running)


def with_experiment(settings: Sequence[str]) -> list[str]:
    """The settings, with the experiment that the scale names (`default_experiment`) where they choose none."""
    if GROUP in given_keys(filter(is_choice, settings)):
        return list(settings)
    default = _preset(_scale_of(settings)).get("default_experiment")
    return [f"{GROUP}={default}", *settings] if default else list(settings)


def in_full(settings: Sequence[str]) -> list[str]:
    """The settings, with options that the experiment lets be said shortly (`Experiment.short`) under their own key.

    budget=500 is experiment.budget=500, and task.description=... is experiment.task.description=...
    """
    named = given_keys(filter(is_choice, settings)).get(GROUP, "").partition("=")[2]
    short = getattr(register().get(named), "short", ())
    return [f"{GROUP}.{setting}" if re.split(r"[.=]", setting)[0] in short else setting for setting in settings]


def is_choice(setting: str) -> bool:
    """Whether a setting chooses a file of conf/ or an experiment, rather than setting a value."""
    found = parsed(setting)
    group = "" if found is None else found.key_or_group
    return group == GROUP or (bool(group) and not group.startswith("hydra") and (CONF / group).is_dir())


def _check_single(setting: str) -> None:
    """Raise FacError for what is no setting, or is several."""
    if _setting(setting).is_sweep_override():
        key, _, value = setting.partition("=")
        raise FacError(
            f"{setting} is a sweep over several values: put -m before it, or quote a single value that holds a "
            f"comma: \"{key}='{value}'\"."
        )


def _setting(override: str) -> Override:
    if not is_setting(override) and not override.startswith("~"):
        raise FacError(f"'{override}' is no setting: write KEY=VALUE, such as experiment=lab.")
    setting = parsed(override)
    if setting is None:
        key, _, value = override.partition("=")
        hint = f", and quote a value that Hydra cannot read: \"{key}='{value}'\"" if parsed(f"{key}=0") else ""
        raise FacError(f"'{override}' is no setting: write KEY=VALUE{hint or f', where {key!r} is no name of a key'}.")
    return setting


def _is_option(setting: str, chosen: Sequence[str], problems: Problems) -> bool:
    """Whether a choice is among those that there are; else it is a problem."""
    found = _setting(setting)
    group, option = found.key_or_group, str(found.value())
    options = list(register()) if group == GROUP else sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if found.is_delete() or option in options or option == "None":
        return True
    problems.add(no_such_option(group, option, options, _scale_of(chosen)))
    return False


def no_such_option(group: str, option: str, options: Iterable[str], scale: str) -> str:
    """The sentence on a choice that there is not; of a family of models it names the model at this scale."""
    if group == GROUP and is_of_paper(option):
        return f"No experiment makes {title_of_paper(option)} of the paper yet: `fac paper` lists what is made."
    families = _preset(scale).get("families", ()) if group == "model" else ()
    if here := [name for name in families if option in name]:
        return f"There is no model={option}: at scale={scale} it is model={here[0]}."
    return f"There is no {group}={option}{closest(option, options)}."


def _scale_of(settings: Iterable[str]) -> str:
    """The scale that is chosen; the lab's if none is."""
    return given_keys(settings).get("scale", "scale=lab").partition("=")[2].strip("'\"")


def _preset(scale: str) -> dict[str, Any]:
    """The file of a scale, as it is written; empty if there is none."""
    file = CONF / "scale" / f"{scale}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _is_known(setting: str, known: Sequence[str], chosen: Sequence[str], problems: Problems) -> bool:
    """Whether a setting's key is one of the configuration, or added on purpose (+); else it is a problem."""
    found = _setting(setting)
    key = str(found.key_or_group)
    if setting.startswith("+") and not setting.startswith("++") and key in known and not is_choice(setting):
        problems.add(f"{setting} adds a key that the configuration has: write it without the +.")
        return False
    if setting.startswith("+") or key in known or key.startswith("hydra") or is_choice(setting):
        return True
    problems.add(no_such_key(key, known, _elsewhere(key, chosen)))
    return False


def _elsewhere(key: str, chosen: Sequence[str]) -> str:
    """Where the key would be one: at another scale; empty if at none."""
    here = _scale_of(chosen)
    for scale in sorted(file.stem for file in (CONF / "scale").glob("*.yaml")):
        others = [setting for setting in chosen if given_keys([setting]).keys() <= {GROUP}]
        try:
            if scale != here and key in all_keys(as_written(_compose([*others, f"scale={scale}"]))):
                return f" at scale={here}: it is a key of scale={scale}"
        except HYDRA_ERRORS:
            continue
    return ""


def all_keys(written: Mapping[str, Any]) -> list[str]:
    """The dotted keys of all values and groups."""
    return with_groups(leaves(written))


def as_written(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers: interpolations as they are written, "???" for values left open."""
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]


def resolved(written: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """A copy of the configuration with its interpolations resolved; those that cannot be are problems."""
    values = copy.deepcopy(dict(written))
    places = {name: text for name, text in texts(values) if "${" in text}
    groups = {name.partition(".")[0] for name in places} | {
        key.partition(".")[0] for text in places.values() for key in REFERS_TO.findall(text)
    }
    cfg = OmegaConf.create({group: values[group] for group in values.keys() & groups})
    for name in places:
        group, _, key = name.rpartition(".")
        holder = functools.reduce(lambda held, part: held[part], filter(None, group.split(".")), values)
        try:
            value = OmegaConf.select(cfg, name, throw_on_resolution_failure=True)
            holder[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException as error:
            problems.add(
                f"{name} cannot be resolved ({_first_line(error)}): in a value, ${{KEY}} stands for another key of the "
                f"configuration.",
                instead_of=not_set(name),
            )
            holder[key] = UNSET
    return values


def texts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The texts of the configuration, and of the lists in it, by their keys."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from texts(value, f"{prefix}{key}.")
        elif isinstance(value, str | list):
            yield f"{prefix}{key}", str(value)


def given_keys(settings: Iterable[str]) -> dict[str, str]:
    """The keys that settings set, as names of the configuration, and the settings; none of what is no setting."""
    found = {text: setting for text in settings if (setting := parsed(text)) is not None}
    return {str(setting.package or setting.key_or_group): text for text, setting in found.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


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
    outs = []
    for number, cfg in enumerate(configs):
        written = as_written(cfg)
        written["out"] = re.sub(r"\$\{hydra:job\.(num|id)\}", str(number), str(written["out"]))
        problems = Problems()
        out = resolved(written, problems)["out"]
        problems.check()
        outs.append(Path(str(out)).expanduser().absolute())
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
    from experiments.harness.outputs import config_hash  # which loads heavy libraries

    file = out / "table.json"
    kept = HASH.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    cfg.out = str(out)
    if kept and kept[1] != config_hash(resolved(as_written(cfg), Problems())):
        raise FacError(
            f"{out} holds the results of another configuration, which this sweep would overwrite: name another folder "
            f"with out=DIR."
        )
