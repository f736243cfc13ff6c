"""Which model is meant: one `ModelRef` travels from measuring through writing and training to scoring and serving."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fac.chat import DATE, TEMPLATES
from fac.digests import digest_of
from fac.errors import FacError
from fac.hub import resolved_commit
from fac.model_folder import GGUF, not_a_folder
from fac.store import Step, Stored

if TYPE_CHECKING:
    import torch

MODEL = "model"  # where a step that makes a model keeps it, in its folder
DECIDING = {".json", ".jinja", ".safetensors", ".bin", ".model", ".txt"}  # files of a model's folder


def default_device() -> torch.device:
    """The GPU if there is one; torch is loaded for the answer."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class ModelRef:
    """Which model: a hub id (with a revision) or a local folder, and how its chats are written."""

    path: str
    revision: str | None = None
    chat_template: str | None = None  # None: the tokenizer's own; "plain": 'role: text' lines; "alpaca"
    dtype: str = "auto"  # "auto" (float32 on a CPU, as stored on a GPU), "float32", "bfloat16", "float16"
    adapter: str | None = None  # folder of a LoRA adapter of peft, as `fac.train.sft` writes it

    @property
    def made_by(self) -> tuple[Step, ...]:
        """The step that is to be finished before the model can be loaded; of a model that is there, none."""
        return ()

    @property
    def kin(self) -> ModelRef:
        """The model that tells its architecture, and is there before anything runs: itself."""
        return self

    @property
    def name(self) -> str:
        """What it is called: its hub id, or the last part of its folder."""
        return self.folder.name if self.is_local else self.path

    @property
    def is_local(self) -> bool:
        return self.folder.is_dir()

    @property
    def folder(self) -> Path:
        """Where a local model lies."""
        return Path(self.path).expanduser()

    @property
    def commit(self) -> str | None:
        """The commit of a hub model that is loaded: that of `revision` now. None for a folder.

        Raises FacError if neither the hub nor its cache here has it, or if a path names a folder that is not there.
        """
        if self.is_local:
            return None
        if self.path.startswith(("/", ".", "~")) or self.folder.exists() or self.folder.suffix == GGUF:
            raise not_a_folder(self.folder)
        return resolved_commit(self.path, self.revision, "model")

    @property
    def lasting(self) -> ModelRef:
        """The same model, found from any working directory and at the same commit at any time."""
        if self.is_local:
            return ModelRef(str(self.folder.resolve()), None, self.chat_template, self.dtype, self.adapter)
        return ModelRef(self.path, self.commit, self.chat_template, self.dtype, self.adapter)

    @property
    def weights_of(self) -> str:
        """Where the weights of a folder come from, if they are not the model's own but of few bits; else ""."""
        file = self.folder / "config.json"
        if not file.is_file():
            return ""
        return str(json.loads(file.read_text(encoding="utf-8")).get("weights_of", ""))

    def dtype_on(self, device: torch.device) -> str:
        """Of the weights in memory. On a CPU "auto" is float32: half the speed of bf16 on new processors, but exact."""
        return "float32" if self.dtype == "auto" and device.type == "cpu" else self.dtype

    def contents(self) -> str:
        """What the model is made of, without how it is used: hub id @ commit, or a digest of all the folder's files.

        The place of a folder does not count.
        """
        if not self.is_local:
            return f"{self.path}@{self.commit}"
        return digest_of("", [f for f in sorted(self.folder.iterdir()) if f.is_file() and f.suffix in DECIDING])

    def identity(self) -> str:
        """What makes this model this model, for store keys: its contents and adapter, and how it is used.

        Used: by which chat template, rendered at which date (`fac.chat`), in which dtype on this machine. Raises
        FacError for a hub model whose commit neither the hub nor the cache can tell, and for an adapter that is gone.
        """
        template = self.chat_template or "own"
        if template in TEMPLATES:
            template += ":" + hashlib.sha256(TEMPLATES[template].encode()).hexdigest()[:8]
        used = f"{template}/{DATE:%Y-%m-%d}/{self.dtype_on(default_device())}"
        adapter = "" if self.adapter is None else f"+{adapter_digest(Path(self.adapter))}"
        return f"{self.contents()}/{used}{adapter}"


@dataclass(frozen=True)
class MadeModel(ModelRef):
    """A model that a step of a store makes: it lies in the step's folder, and the step's key stands for it.

    `path` is what it is called. Whatever works with it is built after that step (`Step.before`).
    """

    step: Step = field(kw_only=True, repr=False)
    store: Path = field(kw_only=True)  # root of the store
    origin: ModelRef = field(kw_only=True)  # the model that it was trained from

    @property
    def made_by(self) -> tuple[Step, ...]:
        return (self.step,)

    @property
    def kin(self) -> ModelRef:
        return self.origin.kin

    @property
    def name(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        return True

    @property
    def folder(self) -> Path:
        return self.store / self.step.name / self.step.key / MODEL

    @property
    def commit(self) -> None:
        return None

    def contents(self) -> str:
        return f"{self.step.name}:{self.step.key}"

    def __getstate__(self) -> dict[str, object]:
        """Without the way to make it: for another process, in which it is made already."""
        return {**self.__dict__, "step": Stored(self.step)}


def adapter_digest(folder: Path) -> str:
    """Of an adapter's weights and what scales them; where its base model lies does not count."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError):
        raise FacError(f"There is no adapter in {folder}: give the folder that train_sft wrote.") from None
    told = {  # peft writes sets as lists, in any order
        key: sorted(value) if isinstance(value, list) else value
        for key, value in config.items()
        if key not in ("base_model_name_or_path", "peft_version", "revision")
    }
    return digest_of(json.dumps(told, sort_keys=True), sorted(folder.glob("adapter_model.*")))
