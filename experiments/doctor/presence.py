"""Is it there? Software, models, SAEs, engines with their keys, prompts.

Knows: where each thing would come from, and how one gets it. Does not know: how much memory or time it takes
(`experiments.doctor.resources`). The hub is only asked what it has.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata

from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM

from experiments import config
from experiments.doctor import needs, workload
from experiments.doctor.base import Finding, checked, name_of
from experiments.doctor.hub import cached, on_hub
from experiments.doctor.needs import Encoder, Shape
from experiments.engines import COMPARE, Engine
from experiments.results import REPOSITORY
from experiments.tasks import TASKS
from fac import model_weights
from fac.backbone import ModelRef, default_device, load_config, load_tokenizer
from fac.chat import DATE, is_dated
from fac.errors import FacError
from fac.interpret import ROLES
from fac.llm.openai import OpenAISettings
from fac.prompts import Prompts
from fac.sae import SaeRef, recorded_layer
from fac.sae.checkpoint import find_checkpoint, read_checkpoint
from fac.sae.ref import CONFIG, check_weights, read_config

DISTRIBUTION = "fac-synthesis"
CONSTRAINTS = REPOSITORY / "constraints.txt"


@dataclass(frozen=True)
class Party:
    """A model of the run and its SAE, as far as they are known."""

    ref: ModelRef
    shape: Shape | None
    encoder: Encoder | None


# ---------------------------------------------------------------------------------------------------------- software


def software() -> Iterator[Finding]:
    """Python and the packages that the project requires, and how far they are from the versions known to work."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    told = metadata.distribution(DISTRIBUTION)
    python, wanted = platform.python_version(), told.metadata["Requires-Python"] or ""
    fits = python in SpecifierSet(wanted)
    yield Finding("ok" if fits else "missing", "python", python if fits else f"{python}: use one of {wanted}")
    required = [r for r in map(Requirement, told.requires or ()) if not r.marker or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in required:
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement} (here: {version or 'not installed'})")
    if wrong:
        yield Finding("missing", "packages", f"{', '.join(wrong)}: run pip install -c constraints.txt -e .")
    else:
        yield Finding("ok", "packages", f"the {len(required)} required ones fit")
    if CONSTRAINTS.is_file() and (others := _unlike(CONSTRAINTS.read_text(), {r.name for r in required})):
        yield Finding("warning", "versions", f"not as in constraints.txt, which is known to work: {', '.join(others)}")


def _unlike(constraints: str, names: set[str]) -> list[str]:
    """Those of the packages whose installed version is not the pinned one."""
    wanted = {_plain(name) for name in names}
    others = []
    for line in constraints.splitlines():
        name, _, pinned = line.partition("#")[0].strip().partition("==")
        version = _version(name) if _plain(name) in wanted else None
        if version is not None and version.partition("+")[0] != pinned:  # torch's builds differ behind the plus
            others.append(f"{name} {version} (there {pinned})")
    return others


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def unset(cfg: DictConfig) -> Iterator[Finding]:
    """Values that only the user can give."""
    for key in sorted(OmegaConf.missing_keys(cfg)):
        yield Finding("missing", f"setting {key}", f"is not set: give it on the command line, {key}=VALUE")


# ------------------------------------------------------------------------------------------------------------ models


def models(cfg: DictConfig, online: bool, parties: list[Party]) -> Iterator[Finding]:
    """Every model of the run and its SAE; what is known of them is appended to `parties`."""
    if not workload.uses_model(cfg):
        return
    for name, own in _chosen_models(cfg):
        yield from checked(f"model {name}", lambda own=own: _model_and_sae(own, online, parties))


def _chosen_models(cfg: DictConfig) -> list[tuple[str, DictConfig]]:
    """The models of the run by name, each with the configuration in which it is the chosen one."""
    roles = (OmegaConf.select(cfg, f"experiment.{role}") for role in ("sources", "writers", "trained", "models"))
    names = list(dict.fromkeys(name for held in roles for name in held or ())) or [cfg.model.name]
    chosen = []
    for name in names:
        own = cfg.copy()
        if name != cfg.model.name:
            file = config.MODELS / f"{name}.yaml"
            own.model = OmegaConf.load(file) if file.is_file() else {"name": name, "path": name}
        chosen.append((name, own))
    return chosen


def _model_and_sae(cfg: DictConfig, online: bool, parties: list[Party]) -> Iterator[Finding]:
    if OmegaConf.is_missing(cfg.model, "path"):
        return  # said already
    ref = config.model_ref(cfg)
    yield from checked(f"model {name_of(ref)}", lambda: model(ref, online))
    shape = _shape(ref)
    found: list[Encoder] = []
    if workload.uses_sae(cfg):
        yield from checked(f"SAE for {name_of(ref)}", lambda: sae(cfg, ref, shape, online, found))
    if shape is not None and not found:
        found.append(needs.paper_encoder(shape))
    parties.append(Party(ref, shape, found[0] if found else None))


def model(ref: ModelRef, online: bool) -> Iterator[Finding]:
    """A model by folder or hub id: its weights are the model's and whole, its tokenizer has a chat template."""
    what = f"model {name_of(ref)}"
    folder = None if ref.is_local else cached(ref.path, ref.revision, "model")
    if ref.is_local or ref.path.startswith(("/", ".", "~")):
        yield from _loadable(what, ref, f"in {ref.folder}")
        return
    if folder is not None and (files := model_weights.weight_files(folder)) and all(file.is_file() for file in files):
        at = f"at {ref.revision}" if ref.revision else f"at the commit {folder.name} (no revision is set)"
        held = replace(ref, revision=folder.name)  # the run would ask the hub for the commit
        yield from _loadable(what, held, f"in the hub's cache, {at}")
        return
    command = f"hf download {ref.path}" + (f" --revision {ref.revision}" if ref.revision else "")
    way = f"{command} (log in first with `hf auth login` if it is gated), or name a folder"
    yield on_hub(what, ref.path, ref.revision, "model", online, way)


def _loadable(what: str, ref: ModelRef, where: str) -> Iterator[Finding]:
    """What loading would say, from the names and shapes of the tensors. Raises FacError as loading does."""
    tokenizer, model_config = load_tokenizer(ref), load_config(ref)
    model_weights.check_weights(AutoModelForCausalLM, ref, model_config, finite=False)
    tied = ", embedding and head tied" if getattr(model_config, "tie_word_embeddings", False) else ""
    stored = str(model_config.dtype).removeprefix("torch.")
    loaded = ref.dtype_on(default_device())
    said = f"stored as {stored}, measured in {stored if loaded == 'auto' else loaded}{tied}"
    yield Finding("ok", what, f"{where}, {said}")
    if tokenizer.pad_token_id is None:
        lacks = "its tokenizer has neither padding nor end-of-text token: it can be measured, but not trained"
        yield Finding("warning", what, f"{lacks}, nor write without eos_token_id in its generation_config.json")
    if is_dated(tokenizer):
        yield Finding("warning", what, f"its chat template writes the date: rendered as on {DATE:%d %b %Y} throughout")


def base_model(cfg: DictConfig, online: bool) -> Iterator[Finding]:
    """The base model, if a task of main_results trains it."""
    tasks = [task for task in workload.tasks(cfg) if TASKS[task].from_base]
    if not tasks or cfg.experiment.name != "main_results":
        return
    base = config.base_ref(cfg)
    if base is None:
        said = f"{tasks[0]} trains one: set model.base to a folder or hub id, or leave the task out of experiment.tasks"
        yield Finding("missing", f"base model of {cfg.model.name}", said)
    else:
        yield from checked(f"model {name_of(base)}", lambda: model(base, online))


def sae(cfg: DictConfig, ref: ModelRef, shape: Shape | None, online: bool, found: list[Encoder]) -> Iterator[Finding]:
    """The SAE: that it is there, and fits the model by what is recorded of both. Appended to `found` if it is known."""
    what = f"SAE for {name_of(ref)}"
    chosen, layer = config.sae_of(cfg), config.sae_layer(cfg)
    if not isinstance(chosen, SaeRef):
        layer = layer or (shape.layers // 2 if shape else None)
        if shape and layer and layer > shape.layers:
            yield Finding("missing", what, f"layer {layer} does not exist: choose sae.layer from 1 to {shape.layers}")
            return
        if layer:
            found.append(Encoder(layer, chosen.width, chosen.k))
        said = f"to be trained first, on layer {layer or 'at half the depth'}: width {chosen.width}, K {chosen.k}"
        yield Finding("ok", what, said)
        return
    if chosen.release:
        yield from _release(what, chosen, online)
        return
    if chosen.folder is not None:
        checkpoint = find_checkpoint(chosen)
        if checkpoint is None:
            yield from _lens_folder(what, chosen, shape, layer, cfg, found)
        else:
            read_checkpoint(checkpoint.fetch())
            yield Finding("ok", what, f"{chosen}, a checkpoint that the run will import")
        return
    name = chosen.repository
    if cached(name, None, "model") is not None:
        yield Finding("ok", what, f"{name}, in the hub's cache")
    else:
        way = f"hf download {name}, or name a folder with sae.path=DIR, or train one with sae=train"
        yield on_hub(what, name, None, "model", online, way)


def _lens_folder(
    what: str, chosen: SaeRef, shape: Shape | None, layer: int | None, cfg: DictConfig, found: list[Encoder]
) -> Iterator[Finding]:
    """A folder in SAELens format: its two records and its weights. Raises FacError as loading it would."""
    folder, recorded = chosen.fetched(CONFIG), recorded_layer(chosen)
    assert folder is not None
    told = read_config(folder)
    check_weights(folder)
    d_in, width, k = told["d_in"], told["d_sae"], told.get("k")
    layer = layer if layer is not None else recorded
    if layer is None:
        said = f"{folder} does not say which layer it was trained on: set sae.layer"
    elif shape and d_in != shape.d_model:
        said = f"{folder} reads {d_in} dimensions, the model has {shape.d_model}: name another, or use sae=train"
    elif shape and layer > shape.layers:
        said = f"layer {layer} does not exist: choose sae.layer from 1 to {shape.layers}"
    elif recorded is not None and recorded != layer:
        said = f"trained on layer {recorded}, not {layer}: leave sae.layer out, or use sae=train"
    else:
        found.append(Encoder(layer, width, None if cfg.features.rule == "official" or k is None else int(k)))
        said = f"in {folder}: layer {layer}, width {width}, K {k}; the run compares it with the model's weights"
        yield Finding("ok", what, said)
        return
    yield Finding("missing", what, said)


def _release(what: str, chosen: SaeRef, online: bool) -> Iterator[Finding]:
    """A public release, by the list that sae-lens brings."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory().get(str(chosen.release))
    if known is None:
        yield Finding("missing", what, f"sae-lens knows no release {chosen.release}: look at its table of SAEs")
    elif chosen.sae_id not in known.saes_map:
        some = ", ".join(list(known.saes_map)[:5])
        yield Finding("missing", what, f"{chosen.release} has no {chosen.sae_id}: set sae.id, such as {some}")
    elif cached(known.repo_id, None, "model") is not None:
        yield Finding("ok", what, f"{chosen}, in the hub's cache")
    else:
        way = f"hf download {known.repo_id}, or name a folder with sae.path=DIR"
        yield on_hub(what, known.repo_id, None, "model", online, way)


def _shape(ref: ModelRef) -> Shape | None:
    """From config.json, or from what is known of the paper's models; None if neither is there."""
    from transformers import AutoConfig

    folder = None if ref.is_local else cached(ref.path, ref.revision, "model")
    if ref.is_local or folder is not None:
        return needs.shape_of(load_config(ref if folder is None else replace(ref, revision=folder.name)))
    if ref.path in needs.PAPER_MODELS:
        kind, values = needs.PAPER_MODELS[ref.path]
        return needs.shape_of(AutoConfig.for_model(kind, **values))
    return None


# ----------------------------------------------------------------------------------------------------------- engines


def engines(cfg: DictConfig, online: bool) -> Iterator[Finding]:
    """Who writes and annotates: packages, keys by the names of their variables, models of their own."""
    loads, crew = workload.loads(cfg), config.engines(cfg)
    roles: dict[str, Engine] = {}
    if loads:
        roles = {"writer": crew.writer, **{r: crew.annotators[r] for r in config.read_settings(cfg).roles}}
    elif workload.judged(cfg):
        roles = {COMPARE: crew.annotators[COMPARE]}
    if any(load.answered and not load.from_lab for load in loads):
        roles[COMPARE] = crew.annotators[COMPARE]
    by_engine: list[tuple[Engine, list[str]]] = []
    for role, engine in roles.items():
        known = next((names for other, names in by_engine if other == engine), None)
        if known is None:
            by_engine.append((engine, [role]))
        else:
            known.append(role)
    seen: set[Finding] = set()
    for engine, names in by_engine:
        for finding in _engine(engine, ", ".join(names), online):
            if finding not in seen:
                yield finding
            seen.add(finding)


def _engine(engine: Engine, roles: str, online: bool) -> Iterator[Finding]:
    settings = engine.settings
    if isinstance(settings, OpenAISettings):
        yield Finding("ok", f"engine of {roles}", f"openai: {settings.model} at {settings.base}")
        if settings.key_env is not None:
            there = bool(os.environ.get(settings.key_env, "").strip())
            said = "set in the environment" if there else f"not in the environment: export {settings.key_env}=..."
            yield Finding("ok" if there else "missing", f"key {settings.key_env}", said)
        return
    kind = type(settings).__name__.removesuffix("Settings").lower()
    model_of = "the model of the run" if engine.model is None else name_of(engine.model)
    try:
        settings.check()
        yield Finding("ok", f"engine of {roles}", f"{kind}: {model_of}")
    except FacError as error:
        yield Finding("missing", f"engine of {roles}", str(error))
    if engine.model is not None:
        own = engine.model
        yield from checked(f"model {name_of(own)}", lambda: model(own, online))


def prompts(cfg: DictConfig) -> Iterator[Finding]:
    """The prompt folders of the tasks hold a file for every role."""
    folders = [cfg.tasks[task].prompts for task in workload.tasks(cfg) if "tasks" in cfg]
    folders += [cfg.synthesis.prompts] if cfg.experiment.name == "lab" else []
    roles = dict.fromkeys([*ROLES, *(role for method in workload.methods(cfg) for role in method.prompts)])
    for folder in dict.fromkeys(folders):
        for role in roles:
            Prompts(folder).digest(role)
    if folders:
        yield Finding("ok", "prompts", ", ".join(dict.fromkeys(map(str, folders))))
