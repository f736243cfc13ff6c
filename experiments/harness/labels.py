"""Whose numbers a table holds: the lab's, the paper's setting's or a user's own, beside which no paper's number stands.

The lab's are numbers of shipped models and SAEs on the written world, and show shapes. The paper's setting is one of
its models scored on its own test set. Anything else is the user's own: their data, their model, or both, and the label
says which, and names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from experiments.harness.config import RunConfig, read_config
from experiments.harness.listing import CONF
from experiments.harness.paper_numbers import PaperNumber, paper_table
from experiments.harness.results import LAB_LABEL
from experiments.harness.sections import TaskConfig, local, path_of
from experiments.tasks import TASKS
from experiments.tasks.base import Task
from experiments.tasks.sources import sets_of
from fac.data.files import content_digest
from fac.data.source import Source, listing
from fac.lab import MODELS
from fac.llm.engines import LLMConfig
from fac.model_ref import ModelRef

Kind = Literal["lab", "paper", "own data", "own model", "own"]  # own: both are
OWN: dict[Kind, str] = {  # how their labels begin
    "own data": "OWN DATA",
    "own model": "OWN MODEL",
    "own": "OWN DATA AND MODEL",
}
NO_PAPER = "neither the lab's nor the paper's setting, so the paper's numbers do not stand beside these"
FIRST_LOOK = "it knows the lab's words only, so take this for a first look"
IN_PART = "in part not the paper's setting, and there its numbers do not stand beside these"
TABLE_1_MODELS = ("llama31_8b", "lab_llama")  # names of conf/model: Table 1 and its like are of LLaMA-3.1-8B-Instruct
PAPER_CORPUS = CONF / "corpus" / "paper.yaml"
CAA_TESTS = {  # SHA-256 of the test files of github.com/nrimsky/CAA, which are on no hub
    "sycophancy": "96391f0468cadb5214c34dff9f614be6725699d9f395387f8a9b6ca630d9cb77",
    "survival-instinct": "750a96d7864c864b39168efed636cd79289bad6746024922a7367ccc171f951f",
}
BEHAVIORS = {"sycophancy": "sycophancy", "survival": "survival-instinct"}  # by task
AS_PUBLISHED = (
    "path",
    "subset",
    "split",
    "text",
    "label",
    "label_rule",
    "label_ones",
    "skip",
    "limit",
)  # what makes a source the paper's test


def label(kinds: Iterable[Kind], run: RunConfig) -> str:
    """What stands above a table of such numbers of a run."""
    found = set(kinds)
    if ours := found & OWN.keys():
        of_data, of_model = ours & {"own data", "own"}, ours & {"own model", "own"}
        begins = OWN["own" if of_data and of_model else "own data" if of_data else "own model"]
        begins = f"{run.scale.upper()} SCALE" if _is_preset(run) else begins
        ends = IN_PART if ours < found else FIRST_LOOK if of_data and is_shipped(run.model.ref) else NO_PAPER
        return f"{begins}: {_model_told(run)}{_data_told(run)}; {ends}"
    if "lab" in found:
        return LAB_LABEL
    if "paper" in found and (own_roles := _own_training(run)):
        return f"OWN DATA: trained on {own_roles}, and tested as in the paper"
    return ""


def own(run: RunConfig) -> Kind:
    """Whose the numbers are of data sets of one's own, read by the model of the run."""
    return kind("own", {run.model.name: run.model.ref})


def kind_of(run: RunConfig, task: str, models: Iterable[str]) -> Kind:
    """Whose the numbers are that models (names of conf/model) get on the test set of a task of this run."""
    runs = {name: run.for_model(name) for name in models}
    found = kind(data_of(TASKS[task], run.tasks[task]), {name: of.model.ref for name, of in runs.items()}, run.llms)
    return "own model" if found == "lab" and any(map(_own_sae, runs.values())) else found


def kind(data: Kind, models: Mapping[str, ModelRef], llms: LLMConfig | None = None) -> Kind:
    """Whose the numbers are that models (by their names in conf/model) get on such data.

    `llms` are who else takes part: another writer or annotator than the lab's models makes no number of the lab.
    """
    if data == "paper":
        return "paper" if all(_is_papers_model(name, ref) for name, ref in models.items()) else "own model"
    if data == "lab":
        others = (llms.writer, *llms.annotators.values()) if llms else ()
        taking_part = [*models.values(), *(engine.model for engine in others if not engine.follows_run)]
        return "lab" if all(ref is not None and is_shipped(ref) for ref in taking_part) else "own model"
    known = all(is_shipped(ref) or ref.path == path_of(name) for name, ref in models.items())
    return "own data" if known else "own"


def is_own(kind: Kind) -> bool:
    """Whether the paper's numbers do not belong beside such."""
    return kind in OWN


def is_shipped(model: ModelRef) -> bool:
    """Whether a model is one of the lab's."""
    return Path(model.path).resolve().is_relative_to(MODELS.resolve())


def data_of(task: Task, config: TaskConfig) -> Kind:
    """Whose the test set of a task is."""
    if config.sizes is not None:
        return "lab"
    published = "test" not in config.sample and is_published(task, list(sets_of(config, "test").values()))
    return "paper" if published else "own"


def is_published(task: Task, tests: list[Source]) -> bool:
    """Whether the sources of a test are the paper's test set (conf/tasks/paper), whole.

    Other rows of the same data set may join it: how much of ToxicChat the paper takes is not known.
    """
    if task.name in BEHAVIORS:
        files = [file for test in tests for file in test.paths]
        whole = tests[0].limit is None and not tests[0].skip
        return len(files) == 1 and whole and is_caa_test(BEHAVIORS[task.name], files[0])
    papers = _papers_data(task.name)["test"]
    return _as_published(tests[0], papers) and all(test.path == papers.path for test in tests)


def _as_published(source: Source, papers: Source) -> bool:
    return all(getattr(source, option) == getattr(papers, option) for option in AS_PUBLISHED)


def _papers_data(task: str) -> Mapping[str, Source]:
    """The data sets of a task, by role, as the paper's scale has them."""
    return _preset("paper").tasks[task].data


@cache
def _preset(scale: str) -> RunConfig:
    return read_config([f"scale={scale}"])


def _is_preset(run: RunConfig) -> bool:
    """Whether a scale's own model and data are used, of a scale that is neither the lab's nor the paper's."""
    if run.scale in ("lab", "paper") or run.data:
        return False
    here, there = run.values, _preset(run.scale).values
    data = [{name: told.get("data") for name, told in held["tasks"].items()} for held in (here, there)]
    return (here["model"]["path"], data[0]) == (there["model"]["path"], data[1])


def is_papers_corpus(parts: Mapping[str, Source]) -> bool:
    """Whether an SAE's texts are the corpus of the paper's SAEs (conf/corpus/paper.yaml), all of it."""
    told = yaml.safe_load(PAPER_CORPUS.read_text())
    papers = {name: values["path"] for name, values in told.items() if name != "defaults"}
    return {name: str(part.path) for name, part in parts.items()} == papers


def is_caa_test(behavior: str, file: Path) -> bool:
    """Whether a file holds the questions that CAA's authors test this behaviour with."""
    return file.is_file() and content_digest(file) == CAA_TESTS.get(behavior)


def stands_beside(kind: Kind, model: str, test: str = "test") -> bool:
    """Whether numbers of Table 1's model may stand beside those of the model of this name, scored on this set."""
    return not is_own(kind) and test == "test" and model in TABLE_1_MODELS


def table_1(task: Task, row: str, settings: Any = None) -> PaperNumber | None:
    """The number of Table 1, or of Table 13 where only heads are trained; None where neither has one.

    Table 1 trains LoRA adapters: numbers of the two are never mixed. Rows that it lacks may be in Table 12 (LoRA, too).
    """
    mode = getattr(settings, "mode", "lora")
    for name in {"lora": ("table1", "table12"), "head": ("table13",)}.get(mode, ()):
        if name in task.paper and (number := paper_table(name).get(row, task.paper[name])):
            return number
    return None


def _is_papers_model(name: str, ref: ModelRef) -> bool:
    return name in _preset("paper").families and ref.path == path_of(name)


def _own_sae(run: RunConfig) -> bool:
    """Whether the SAE is neither a shipped one nor trained on the run's own texts."""
    told = run.values["sae"]
    if told["train"] is not None:
        return bool(run.values["data"].get("parts"))
    path = told["path"] and Path(local(str(told["path"]))).resolve()
    return bool(told["release"]) or (path is not None and not path.is_relative_to(MODELS.resolve()))


def _model_told(run: RunConfig) -> str:
    """Which model, and what else took part in the lab's world that is not of it: an SAE, whoever writes or judges."""
    if not is_shipped(run.model.ref):
        return f"model {run.model.name}"
    others = ["an SAE of one's own"] if _own_sae(run) else []
    in_lab = not run.data and any(config.sizes is not None for config in run.tasks.values())
    for engine in (run.llms.writer, *run.llms.annotators.values()) if in_lab else ():
        if not (engine.follows_run or (engine.model and is_shipped(engine.model))):
            others.append(Path(engine.model.path).name if engine.model else str(getattr(engine.settings, "model", "")))
    return f"the lab's model {run.model.name}" + (f" with {listing(dict.fromkeys(others))}" if others else "")


def _data_told(run: RunConfig) -> str:
    """Which data the numbers are of: those of the run, or the test sets of its tasks; "" if it reads them otherwise."""
    if sources := {**run.data, **{name: part.source for name, part in run.parts.items()}}:
        return f" on {listing(f'{role} {source.title}' for role, source in sources.items())}"
    tasks = _tasks(run)
    if not tasks:
        return ""
    told: dict[str, None] = {}
    for config in (run.tasks[name] for name in tasks):
        titles = [source.title for source in sets_of(config, "test").values()]
        told |= dict.fromkeys(["the lab's world"] if config.sizes is not None else titles)
    return f" on {listing(told, at_most=4)}"


def _own_training(run: RunConfig) -> str:
    """The data sets, by role, that are not those of the paper's scale; steering's lie where the user put them."""
    own = [
        f"{source.title} (tasks.{name}.data.{role})"
        for name in _tasks(run)
        if name not in BEHAVIORS
        for role, source in run.tasks[name].data.items()
        if not role.startswith(("test", "validation"))
        and (source.path, source.subset) not in [(held.path, held.subset) for held in _papers_data(name).values()]
    ]  # fmt: skip
    return listing(own, at_most=4, shorten=False)


def _tasks(run: RunConfig) -> list[str]:
    """The tasks that the experiment's options name; options of this name may hold something else (reasoning)."""
    options = run.experiment
    named: list[str] = [*(getattr(options, "tasks", None) or ()), getattr(options, "task", None) or ""]
    return [name for name in named if name in run.tasks]
