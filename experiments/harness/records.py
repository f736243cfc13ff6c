"""What trials came to, read from their finished steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.harness.experiment import Record, Trial
from experiments.harness.graph import TrialSteps
from experiments.tasks import TASKS
from experiments.tasks.base import CHOSEN, load_metrics, load_replicates
from experiments.tasks.sources import load_notes
from fac.encoder import CorpusFeatures
from fac.gap import MissingFeatures
from fac.interpret import interpretation_note, load_interpretations
from fac.store import Store
from fac.synthesis.covered import load_coverage
from fac.synthesis.generate import Generated


def record_of(trial: Trial, steps: TrialSteps, store: Store, run_id: str = "") -> Record:
    """The record of a trial whose steps are finished."""

    def folder(name: str) -> Path | None:
        step = dict(steps.named()).get(name)
        return None if step is None else store.root / step.name / step.key

    counts: dict[str, int] = {}
    notes = [
        note for note, is_loss in load_notes(store.root / steps.data.draw.name / steps.data.draw.key).items() if is_loss
    ]
    if steps.mining is not None:
        missing = MissingFeatures.load(_there(folder("missing")))
        counts |= {"relevant": int(missing.active().sum()), "missing": int(missing.missing().sum())}
        for name, step in (("anchor", steps.mining.anchor_features), ("seed", steps.mining.seed_features)):
            notes.append(CorpusFeatures.load(store.root / step.name / step.key).note(name))
        notes.append(interpretation_note(load_interpretations(_there(folder("interpretations"))).values()))
    if (added := folder("added")) is not None:
        counts |= asdict(Generated.load(TASKS[trial.task].schema, added).counts)
    elif steps.mining is not None:
        counts["added"] = 0
    if (measured := steps.added_features) is not None:
        lengths = CorpusFeatures.load(store.root / measured.name / measured.key).lengths
        counts |= {"added_texts": len(lengths), "added_tokens": int(lengths.sum())}
    if (chosen := folder("chosen")) is not None:
        notes.append(json.loads((chosen / CHOSEN).read_text(encoding="utf-8"))["note"])
    scores, coverage = folder("scores"), folder("coverage")
    return Record(
        trial,
        {} if scores is None else load_metrics(scores),
        {} if coverage is None else load_coverage(coverage),
        counts,
        {name: step.key for name, step in steps.named()},
        run_id,
        tuple(f"{TASKS[trial.task].title}: {note}" for note in notes if note),
        {} if scores is None else load_replicates(scores),
    )


def _there(path: Path | None) -> Path:
    assert path is not None
    return path


def dump(records: Iterable[Record]) -> str:
    """The records as one JSON file: records.json of a run's folder."""
    return json.dumps([record.to_json() for record in records], indent=1, sort_keys=True) + "\n"


def load(file: Path) -> list[Record]:
    """What `dump` gave."""
    told: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [Record.from_json(one) for one in told]


def losses(records: Iterable[Record], where: Callable[[Record], bool] = lambda record: True) -> list[str]:
    """What a table must say of the records, each once."""
    return list(dict.fromkeys(note for record in records if where(record) for note in record.notes))
