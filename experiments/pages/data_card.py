"""The card of a data set that was written (README.md beside its rows): how it was made, what it holds and lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import yaml

from experiments.harness.config import RunConfig
from experiments.harness.results import Table
from experiments.steps.fill import Covered
from experiments.steps.own_data import is_harmful
from fac.data.examples import LoadReport
from fac.provenance import commit_of_this_process
from fac.synthesis.samples import Counts

CARD = "README.md"
TEMPLATE = "data_card.md.jinja"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))  # the hub's


def card(
    run: RunConfig,
    made_with: Mapping[str, str],
    reports: Mapping[str, LoadReport],
    tables: Sequence[Table],
    rows: Sequence[Mapping[str, Any]],
    counts: Counts,
    counted: Mapping[str, str],
    at: Covered,
    warning: str,
    licence: str,
) -> str:
    """The card, with front matter that the hub and `datasets.load_dataset` read."""
    options = run.experiment
    title = options.task.description or f"Texts that {run.data['seed'].title} misses"
    front = {
        "pretty_name": title,
        "license": licence,
        "tags": ["synthetic", "sparse-autoencoder", "fac"]
        + (["not-for-all-audiences"] if is_harmful(options.task) else []),
        "size_categories": [next((name for most, name in SIZES if len(rows) < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data.jsonl"}]}],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(TEMPLATE).render(
        title=title,
        warning=warning if is_harmful(options.task) else "",
        said=options.task.harmful is not None,
        licence=licence,
        made_with={**made_with, "Code": commit_of_this_process() or "no checkout"},
        sources={role: (run.data[role], report) for role, report in reports.items()},
        tables=[replace(table, label="").to_markdown().partition("\n\n")[2].rpartition("\n\n")[0] for table in tables],
        titles=[table.title for table in tables],
        counts={told: getattr(counts, name) for name, told in counted.items()},
        columns=list(rows[0]) if rows else [],
        added=len(rows),
        at=at,
        budget=options.budget,
    )
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{text}\n"
