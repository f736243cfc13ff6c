"""Is it there? Software, models, SAEs, engines with their keys, prompts. The hub is only asked what it has."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata

from transformers import AutoModelForCausalLM

from experiments.harness import cluster
from experiments.harness.config import RunConfig
from experiments.harness.doctor import needs
from experiments.harness.doctor.base import Finding, checked, name_of
from experiments.harness.doctor.hub import cached, on_hub
from experiments.harness.doctor.needs import Encoder, Shape
from experiments.harness.doctor.uses import WRITER, Uses, shown
from experiments.harness.doctor.workload import Facts, engine_kind
from fac import model_weights
from fac.backbone import ModelRef, default_device, load_config, load_tokenizer
from fac.chat import DATE, is_dated
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.llm.engines import Engine
from fac.llm.openai import OpenAISettings
from fac.provenance import REPOSITORY
from fac.sae.checkpoint import find_checkpoint, read_checkpoint
from fac.sae.ref import CONFIG, SaeRef, check_weights, read_config, recorded_layer

DISTRIBUTION = "fac-synthesis"
CONSTRAINTS = REPOSITORY / "constraints.txt"


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


# ------------------------------------------------------------------------------------------------------------ models


def models(uses: Uses, online: bool, facts: Facts) -> Iterator[Finding]:
    """Every model and its SAEs; what is known of them goes to `facts`."""
    for ref in uses.models.values():
        what = f"model {name_of(ref)}"
        yield from checked(what, lambda ref=ref: model(ref, online))
        yield from checked(what, lambda ref=ref: _known(ref, facts))
        seen: set[Finding] = set()  # encoders that differ in how they read one SAE
        for encoder in uses.encoders:
            if encoder.model == ref:
                found = checked(f"SAE for {name_of(ref)}", lambda encoder=encoder: sae(encoder, online, facts))
                yield from (finding for finding in found if finding not in seen)
                seen |= {*found}


def _known(ref: ModelRef, facts: Facts) -> Iterator[Finding]:
    """The shape of a model, for the estimates; a model that cannot be read is said already."""
    try:
        if (shape := shape_of(ref)) is not None:
            facts.shapes[ref.path] = shape
    except FacError:
        return
    yield from ()


def model(ref: ModelRef, online: bool) -> Iterator[Finding]:
    """A model by folder or hub id: its weights are the model's and whole, its tokenizer has a chat template."""
    what = f"model {name_of(ref)}"
    if ref.made_by:
        yield Finding("ok", what, f"the run makes it of {name_of(ref.kin)}")
        return
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


def sae(encoder: FeatureEncoder, online: bool, facts: Facts) -> Iterator[Finding]:
    """The SAE: that it is there, and fits the model by what is recorded of both. What is known goes to `facts`."""
    ref, chosen, layer, shape = encoder.model, encoder.sae, encoder.chosen_layer, facts.shape(encoder.model)
    what = f"SAE for {name_of(ref)}"
    if not isinstance(chosen, SaeRef):
        layer = layer or (shape.layers // 2 if shape else None)
        if shape and layer and layer > shape.layers:
            yield Finding("missing", what, f"layer {layer} does not exist: choose sae.layer from 1 to {shape.layers}")
            return
        said = f"to be trained first, on layer {layer or 'at half the depth'}: width {chosen.width}, K {chosen.k}"
        yield Finding("ok", what, said)
        return
    if chosen.release:
        yield from _release(what, chosen, online)
        return
    if chosen.folder is not None:
        checkpoint = find_checkpoint(chosen)
        if checkpoint is None:
            yield _lens_folder(what, encoder, chosen, shape, facts)
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


def _lens_folder(what: str, encoder: FeatureEncoder, chosen: SaeRef, shape: Shape | None, facts: Facts) -> Finding:
    """A folder in SAELens format: its two records and its weights. Raises FacError as loading it would."""
    folder, recorded = chosen.fetched(CONFIG), recorded_layer(chosen)
    assert folder is not None
    told = read_config(folder)
    check_weights(folder)
    d_in, width, k = told["d_in"], told["d_sae"], told.get("k")
    layer = encoder.chosen_layer if encoder.chosen_layer is not None else recorded
    if layer is None:
        said = f"{folder} does not say which layer it was trained on: set sae.layer"
    elif shape and d_in != shape.d_model:
        said = f"{folder} reads {d_in} dimensions, the model has {shape.d_model}: name another, or use sae=train"
    elif shape and layer > shape.layers:
        said = f"layer {layer} does not exist: choose sae.layer from 1 to {shape.layers}"
    elif recorded is not None and recorded != layer:
        said = f"trained on layer {recorded}, not {layer}: leave sae.layer out, or use sae=train"
    else:
        kept = None if encoder.settings.rule == "official" or k is None else int(k)
        facts.encoders[id(encoder)] = Encoder(layer, width, kept)
        said = f"in {folder}: layer {layer}, width {width}, K {k}; the run compares it with the model's weights"
        return Finding("ok", what, said)
    return Finding("missing", what, said)


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


def shape_of(ref: ModelRef) -> Shape | None:
    """From config.json, or from what is known of the paper's models; None if neither is there."""
    from transformers import AutoConfig

    ref = ref.kin
    folder = None if ref.is_local else cached(ref.path, ref.revision, "model")
    if ref.is_local or folder is not None:
        return needs.shape_of(load_config(ref if folder is None else replace(ref, revision=folder.name)))
    if ref.path in needs.PAPER_MODELS:
        kind, values = needs.PAPER_MODELS[ref.path]
        return needs.shape_of(AutoConfig.for_model(kind, **values))
    return None


# ------------------------------------------------------------------------------------------------------------ backend


def backend(run: RunConfig) -> Iterator[Finding]:
    """Whether the Ray cluster that is to train is there; nothing where this machine does."""
    if run.backend == "ray":
        try:
            cluster.check(run.ray.address)
            yield Finding("ok", "backend", f"Ray, {run.ray.address or 'a cluster of this machine'}")
        except FacError as error:
            yield Finding("missing", "backend", str(error))


# ----------------------------------------------------------------------------------------------------------- engines


def engines(uses: Uses, own: ModelRef) -> Iterator[Finding]:
    """Who writes and annotates: packages, keys by the names of their variables; `own` is the model of the run."""
    held: list[tuple[Engine, list[str], list[str]]] = []  # without its model, roles, models
    for role, engine in sorted(uses.engines, key=lambda held: held[0] != WRITER):
        alike = replace(engine, model=None)
        _, roles, names = next((known for known in held if known[0] == alike), (alike, [], []))
        if not roles:
            held.append((alike, roles, names))
        _add(roles, role)
        if engine.model is not None:
            _add(names, "the model of the run" if engine.model == own else name_of(engine.model))
    seen: set[Finding] = set()
    for engine, roles, names in held:
        found = list(_engine(engine, ", ".join(roles), names))
        yield from (finding for finding in found if finding not in seen)
        seen |= {*found}


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _engine(engine: Engine, roles: str, models: Sequence[str]) -> Iterator[Finding]:
    settings = engine.settings
    if isinstance(settings, OpenAISettings):
        yield Finding("ok", f"engine of {roles}", f"openai: {settings.model} at {settings.base}")
        if settings.key_env is not None:
            there = bool(os.environ.get(settings.key_env, "").strip())
            said = "set in the environment" if there else f"not in the environment: export {settings.key_env}=..."
            yield Finding("ok" if there else "missing", f"key {settings.key_env}", said)
        return
    try:
        settings.check()
        yield Finding("ok", f"engine of {roles}", f"{engine_kind(engine)}: {', '.join(models)}")
    except FacError as error:
        yield Finding("missing", f"engine of {roles}", str(error))


def prompts(uses: Uses) -> Iterator[Finding]:
    """The prompt folders. That each holds what is asked of it is part of planning: its digest is in the steps' keys."""
    if uses.prompts:
        yield Finding("ok", "prompts", ", ".join(map(shown, uses.prompts)))
