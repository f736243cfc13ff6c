"""What the hub has, and what of it lies in the cache here. The hub is asked for names only; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from experiments.harness.doctor.base import Finding, short
from fac.hub import snapshot


def cached(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> Path | None:
    """The folder of a hub repository in the cache, if anything of it is there."""
    folder = snapshot(name, revision, kind)
    return folder if kind == "dataset" or (folder and any(folder.rglob("*.json"))) else None


def on_hub(what: str, name: str, revision: str | None, kind: str, online: bool, way: str) -> Finding:
    """A repository that is not in the cache: whether the hub would give it."""
    if not online:
        said = "not in the hub's cache, and the hub cannot be reached from here (or HF_HUB_OFFLINE is set)"
        return Finding("missing", what, f"{said}: where it can, {way}")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    hub = huggingface_hub.HfApi()
    try:
        (hub.dataset_info if kind == "dataset" else hub.model_info)(name, revision=revision, timeout=10)
        hub.auth_check(name, repo_type=kind)
    except GatedRepoError:
        said = f"gated: accept its licence at {hub.endpoint}/{name} and log in with `hf auth login`"
    except RevisionNotFoundError:
        said = f"the hub has no revision {revision} of it: set it to null for the newest"
    except RepositoryNotFoundError:
        said = f"not on the hub, or not for you: check the name, log in with `hf auth login`, or {way}"
    except HfHubHTTPError as error:
        said = f"the hub cannot be asked ({short(error)}): try again, or {way}"
    else:
        return Finding("ok", what, "on the hub: the run will download it")
    return Finding("missing", what, said)
