"""Whose numbers a table holds: the lab's, the paper's setting's or a user's own, beside which no paper's number stands.

The lab's are numbers of shipped models on the written world, and show shapes. The paper's setting is one of its models
scored on its own test set. Anything else is the user's own.
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
from experiments.harness.sections import TaskConfig
from experiments.tasks import TASKS
from experiments.tasks.base import Task
from experiments.tasks.sources import sets_of
from fac.data.files import content_digest
from fac.data.source import Source
from fac.lab import MODELS
from fac.llm.engines import LLMConfig
from fac.model_ref import ModelRef

Kind = Literal["lab", "paper", "own"]
OWN_LABEL = (
    "OWN DATA OR MODEL: neither the lab's nor the paper's setting, so the paper's numbers do not stand beside these"
)
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
    "limit",
)  # what makes a source the paper's test


def label(kinds: Iterable[Kind]) -> str:
    """What stands above a table of such numbers."""
    found = set(kinds)
    return OWN_LABEL if "own" in found else LAB_LABEL if "lab" in found else ""


def own(run: RunConfig, roles: Iterable[str]) -> str:
    """What stands above a table of data sets of one's own: which they are, and with whose features they are measured.

    A model of the lab on other texts than the lab's world is no result of the lab.
    """
    data = ", ".join(f"{role} {run.data[role].title}" for role in roles)
    if is_shipped(run.model.ref):
        return f"OWN DATA ({data}), measured with {run.model.name}, which knows the lab's words only: a first look"
    return f"OWN DATA ({data}), measured with {model_name(run)}: neither the lab's nor the paper's setting"


def model_name(run: RunConfig) -> str:
    """What the run's model is called: by its file of conf/model, or by the folder or hub id of one's own."""
    return run.model.name if run.model.name != "local" else Path(run.model.path).name


def kind_of(run: RunConfig, task: str, models: Iterable[str]) -> Kind:
    """Whose the numbers are that models (names of conf/model) get on the test set of a task of this run."""
    refs = {name: run.for_model(name).model.ref for name in models}
    return kind(data_of(TASKS[task], run.tasks[task]), refs, run.llms)


def kind(data: Kind, models: Mapping[str, ModelRef], llms: LLMConfig | None = None) -> Kind:
    """Whose the numbers are that models (by their names in conf/model) get on such data.

    `llms` are who else takes part: another writer or annotator than the lab's models makes no number of the lab.
    """
    if data == "paper":
        return "paper" if all(ref.path == _papers_model(name) for name, ref in models.items()) else "own"
    if data == "lab":
        others = (llms.writer, *llms.annotators.values()) if llms else ()
        taking_part = [*models.values(), *(engine.model for engine in others if not engine.follows_run)]
        return "lab" if all(ref is not None and is_shipped(ref) for ref in taking_part) else "own"
    return "own"


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
        return len(files) == 1 and tests[0].limit is None and is_caa_test(BEHAVIORS[task.name], files[0])
    papers = _papers_tests()[task.name]
    same = all(getattr(tests[0], option) == getattr(papers, option) for option in AS_PUBLISHED)
    return same and all(test.path == papers.path for test in tests)


@cache
def _papers_tests() -> dict[str, Source]:
    """The test set of every task as the paper's scale has it."""
    tasks = read_config(["scale=paper"]).tasks
    return {name: config.data["test"] for name, config in tasks.items()}


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
    return kind != "own" and test == "test" and model in TABLE_1_MODELS


def table_1(task: Task, row: str, settings: Any = None) -> PaperNumber | None:
    """The number of Table 1, or of Table 13 where only heads are trained; None where neither has one.

    Table 1 trains LoRA adapters: numbers of the two are never mixed. Rows that it lacks may be in Table 12 (LoRA, too).
    """
    mode = getattr(settings, "mode", "lora")
    for name in {"lora": ("table1", "table12"), "head": ("table13",)}.get(mode, ()):
        if name in task.paper and (number := paper_table(name).get(row, task.paper[name])):
            return number
    return None


def _papers_model(name: str) -> str | None:
    file = CONF / "model" / f"{name}.yaml"
    found = yaml.safe_load(file.read_text()) if file.is_file() else {}
    return None if str(found.get("path")).startswith(("lab:", "???")) else found.get("path")
