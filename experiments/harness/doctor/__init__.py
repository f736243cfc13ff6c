"""What a configuration needs, and what of that is missing here: said before anything runs.

    fac doctor experiment=main_results scale=paper model=qwen

Every check is a small function that yields `Finding` records; `examine` calls them all, `report` prints them.
`presence` looks for software, models, SAEs, engines, keys and data; `resources` compares memory, disk and time with
what `workload` and `needs` estimate. Nothing is downloaded, no model is loaded, no LLM is asked, and of keys only the
names of their variables are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from experiments.doctor import data, presence, resources
from experiments.doctor.base import Finding, checked

__all__ = ["Finding", "examine", "report"]


def examine(cfg: DictConfig, online: bool) -> list[Finding]:
    """All findings for a composed configuration; `online` says whether the hub answers. Raises nothing."""
    findings = [*checked("software", presence.software), *checked("settings", lambda: presence.unset(cfg))]
    parties: list[presence.Party] = []
    findings += checked("models", lambda: presence.models(cfg, online, parties))
    findings += checked("base model", lambda: presence.base_model(cfg, online))
    findings += checked("engines", lambda: presence.engines(cfg, online))
    findings += checked("prompts", lambda: presence.prompts(cfg))
    findings += checked("data", lambda: data.data_sets(cfg, online))
    findings += checked("lab data", lambda: data.lab_data(cfg))
    findings += checked("tests", lambda: data.beside_tests(cfg, online))
    findings += checked("files", lambda: data.named_files(cfg, online))
    findings += checked("memory, disk, time", lambda: resources.resources(cfg, parties))
    return findings


def report(findings: Sequence[Finding]) -> str:
    """One aligned line per finding, and a summary."""
    width = max(len(finding.what) for finding in findings)
    lines = [f"{finding.status:7}  {finding.what:{width}}  {finding.said}" for finding in findings]
    count = {status: sum(f.status == status for f in findings) for status in ("ok", "warning", "missing")}
    verdict = "get what is missing before the run" if count["missing"] else "nothing is missing"
    told = f"{count['ok']} ok, {count['warning']} warnings, {count['missing']} missing: {verdict}."
    return "\n".join([*lines, "", told])
