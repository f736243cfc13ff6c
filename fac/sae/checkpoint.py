"""The paper's released SAEs: `.pth` checkpoints of tied Top-K SAEs, imported to SAELens format.

The layout is what the authors' SAE code writes (paper §4.2; `autoencoder.py` of the parent project SelfReg):

    {"weight": {"W_enc" [d_inp, d_hide], "b_enc" [d_hide], "b_dec" [d_inp], "mask" [d_hide]},
     "config": {"d_inp", "d_hide", "topK"}}

    pre = (x - b_dec) W_enc + b_enc;   z = ReLU(pre if among the topK largest, else 0);   x' = z W_enc^T + b_dec

`mask` is for editing features and takes no part in this. The layer stands in the name only (TopK7_l16_h4096_epoch3.pth,
sae_llama_l16_h65536), the model nowhere: a wrong one is found by the check of `fac.sae.load`. No released file could be
inspected when this was written, so any other layout is refused with what was found. Such SAEs are trained in
`fac.sae.recipe`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fac.digests import file_digest
from fac.errors import FacError
from fac.jsonl import write_json_atomic
from fac.sae.hooks import hook_name
from fac.sae.ref import HUB, RECORD, SUFFIXES, SaeRef
from fac.weights import check_fetched, check_tensor

_LAYER = re.compile(r"_l(\d+)(?=[_.]|$)")
_LAYOUT = '{"weight": {W_enc, b_enc, b_dec}, "config": {d_inp, d_hide, topK}}'


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk or on the hub, and the layer that its name, or that of what it lies in, tells, if any."""

    name: str  # a path, or the file's place in the repository
    layer: int | None
    repository: str | None = None
    commit: str | None = None

    def identity(self) -> str:
        """For store keys: a digest of the file's content, or where on the hub it is."""
        if self.repository is not None:
            return f"{self.repository}/{self.name}@{self.commit}"
        return file_digest(Path(self.name))[:20]

    def fetch(self) -> Path:
        """The file, downloaded if need be. Raises FacError if the hub does not give it."""
        if self.repository is None:
            return Path(self.name)
        import huggingface_hub

        try:
            return Path(huggingface_hub.hf_hub_download(self.repository, self.name, revision=self.commit))
        except OSError as error:
            raise _unreachable(self.repository, error) from None


def find_checkpoint(ref: SaeRef) -> Checkpoint | None:
    """The checkpoint that `ref` names: a file, or the one in a folder or hub repository, of which nothing is fetched.

    `ref.sae_id` chooses among several. None if `ref` is a release, or in SAELens format. Raises FacError if there is no
    such file, if several are there and none is chosen, or if the hub cannot be asked.
    """
    if ref.path is None:
        return None
    path = Path(ref.path).expanduser()
    if path.is_dir():
        name = _choose([file.name for file in sorted(path.iterdir())], ref)
        return None if name is None else Checkpoint(str(path / name), _named_layer(name, path.name))
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise FacError(f"There is no SAE checkpoint {path}: set sae.path to the file, or to hub:OWNER/REPOSITORY.")
        return Checkpoint(str(path), _named_layer(path.name))
    if path.exists() or ref.path.startswith(("/", ".", "~")) or (ref.sae_id and not ref.sae_id.endswith(SUFFIXES)):
        return None
    return _on_hub(ref.path.removeprefix(HUB), ref)


def import_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint to `folder` in SAELens format, float32. Raises FacError as `read_checkpoint` does."""
    from sae_lens.saes.sae import SAEMetadata

    weight, k = read_checkpoint(checkpoint.fetch())
    hook = {} if checkpoint.layer is None else {"hook_name": hook_name(checkpoint.layer)}
    save_tied(folder, weight["W_enc"], weight["b_enc"], weight["b_dec"], k, SAEMetadata(prepend_bos=True, **hook))
    # The authors train on all tokens of a text, and so are their losses.
    write_json_atomic(folder / RECORD, {"imported": Path(checkpoint.name).name, "tokens": "all"})


def save_tied(
    folder: Path, w_enc: torch.Tensor, b_enc: torch.Tensor, b_dec: torch.Tensor, k: int, metadata: Any
) -> None:
    """Write a tied Top-K SAE in SAELens' inference format; `w_enc` is [d_in, width]."""
    from sae_lens import TopKSAE, TopKSAEConfig

    d_in, width = w_enc.shape
    config = TopKSAEConfig(
        d_in=d_in,
        d_sae=width,
        k=k,
        device="meta",  # nothing is initialised that is replaced below
        apply_b_dec_to_input=True,
        normalize_activations="none",
        rescale_acts_by_decoder_norm=False,
        metadata=metadata,
    )
    module = TopKSAE(config)
    config.device = "cpu"
    weights = {"W_enc": w_enc, "W_dec": w_enc.T, "b_enc": b_enc, "b_dec": b_dec}
    plain = {name: tensor.detach().float().cpu().contiguous() for name, tensor in weights.items()}
    module.load_state_dict(plain, assign=True)
    module.save_model(folder)


def _on_hub(repository: str, ref: SaeRef) -> Checkpoint | None:
    import huggingface_hub

    try:
        if ref.sae_id:
            found = huggingface_hub.hf_hub_download(repository, ref.sae_id, dry_run=True)
            name, commit = found.filename, found.commit_hash
        else:
            commit, names = _listing(repository)
            name = _choose(names, ref)
    except (OSError, ValueError) as error:  # ValueError: what cannot be a repository's name
        raise _unreachable(str(ref), error) from None
    return None if name is None else Checkpoint(name, _named_layer(Path(name).name, repository), repository, commit)


def _listing(repository: str) -> tuple[str, list[str]]:
    """The commit of a hub repository, and the files there; those in the cache where the hub does not answer."""
    import huggingface_hub

    try:
        files = huggingface_hub.snapshot_download(repository, dry_run=True)
        return next((file.commit_hash for file in files), ""), [file.filename for file in files]
    except OSError:
        folder = Path(huggingface_hub.snapshot_download(repository, local_files_only=True))
        return folder.name, sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _unreachable(name: str, error: Exception) -> FacError:
    return FacError(
        f"The SAE {name} cannot be had from the hub ({' '.join(str(error).split())[:200]}): check its name and that "
        f"this machine can reach the hub, or give a file or folder as sae.path."
    )


def _choose(names: Sequence[str], ref: SaeRef) -> str | None:
    """The checkpoint among the files of a folder or repository; None if it is in SAELens format, or holds none."""
    found = [name for name in names if name.endswith(SUFFIXES)]
    if ref.sae_id in found:
        return ref.sae_id
    if not found or any(Path(name).name == "cfg.json" for name in names):
        return None
    if len(found) > 1:
        raise FacError(f"{ref.path} holds several SAE checkpoints: set sae.id to one of {', '.join(found)}.")
    return found[0]


def _named_layer(*names: str) -> int | None:
    found = [_LAYER.search(name) for name in names]
    return next((int(match[1]) for match in found if match), None)


def read_checkpoint(file: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors of a checkpoint (W_enc [d_in, width], b_enc, b_dec) and its K.

    Only tensors and plain values are read, so that a file cannot run code. Raises FacError if it holds anything else,
    another layout than the module's docstring shows, or what cannot be weights (`fac.weights`).
    """
    check_fetched(file, "The SAE checkpoint")
    with file.open("rb") as stream:
        start = stream.read(16)
    if not start.startswith((b"PK", b"\x80")):  # a zip file, or the pickle that torch wrote before 1.6
        raise FacError(
            f"The SAE checkpoint {file} is no file of torch.save (it begins with {start!r}): fetch it again."
        )
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FacError(
            f"The SAE checkpoint {file} was not opened, since it holds more than tensors and plain values and could "
            f"run code here: fetch it again from its authors, or have it saved as {_LAYOUT}."
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FacError(f"The SAE checkpoint {file} is damaged ({reason}): fetch it again.") from None
    parts = held if isinstance(held, Mapping) else {}
    weight, config = parts.get("weight"), parts.get("config")
    if (
        not isinstance(weight, Mapping)
        or not isinstance(config, Mapping)
        or set(weight) - {"mask"} != {"W_enc", "b_enc", "b_dec"}
        or not all(isinstance(tensor, torch.Tensor) for tensor in weight.values())
        or not {"d_inp", "d_hide", "topK"} <= set(config)
    ):
        raise FacError(
            f"The SAE checkpoint {file} is none of the paper's: it holds {_described(held)}, where {_LAYOUT} was "
            f"expected; convert it to SAELens format, or use sae=train."
        )
    d_in, width, k = (config[key] for key in ("d_inp", "d_hide", "topK"))
    expected = {"W_enc": (d_in, width), "b_enc": (width,), "b_dec": (d_in,)}
    shapes = {name: tuple(weight[name].shape) for name in expected}
    if shapes != expected or isinstance(k, bool) or not (isinstance(k, int) and 1 <= k <= width):
        raise FacError(
            f"The SAE checkpoint {file} contradicts itself: its config is {dict(config)} and its tensors are "
            f"{', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}; fetch it again."
        )
    for name in expected:
        check_tensor(weight[name], f"{name} in the SAE checkpoint {file}")
    return {name: weight[name] for name in expected}, k


def _described(held: Any, depth: int = 2) -> str:
    """What a file holds, in a few words: the keys of its mappings, the shapes of its tensors."""
    if isinstance(held, Mapping) and depth:
        parts = [f"{key}: {_described(value, depth - 1)}" for key, value in list(held.items())[:12]]
        return "{" + ", ".join(parts) + (", ..." if len(held) > 12 else "") + "}"
    if isinstance(held, torch.Tensor):
        return f"tensor {list(held.shape)}"
    return repr(held) if isinstance(held, (int, float, str)) else type(held).__name__
