"""How much there is to do: the tasks of a configuration in numbers of texts, rows, requests and cells.

Knows: where the configuration says how many, and what is assumed of data that are not here. Does not know: models, what
the numbers cost (`needs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments import config
from experiments.doctor.needs import ASSUMED_TEXTS, KNOWN_TEXTS, LAB_TOKENS, TEXT_TOKENS, TaskLoad
from experiments.engines import COMPARE
from experiments.tasks import TASKS
from experiments.tasks.data import Sources, origin_of, source_of
from fac.data.files import data_files
from fac.data.hub import hub_name
from fac.data.source import Source
from fac.errors import FacError
from fac.sae import TrainSettings
from fac.sae.recipe import RecipeSettings
from fac.synthesis.method import Method
from fac.synthesis.methods import METHODS

WRITING = ("main_results", "worlds", "cross_model")  # experiments that write for the tasks they name
BYTES_PER_TOKEN = 4
SAMPLE = "sample"  # of data.parts: how many texts are drawn


def tasks(cfg: DictConfig) -> list[str]:
    """The tasks of an experiment that writes, trains and tests; none for those that only measure."""
    if cfg.experiment.name == "lab":
        return ["toxicity"]
    chosen = OmegaConf.select(cfg, "experiment.tasks") or []
    return [task for task in chosen if task in TASKS] if cfg.experiment.name in WRITING else []


def methods(cfg: DictConfig) -> list[Method]:
    """The methods that the rows of an experiment are; cross_model, which names no rows, has that of the paper."""
    rows = OmegaConf.select(cfg, "experiment.rows") or ["fac"]
    return [METHODS[row] for row in rows if row in METHODS]


def uses_sae(cfg: DictConfig) -> bool:
    """Whether the experiment measures with an SAE."""
    return cfg.experiment.name not in ("alpaca_eval", "reward", "steering")


def judged(cfg: DictConfig) -> bool:
    """Whether outputs that are given are to be compared (experiment=alpaca_eval)."""
    return cfg.experiment.name == "alpaca_eval" and cfg.outputs is not None


def uses_model(cfg: DictConfig) -> bool:
    """Whether the run loads the model that it names."""
    if cfg.experiment.name != "alpaca_eval":
        return True
    return judged(cfg) and config.engines(cfg).annotators[COMPARE].follows_run


def sources(cfg: DictConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key, values) of every data set that the configuration names, such as ("data.seed", {"path": ...}).

    One whose path is not set is not used, or said elsewhere.
    """
    for key in ("data", *(f"tasks.{task}.data" for task in tasks(cfg))):
        held = OmegaConf.select(cfg, key)
        if isinstance(held, DictConfig):
            yield from _within(key, OmegaConf.to_container(held, resolve=True))


def _within(key: str, held: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data sets at or below a key."""
    if not isinstance(held, Mapping):
        return
    if "path" not in held:
        for name, values in held.items():
            yield from _within(f"{key}.{name}", values)
    elif held["path"] not in (None, "???"):
        yield key, held


def as_source(key: str, values: Mapping[str, Any]) -> Source:
    """The data set under a key, its settings checked. Raises FacError for what is no setting of a data set."""
    source = source_of({name: value for name, value in values.items() if name != SAMPLE}, key)
    if source is None:
        raise FacError(f"{key} names no data set: set {key}.path to a file or to hub:ID.")
    return source


def texts_of(source: Source) -> int:
    """About how many texts a data set has: its limit, by the size of its files, or as assumed."""
    if source.limit is not None:
        return source.limit
    if source.on_hub:
        return KNOWN_TEXTS.get(hub_name(source.paths[0]).id, ASSUMED_TEXTS)
    try:
        size = sum(file.stat().st_size for file in data_files(source))
    except (FacError, OSError):
        return KNOWN_TEXTS.get(source.paths[0].name, ASSUMED_TEXTS)
    return max(size // (TEXT_TOKENS * BYTES_PER_TOKEN), 1)


def sae_tokens(cfg: DictConfig, loads: Sequence[TaskLoad]) -> int:
    """Tokens that an SAE is trained on, every task's anchor by itself; 0 if none is trained."""
    train = config.sae_of(cfg) if cfg.sae.train is not None else None
    if isinstance(train, RecipeSettings):
        texts = sum(load.anchor for load in loads) or given_texts(cfg)
        return train.epochs * min(train.max_tokens, TEXT_TOKENS) * texts
    return train.steps * train.batch_size * max(len(loads), 1) if isinstance(train, TrainSettings) else 0


def given_texts(cfg: DictConfig) -> int:
    """About how many texts all data sets that are named have together."""
    return sum(values.get(SAMPLE) or texts_of(as_source(key, values)) for key, values in sources(cfg))


def loads(cfg: DictConfig) -> list[TaskLoad]:
    """The tasks in numbers. Raises FacError for settings that cannot be."""
    return [_lab(cfg) if cfg.experiment.name == "lab" else _task(cfg, name) for name in tasks(cfg)]


def reward_alone(cfg: DictConfig) -> TaskLoad:
    """experiment=reward in numbers: pairs that are given are trained on, and nothing is written."""
    seeds = config.value(cfg, "tasks.reward.seeds", list[int])
    train = {**vars(TASKS["reward"].settings()), **config.group(cfg, "tasks.reward.train")}
    sizes = {"anchor": 0, "seed": given_texts(cfg), "test": 0}
    return _load(cfg, "reward", sizes, train, [], from_lab=False, cells=len(seeds), budget=0, reply=0)


def _lab(cfg: DictConfig) -> TaskLoad:
    sizes = dict(config.group(cfg, "lab"), seed=cfg.lab.seed_positives)
    rows: list[str] = config.value(cfg, "experiment.rows", list[str])
    protocols: list[str] = config.value(cfg, "experiment.protocols", list[str])
    seeds: list[int] = config.value(cfg, "train.seeds", list[int])
    trained = len(rows) * len(protocols) - ("baseline" in rows) * (len(protocols) - 1)
    return _load(
        cfg, "toxicity", sizes, config.group(cfg, "train"), rows, from_lab=True,
        cells=trained * len(seeds), budget=cfg.synthesis.budget, reply=cfg.synthesis.max_new_tokens,
    )  # fmt: skip


def _task(cfg: DictConfig, name: str) -> TaskLoad:
    values = config.group(cfg, f"tasks.{name}")
    origin = origin_of(TASKS[name], values)
    from_lab = not isinstance(origin, Sources)
    sizes = dict(vars(origin)) if from_lab else _counts(origin)
    seeds = len(values["seeds"])
    if cfg.experiment.name == "cross_model":
        of = {
            role: len(config.value(cfg, f"experiment.{role}", list[str])) for role in ("sources", "writers", "trained")
        }
        pairs, mining = of["sources"] * of["writers"], of["sources"]
        rows, cells = ["baseline", *["fac"] * pairs], (1 + pairs) * of["trained"] * seeds
    else:
        rows, mining = config.value(cfg, "experiment.rows", list[str]), 1
        rows = [row for row in rows if row != "base" or TASKS[name].untrained]
        cells = len(rows) * seeds - ("base" in rows) * (seeds - 1)  # nothing is drawn for the untrained model
    train = {**vars(TASKS[name].settings()), **values["train"]}
    evaluation = None if from_lab else origin.evaluation
    return _load(
        cfg, name, sizes, train, rows, from_lab=from_lab, both_orders=getattr(evaluation, "both_orders", True),
        cells=cells, budget=values["budget"], reply=values["max_new_tokens"], mining=mining,
    )  # fmt: skip


def _counts(origin: Sources) -> dict[str, int]:
    """Rows of every role: those that are drawn, or all of its data sets."""
    return {
        role: origin.sample.get(role) or sum(texts_of(source) for source in origin.of(role).values())
        for role in ("anchor", "seed", "safe", "toxic", "labelled", "test")
    }


def _load(
    cfg: DictConfig, name: str, sizes: Mapping[str, int], train: Mapping[str, Any], rows: list[str], *,
    from_lab: bool, cells: int, budget: int, reply: int, both_orders: bool = True, mining: int = 1,
) -> TaskLoad:  # fmt: skip
    settings = config.synthesis_settings(cfg)
    writing = [METHODS[row] for row in rows if row in METHODS and METHODS[row].prompts]
    safe, labelled = sizes.get("safe", 0), sizes.get("labelled", 0)
    own = sizes.get("toxic", 0) if safe else sizes["seed"]  # the seed's rows that are trained on
    if from_lab:
        own = sizes["seed"]
    return TaskLoad(
        name=name,
        anchor=sizes["anchor"],
        known=sizes["seed"] + labelled + (safe if from_lab else 0),
        test=sizes["test"],
        tokens=LAB_TOKENS if from_lab else TEXT_TOKENS,
        budget=budget,
        requests=sum(method.requests(settings, budget, budget) for method in writing),
        methods=len(rows),
        writing=len(writing),
        cells=cells,
        train_rows=safe + min(own, train.get("pairs") or own) + budget,
        epochs=train.get("epochs") or 1,
        train_tokens=train.get("max_tokens") or cfg.features.max_tokens,
        batch=(train.get("batch_size") or 1) * (2 if name == "reward" else 1),  # a pair is two rows
        rank=train.get("rank") or 0,
        dropout=train.get("dropout") or 0.0,
        bf16=train.get("bf16", True),
        float64=train.get("float64", False),
        checkpointed=train.get("gradient_checkpointing", False),
        head_only=train.get("mode") == "head",
        reply=reply,
        answered=TASKS[name].from_base,
        both_orders=both_orders,
        mining=mining,
        from_lab=from_lab,
    )
