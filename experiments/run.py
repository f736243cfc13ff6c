"""The `fac` command: configuration in, table out.

    fac experiment=lab                                  the lab's toxicity table (make lab)
    fac experiment=coverage data.anchor.path=A data.seed.path=B out=DIR
    fac experiment=lab lab.seed=1 --cfg job --resolve   the configuration, without running it
    fac experiment=main_results dry_run=true            its plan, with what is in the store already
    fac doctor experiment=main_results scale=paper      what it needs and what of that is missing here

Knows: Hydra, exit codes, how failures are printed. Does not know: what an experiment does (its module does).
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl reports every training otherwise
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not burn the core that another process needs

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.hub import reach_hub
from experiments.overrides import CONF, composed, given, is_sweep, own_folders, quoted
from experiments.unread import watching
from fac.errors import FacError

# Options after which the overrides are not those of one run of our own configuration.
LEFT_TO_HYDRA = (
    *("-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion"),
    *("-cp", "-cn", "-cd", "--config-", "--experimental-rerun"),
)


def main() -> None:
    """Entry point of the console script. Exit status: 0 done, 1 a failure said in one sentence, 130 interrupted.

    `fac doctor` exits with 1 if something is missing.
    """
    said = logging.StreamHandler()
    said.setLevel(logging.WARNING)  # of the handler: Hydra sets the root logger's to INFO in a sweep
    logging.basicConfig(handlers=[said], level=logging.WARNING, format="fac: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        if sys.argv[1:2] == ["doctor"]:
            sys.exit(_doctor(sys.argv[2:]))
        sys.argv[1:] = _prepared(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run)()
    except FacError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        print("\nfac: stopped; run the same command again and it continues where it stopped.", file=sys.stderr)
        sys.exit(130)


def _run(cfg: DictConfig) -> None:
    # Hydra prints a traceback for what passes through it, so failures are said here.
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    job = f"job {HydraConfig.get().job.num}: " if in_sweep else ""
    try:
        if cfg.dry_run or cfg.scale.name == "paper":
            reach_hub()
        _quiet_transformers()
        if cfg.dry_run:
            from experiments.dry_run import report

            print(report(cfg))
            return
        overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        with watching(given(overrides)):  # type: ignore[arg-type]
            out = importlib.import_module(cfg.experiment.module).run(cfg)
    except FacError as error:
        _stop(f"{job}{error}")
    except OSError as error:
        if error.errno is None:
            raise
        _stop(
            f"{job}{error.strerror}{f': {error.filename}' if error.filename else ''}; mend that and run again: "
            f"everything finished is kept."
        )
    print(f"results: {out}")


def _doctor(overrides: list[str]) -> int:
    """Print what the configuration needs, line by line; 1 if something is missing."""
    for option in overrides:
        if option.startswith("-"):
            raise FacError(f"fac doctor takes settings only, such as scale=paper: leave out {option}.")
    cfg = composed([quoted(override, sweep=False) for override in overrides])
    online = reach_hub()
    _quiet_transformers()
    from experiments.doctor import examine, report

    findings = examine(cfg, online)
    print(report(findings))
    return int(any(finding.status == "missing" for finding in findings))


def _quiet_transformers() -> None:
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _prepared(arguments: list[str]) -> list[str]:
    """The arguments as Hydra is to get them. Wrong ones are said in one sentence, not in Hydra's ten lines."""
    sweep = is_sweep(arguments)
    arguments = [quoted(argument, sweep) for argument in arguments]
    options = [a for a in arguments if a.startswith("-") and a not in ("-m", "--multirun")]
    if any(option.startswith(LEFT_TO_HYDRA) for option in options):
        return arguments
    settings = [a for a in arguments if not a.startswith("-") and a not in ("job", "hydra", "all")]
    if not sweep:
        composed(settings)
        return arguments
    if options:
        return arguments
    settings, outs = own_folders(settings)
    if len(outs) > 1:
        print(f"{len(outs)} jobs, results: {', '.join(map(str, outs))}", file=sys.stderr)
    return ["-m", *settings]


def _stop(message: str) -> None:
    print(f"fac: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
