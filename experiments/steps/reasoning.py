"""Benchmarks of lm-eval on a model as it is, or as it was fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fac.data.files import content_digest
from fac.model_ref import ModelRef
from fac.store import Step

FOUND = "benchmarks.json"
FILE_TASK = "gsm8k_file"  # reads a file; all others read the hub


def benchmarks_step(model: ModelRef, trained: Step | None, tasks: Sequence[str], file: Path | None) -> Step:
    """What lm-eval measures (`load_benchmarks`); `trained` None: of the model as it is."""
    params = {
        "model": model,
        "tasks": list(tasks),
        "file": partial(content_digest, file) if file else None,
        "trained": trained is not None,
    }
    build = partial(_measure, model, tuple(tasks), file, trained is not None)
    return Step("benchmarks", build, params, (trained,) if trained else ())


def _measure(
    model: ModelRef, tasks: Sequence[str], file: Path | None, is_trained: bool, folder: Path, *inputs: Path
) -> None:
    from eval.harness import run_tasks
    from fac.backbone import load_causal_lm
    from fac.train.sft import load_sft

    ref = load_sft(inputs[0], model) if is_trained else replace(model)
    network, tokenizer = load_causal_lm(ref)
    files = {"gsm8k": file} if file else {}
    found = run_tasks(network, tokenizer, tasks, data_files=files)
    (folder / FOUND).write_text(json.dumps(found), encoding="utf-8")


def load_benchmarks(folder: Path) -> dict[str, dict[str, float]]:
    """Metrics by task, as fractions."""
    return json.loads((folder / FOUND).read_text(encoding="utf-8"))
