"""What a configuration needs, and what of that is missing here: said before anything runs.

    fac doctor experiment=main_results scale=paper model=qwen2_7b

The plan is laid out as for a run, and its steps are walked (`walk`, `uses`): models, SAEs, data and engines that an
experiment's steps hold are what it needs, whichever experiment it is. Every check is a small function that yields
`Finding` records. Nothing is downloaded, no model is loaded, no LLM is asked, and of keys only the names of their
variables are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.harness.doctor.base import Finding

__all__ = ["Finding", "report"]


def report(findings: Sequence[Finding]) -> str:
    """One aligned line per finding, and a summary."""
    width = max(len(finding.what) for finding in findings)
    lines = [f"{finding.status:7}  {finding.what:{width}}  {finding.said}" for finding in findings]
    count = {status: sum(f.status == status for f in findings) for status in ("ok", "warning", "missing")}
    verdict = "get what is missing before the run" if count["missing"] else "nothing is missing"
    told = f"{count['ok']} ok, {count['warning']} warnings, {count['missing']} missing: {verdict}."
    return "\n".join([*lines, "", told])
