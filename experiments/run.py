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
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl reports every training otherwise
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not burn the core that another process needs

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.hub import reach_hub
from fac.errors import FacError, closest

CONF = Path(__file__).resolve().parent.parent / "conf"
# Options after which the overrides are not those of one run of our own configuration.
LEFT_TO_HYDRA = (
    *("-m", "--multirun", "-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion"),
    *("-cp", "-cn", "-cd", "--config-", "--experimental-rerun"),
)


def main() -> None:
    """Entry point of the console script. Exit status: 0 done, 1 a failure said in one sentence, 130 interrupted.

    `fac doctor` exits with 1 if something is missing.
    """
    logging.basicConfig(level=logging.WARNING, format="fac: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        if sys.argv[1:2] == ["doctor"]:
            sys.exit(_doctor(sys.argv[2:]))
        _check_overrides(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run)()
    except FacError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        print("\nfac: stopped; run the same command again and it continues where it stopped.", file=sys.stderr)
        sys.exit(130)


def _run(cfg: DictConfig) -> None:
    # Hydra prints a traceback for what passes through it, so failures are said here.
    try:
        if cfg.dry_run or cfg.scale.name == "paper":
            reach_hub()
        _quiet_transformers()
        if cfg.dry_run:
            from experiments.dry_run import report

            print(report(cfg))
            return
        out = importlib.import_module(cfg.experiment.module).run(cfg)
    except FacError as error:
        _stop(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        _stop(
            f"{error.strerror}{f': {error.filename}' if error.filename else ''}; mend that and run again: "
            f"everything finished is kept."
        )
    print(f"results: {out}")


def _doctor(overrides: list[str]) -> int:
    """Print what the configuration needs, line by line; 1 if something is missing."""
    for option in overrides:
        if option.startswith("-"):
            raise FacError(f"fac doctor takes settings only, such as scale=paper: leave out {option}.")
    cfg = _composed(overrides)
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


def _check_overrides(arguments: list[str]) -> None:
    """Say a wrong key or choice in one sentence, before Hydra says it in ten lines."""
    if any(argument.startswith(LEFT_TO_HYDRA) for argument in arguments):
        return
    _composed([a for a in arguments if not a.startswith("-") and a not in ("job", "hydra", "all")])


def _composed(overrides: list[str]) -> DictConfig:
    """The configuration with these overrides. Raises FacError for one that cannot be."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise FacError(f"'{override}' is no setting: write KEY=VALUE, such as experiment=lab.")
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise FacError(_explain(error, overrides)) from None


def _explain(error: Exception, overrides: list[str]) -> str:
    first = str(error).strip().splitlines()[0].rstrip(".")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        named = ("annotator", "experiment", "llm", "model", "parity", "sae", "scale")
        chosen = [o for o in overrides if "=" in o and o.split("=")[0] in named]
        try:
            known = _keys(hydra.compose("config", overrides=chosen))
        except (HydraException, OmegaConfBaseException, ValueError):
            groups = {p.parent.name: [q.stem for q in p.parent.glob("*.yaml")] for p in CONF.glob("*/*.yaml")}
            for override in chosen:
                group, _, option = override.partition("=")
                if option not in groups[group]:
                    return f"There is no {group}={option}{closest(option, groups[group])}."
            return f"The configuration cannot be composed: {first}."
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key not in known and "=" in override and not key.startswith("hydra"):
            return f"The configuration has no key {key}{closest(key, known)}."
    return f"The configuration cannot be composed: {first}."


def _keys(cfg: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in cfg:
        keys.append(prefix + str(key))
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            keys += _keys(node, f"{prefix}{key}.")
    return keys


def _stop(message: str) -> None:
    print(f"fac: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
