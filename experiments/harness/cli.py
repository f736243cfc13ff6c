"""The `fac` command: configuration in, table out.

    fac experiment=lab                                  the lab's toxicity table (make lab)
    fac experiment=coverage data.anchor.path=A data.seed.path=B out=DIR
    fac experiment=lab seeds.data=1 --cfg job --resolve the configuration, without running it
    fac experiment=main_results dry_run=true            its plan, with what is in the store already
    fac doctor experiment=main_results scale=paper      what it needs and what of that is missing here
    fac experiment=table9                               the same by the name of what it makes of the paper
    fac experiments                                     which there are; likewise methods, metrics, models, tasks
    fac new task NAME                                   prompts of one's own, to be edited: task.prompts=NAME
    fac report outputs=outputs out=outputs/site         all finished runs as one site: results, claims, features
    fac paper                                           which table or figure of the paper is made by which of them

What an experiment does is its own module's to say (`experiments.harness.listing` finds it).
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it would say of weights, fac.model_weights says
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl reports every training otherwise
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not burn the core that another process needs

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.harness import listing
from experiments.harness.hub import reach_hub
from experiments.harness.overrides import (
    as_written,
    composed,
    given_keys,
    in_full,
    is_sweep,
    own_folders,
    quoted,
    with_experiment,
)
from fac.errors import FacError

if TYPE_CHECKING:
    from experiments.harness.config import RunConfig

# Options after which the overrides are not those of one run of our own configuration.
LEFT_TO_HYDRA = (
    *("-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion"),
    *("-cp", "-cn", "-cd", "--config-", "--experimental-rerun"),
)
LISTS = {
    "experiments": listing.experiment_lines,
    "methods": listing.method_lines,
    "metrics": listing.metric_lines,
    "models": listing.model_lines,
    "paper": listing.paper_lines,
    "tasks": listing.task_lines,
}


def main() -> None:
    """Entry point of the console script. Exit status: 0 done, 1 a failure said in a sentence, 130 interrupted.

    `fac doctor` exits with 1 if something is missing.
    """
    said = logging.StreamHandler()
    said.setLevel(logging.WARNING)  # of the handler: Hydra sets the root logger's to INFO in a sweep
    logging.basicConfig(handlers=[said], level=logging.WARNING, format="fac: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        command, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
        if command in LISTS:
            print(_listed(command, arguments))
        elif command == "report":
            from experiments.harness.site.command import report

            print(report(arguments))
        elif command == "new":
            from experiments.harness.new import new

            print(new(arguments))
        elif command == "doctor":
            sys.exit(_doctor(arguments))
        else:
            sys.argv[1:] = _prepared(sys.argv[1:])
            hydra.main(version_base="1.3", config_path=str(listing.CONF), config_name="config")(_job)()
    except FacError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        print("\nfac: stopped; run the same command again and it continues where it stopped.", file=sys.stderr)
        sys.exit(130)


def _job(cfg: DictConfig) -> None:
    # Hydra prints a traceback for what passes through it, so failures are said here.
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    job = f"job {HydraConfig.get().job.num}: " if in_sweep else ""
    try:
        if cfg.dry_run or cfg.scale == "paper":
            reach_hub()
        from experiments.harness.config import RunConfig, options_of

        overrides = as_written(HydraConfig.get().overrides)  # type: ignore[arg-type]
        given = given_keys([*overrides["task"], *overrides["hydra"]])
        _run(RunConfig(as_written(cfg), given, options_of(cfg)))
    except FacError as error:
        _stop(f"{job}{error}")
    except OSError as error:
        if error.errno is None:
            raise
        _stop(
            f"{job}{error.strerror}{f': {error.filename}' if error.filename else ''}; mend that and run again: "
            f"everything finished is kept."
        )


def _run(run: RunConfig) -> None:
    """Print the plan of the experiment, or run it."""
    from experiments.harness.results import Table
    from experiments.harness.run import dry_run, execute

    experiment = listing.experiments()[run.name]
    if run.dry_run:
        print(dry_run(experiment, run))
        return
    out = execute(experiment, run)
    if label := Table.from_json((out / "table.json").read_text(encoding="utf-8")).told():
        print(label)
    print(f"results: {out}")


def _doctor(settings: list[str]) -> int:
    """Print what the configuration needs, line by line; 1 if something is missing."""
    for option in settings:
        if option.startswith("-"):
            raise FacError(f"fac doctor takes settings only, such as scale=paper: leave out {option}.")
    online = reach_hub()
    from experiments.harness.doctor import report
    from experiments.harness.doctor.examine import examine

    findings = examine([quoted(setting, sweep=False) for setting in settings], online)
    print(report(findings))
    return int(any(finding.status == "missing" for finding in findings))


def _listed(command: str, arguments: list[str]) -> str:
    if arguments:
        raise FacError(f"fac {command} lists them all: leave out {' '.join(arguments)}.")
    return LISTS[command]()


def _prepared(arguments: list[str]) -> list[str]:
    """The arguments as Hydra is to get them. Wrong ones are said in sentences of ours, not in Hydra's ten lines."""
    sweep = is_sweep(arguments)
    arguments = in_full([quoted(argument, sweep) for argument in arguments])
    options = [a for a in arguments if a.startswith("-") and a not in ("-m", "--multirun")]
    if any(option.startswith(LEFT_TO_HYDRA) for option in options):
        return with_experiment(arguments) if {"-h", "--help"} & {*options} else arguments
    settings = [a for a in arguments if not a.startswith("-") and a not in ("job", "hydra", "all")]
    rest = [a for a in arguments if a not in settings]
    if sweep:
        if not options:
            settings, outs = own_folders(with_experiment(settings))
            if len(outs) > 1:
                print(f"{len(outs)} jobs, results: {', '.join(map(str, outs))}", file=sys.stderr)
        return [*rest, *with_experiment(settings)]
    if options:  # such as --cfg job, which shows values that are not set, too
        composed(settings)
    else:
        from experiments.harness.config import read_config

        read_config(settings)
    return [*rest, *with_experiment(settings)]


def _stop(message: str) -> None:
    print(f"fac: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
