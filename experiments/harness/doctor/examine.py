"""A configuration is read, its plan laid out, and everything in it looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.harness.config import RunConfig, read_config
from experiments.harness.doctor import data, presence, resources
from experiments.harness.doctor.base import Finding, checked, short
from experiments.harness.doctor.uses import Uses, of_configuration, uses_of
from experiments.harness.doctor.walk import Steps
from experiments.harness.doctor.workload import Facts, Workload
from experiments.harness.graph import Graph
from experiments.harness.listing import experiments
from experiments.harness.run import lay_out
from fac.errors import FacError
from fac.settings import SettingsError, not_set

NOT_SET = "not-set"  # stands for a value that only the user can give, so that the rest can be looked at


class Examined(RunConfig):
    """A configuration in which an SAE may be missing: that is a finding, and no end of the plan."""

    def _check_there(self, sae: str) -> None:
        return


@dataclass
class LaidOut:
    """The steps of a plan, and what they use."""

    steps: Steps
    uses: Uses
    findings: list[Finding] = field(default_factory=list)  # what could not be laid out


def examine(settings: Sequence[str], online: bool) -> list[Finding]:
    """All findings for settings of the command line; `online` says whether the hub answers.

    Raises SettingsError for settings that will not do, as a run does.
    """
    run, unset = configured(settings)
    findings = [*checked("software", presence.software), *unset]
    with Graph(run, lambda _: None) as graph:
        plan = laid_out(run, graph)
        findings += plan.findings
        findings += look(run, plan, online)
    return [finding for finding in findings if finding in unset or not unset or NOT_SET not in _all(finding)]


def look(run: RunConfig, plan: LaidOut, online: bool) -> list[Finding]:
    """What a plan needs and what of it is missing."""
    uses, facts = plan.uses, Facts()
    findings = checked("models", lambda: presence.models(uses, online, facts))
    findings += checked("engines", lambda: presence.engines(uses, run.model.ref))
    findings += checked("backend", lambda: presence.backend(run))
    findings += checked("prompts", lambda: presence.prompts(uses))
    findings += checked("data", lambda: data.data_sets(uses, online))
    findings += checked("lab data", lambda: data.lab_data(uses))
    findings += checked("tests", lambda: data.benchmarks(uses, online))
    findings += checked("files", lambda: data.named_files(uses))
    findings += checked(
        "memory, disk, time", lambda: resources.resources(run, uses, facts, Workload(run, plan.steps, facts))
    )
    return findings


def laid_out(run: RunConfig, graph: Graph) -> LaidOut:
    """The plan of the configured experiment, as far as it can be made. Raises SettingsError for what nothing reads."""
    try:
        laid = lay_out(experiments()[run.name], run, graph, strict=False)
    except SettingsError:
        raise
    except FacError as error:
        return LaidOut(Steps([]), of_configuration(run), [Finding("missing", "plan", str(error))])
    except Exception as error:  # of an experiment's own code
        said = f"could not be made ({type(error).__name__}: {short(error)})"
        return LaidOut(Steps([]), of_configuration(run), [Finding("warning", "plan", said)])
    targets = [target for steps in laid.trials.values() for target in steps.targets]
    steps = Steps([*targets, *laid.plan.steps])
    return LaidOut(steps, uses_of(run, steps), [Finding("missing", "plan", stop) for stop in laid.stops])


def configured(settings: Sequence[str]) -> tuple[RunConfig, list[Finding]]:
    """The configuration, and a finding for every value that is not set. Raises SettingsError for all else."""
    try:
        return read_config(settings, Examined), []
    except SettingsError as error:
        unset = [sentence.split()[0] for sentence in error.sentences if sentence == not_set(sentence.split()[0])]
        if len(unset) < len(error.sentences):
            raise
    told = "is not set: give it on the command line, {}=VALUE"
    findings = [Finding("missing", f"setting {key}", told.format(key)) for key in unset]
    return read_config([*settings, *(f"{key}={NOT_SET}" for key in unset)], Examined), findings


def _all(finding: Finding) -> str:
    return f"{finding.what} {finding.said}"
