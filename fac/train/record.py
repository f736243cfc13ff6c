"""The record beside what was trained: model, settings and seed, so that scoring finds its way back."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fac.errors import FacError
from fac.model_ref import ModelRef


def save_record(file: Path, ref: ModelRef, seed: int, settings: Any) -> None:
    """Write `file`: the model by its lasting name and contents, the seed and the settings (a dataclass)."""
    record = {
        "model": asdict(ref.lasting),
        "contents": ref.lasting.contents(),
        "seed": seed,
        "settings": asdict(settings),
    }
    file.write_text(json.dumps(record, indent=1, sort_keys=True))


def load_record(file: Path, ref: ModelRef | None) -> tuple[ModelRef, int, dict[str, Any]]:
    """The model, the seed and the settings that `save_record` wrote.

    `ref` says where the model is now, if it is no longer where it was. Raises FacError if it is another model: other
    files, or the same hub model at another commit.
    """
    record = json.loads(file.read_text())
    was = ModelRef(**record["model"])
    here = was if ref is None else ref
    comparable = here.is_local == ("@" not in record["contents"]) and (here.is_local or here.path == was.path)
    if comparable and here.lasting.contents() != record["contents"]:
        raise FacError(
            f"{here.path} is not the model that {file.parent} was trained on: its files or its commit differ from "
            f"{record['contents']}. Give that model, or train again."
        )
    return here, int(record["seed"]), record["settings"]
