"""Which SAE is meant, where it lies, and what its files say of it before any weight is used.

Folders in SAELens' format, hub repositories of such, public releases, and `fac.json`, the record that an SAE of this
project carries. `fac.sae.load` says what fits it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fac.digests import digest_of
from fac.errors import FacError
from fac.hub import failures, resolved_commit
from fac.sae.hooks import told_layer

HUB = "hub:"  # may stand before a repository of the Hugging Face hub
SUFFIXES = (".pth", ".pt")  # of the paper's checkpoints
CONFIG, WEIGHTS, RECORD = "cfg.json", "sae_weights.safetensors", "fac.json"


@dataclass(frozen=True)
class SaeRef:
    """Which SAE: a folder or hub repository in SAELens format, one of the paper's checkpoints, or a public release.

    `sae_id` is the id within a release, and a folder or file within a folder or repository. A checkpoint is imported
    first (`fac.sae.checkpoint`).
    """

    path: str | None = None
    release: str | None = None
    sae_id: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.path or self.release, self.sae_id) if part)

    @property
    def folder(self) -> Path | None:
        """Where an SAE on this machine lies, or should; None for one of the hub."""
        if self.path is None:
            return None
        path = Path(self.path).expanduser()
        if not path.exists() and not self.path.startswith(("/", ".", "~")):
            return None
        return path / self.sae_id if self.sae_id else path

    @property
    def repository(self) -> str:
        """The hub repository of one that is not on this machine. Raises FacError for a release that nobody knows."""
        if self.path is not None:
            return self.path.removeprefix(HUB)
        from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

        known = get_pretrained_saes_directory().get(str(self.release))
        if known is None and "/" not in str(self.release):
            raise FacError(
                f"The SAE {self} cannot be loaded (sae-lens knows no release {self.release}): check its name and that "
                f"this machine can reach the hub, give a folder as sae.path, or use sae=train."
            )
        return str(self.release) if known is None else known.repo_id

    def commit(self) -> str:
        """The commit of that repository. Raises FacError if neither the hub nor its cache can say."""
        return resolved_commit(self.repository, None)

    def identity(self) -> str:
        """For store keys: a digest of the folder's files, or what it is called on the hub, and at which commit."""
        if self.folder is None:
            return f"{self}@{self.commit()}"
        _check_there(self.folder, (CONFIG, WEIGHTS))
        return digest_of("", [self.folder / CONFIG, self.folder / WEIGHTS])

    def fetched(self, *names: str) -> Path | None:
        """The folder on this machine that holds the SAE's files `names`; None for a release, which sae-lens fetches.

        Those of a hub repository are downloaded at its commit. Raises FacError if one cannot be had.
        """
        folder = self.folder
        if folder is None and self.path is not None:
            import huggingface_hub

            inside = f"{self.sae_id}/" if self.sae_id else ""
            wanted = [f"{inside}{name}" for name in (*names, RECORD)]
            try:
                found = huggingface_hub.snapshot_download(
                    self.repository, revision=self.commit(), allow_patterns=wanted
                )
            except failures() as error:
                raise unloadable(self, error) from None
            folder = Path(found) / inside
        if folder is not None:
            _check_there(folder, names if self.folder is None else (CONFIG, WEIGHTS))
        return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The cfg.json of a folder in SAELens format. Raises FacError if its sizes are none."""
    cfg = _json_object(folder / CONFIG)
    d_in, width, k = cfg.get("d_in"), cfg.get("d_sae"), cfg.get("k", (cfg.get("activation_fn_kwargs") or {}).get("k"))
    if not (_is_count(d_in) and _is_count(width)):
        raise FacError(f"{folder / CONFIG} says d_in {d_in!r} and d_sae {width!r}, which are no sizes: fetch it again.")
    if k is not None and not (_is_count(k) and k <= width):
        raise FacError(f"{folder / CONFIG} says k {k!r}, which is no number of features from 1 to {width}: correct it.")
    return cfg


def check_weights(folder: Path) -> None:
    """Raise FacError, saying what is wrong, unless the weights are whole, dense, real and finite (`fac.weights`)."""
    from fac.weights import check_safetensors

    if not check_safetensors(folder / WEIGHTS, "The SAE's file of weights"):
        raise FacError(f"{folder / WEIGHTS} holds no tensors: fetch it again.")


def read_record(folder: Path | None) -> dict[str, Any]:
    """The fac.json of an SAE's folder; empty for an SAE that others made. Raises FacError if it is damaged."""
    file = None if folder is None else folder / RECORD
    if file is None or not file.is_file():
        return {}
    record = _json_object(file)
    if "probe" in record and not _is_probe(record["probe"]):
        raise FacError(f"{file} holds a probe without chats, explained_variance and l0: fetch the SAE again.")
    return record


def _is_probe(probe: Any) -> bool:
    try:
        numbers = [probe["explained_variance"], probe["l0"]]
        words = [message[key] for chat in probe["chats"] for message in chat for key in ("role", "content")]
    except (KeyError, TypeError, IndexError):
        return False
    return all(type(n) in (int, float) for n in numbers) and bool(words) and all(type(word) is str for word in words)


def layer_in(cfg: Mapping[str, Any], record: Mapping[str, Any], name: str) -> int | None:
    """The layer that one or both of an SAE's records tell; None if neither does. Raises FacError if they differ."""
    told, recorded = told_layer(cfg, name), record.get("layer")
    if told is not None and recorded not in (None, told):
        raise FacError(
            f"The SAE {name} was trained on layer {recorded} by {RECORD}, on {told} by {CONFIG}: correct it."
        )
    return recorded if told is None else told


def recorded_layer(ref: SaeRef) -> int | None:
    """The layer that an SAE was trained on, without loading its weights; None if it does not say.

    For a release or a hub repository its configuration is fetched, or known to sae-lens. Raises FacError if it cannot
    be had, is no SAE, or reads another place than the residual stream after a layer.
    """
    folder = ref.fetched(CONFIG)
    if folder is not None:
        record = read_record(folder)
        return layer_in(read_config(folder), record, str(record.get("imported", ref)))
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    try:
        return told_layer(load_sae_config_from_huggingface(str(ref.release), str(ref.sae_id)), str(ref))
    except (*failures(), KeyError) as error:
        raise unloadable(ref, error) from None


def unloadable(ref: SaeRef, error: Exception) -> FacError:
    """What is said of an SAE that is there and cannot be loaded, or that the hub does not give."""
    reason = " ".join(str(error).split())[:300]
    if ref.folder is not None:
        out = f"give a folder with {CONFIG} and {WEIGHTS} as sae.path, or train one with sae=train"
    else:
        out = "check its name and that this machine can reach the hub, give a folder as sae.path, or use sae=train"
    return FacError(f"The SAE {ref} cannot be loaded ({reason}): {out}.")


def _check_there(folder: Path, names: tuple[str, ...]) -> None:
    if not folder.is_dir():
        raise FacError(f"There is no SAE folder {folder}: set sae.path to a SAELens folder, or use sae=train.")
    if missing := [name for name in names if not (folder / name).is_file()]:
        files = sorted(file.name for file in folder.iterdir())
        held = ", ".join(files[:8]) + (", ..." if len(files) > 8 else "") if files else "nothing"
        raise FacError(
            f"{folder} is no SAE in SAELens format: it has no {' and no '.join(missing)} (it holds {held}); give a "
            f"folder with {CONFIG} and {WEIGHTS} as sae.path (sae-lens converts other formats), or use sae=train."
        )


def _json_object(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FacError(f"{file} is no JSON ({' '.join(str(error).split())[:100]}): fetch it again.") from None
    if not isinstance(held, dict):
        raise FacError(f"{file} holds a {type(held).__name__} and no JSON object: fetch it again.")
    return held


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
