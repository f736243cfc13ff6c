"""lm-eval from Python: benchmarks of a loaded model, with prompts that are bit for bit those of `fac.chat`.

The tasks of this project are in `eval/tasks`; `gsm8k` and others of lm-eval's own go by their names there and read the
hub.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from fac.chat import render
from fac.errors import FacError, closest

TASKS = Path(__file__).with_name("tasks")  # the project's own


def run_tasks(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str],
    *,
    data_files: Mapping[str, Path] | None = None,
    include: Path = TASKS,
    limit: int | None = None,
    batch_size: int = 8,
    chat: bool = True,
    max_new_tokens: int | None = None,
) -> dict[str, dict[str, float]]:
    """Run lm-eval tasks on a causal LM and its tokenizer (`fac.backbone.load_causal_lm`): {task: {metric: value}}.

    `tasks` are names of YAML tasks under `include`, otherwise of lm-eval's own. `data_files` says where the data of
    local tasks lie, by the name that their YAML asks for ({"ifeval": FILE, "caa": DIR}). With `chat`, prompts are
    chats, and their ids those of `fac.chat.encode`; without, they are plain text, as base models are tested.
    `limit` keeps the first documents of each task; `max_new_tokens` replaces a task's own limit of a reply. A metric
    that a task computes behind several filters is called `metric,filter`. Nothing is printed.

    Raises FacError for a task that does not exist, data that cannot be read or reached, or replies longer than the
    model's context. (A prompt that leaves no room for its reply loses its beginning, as always in lm-eval.)
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    metadata: Any = {name: str(Path(path).expanduser().absolute()) for name, path in (data_files or {}).items()}
    base: Any = HFLM  # decorators hide the types of both
    simple_evaluate: Any = lm_eval.simple_evaluate

    class Chats(base):
        """lm-eval's Hugging Face model, its chats rendered by fac.chat."""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return rendered(tokenizer, chat_history, add_generation_prompt)

    with _quiet():
        manager = TaskManager(include_path=str(include), include_defaults=False, metadata=metadata)
        if any(task not in manager.all_tasks for task in tasks):  # lm-eval's own take 15 s to list
            manager = TaskManager(include_path=str(include), metadata=metadata)
        for task in tasks:
            if task not in manager.all_tasks:
                raise FacError(f"There is no lm-eval task {task}{closest(task, manager.all_tasks)}.")
        # A rendered chat holds its special tokens already; None leaves plain text to the tokenizer.
        lm = Chats(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, add_bos_token=False if chat else None)
        try:
            done = simple_evaluate(
                model=lm,
                tasks=list(tasks),
                task_manager=manager,
                apply_chat_template=chat,
                limit=limit,
                gen_kwargs=None if max_new_tokens is None else {"max_gen_toks": max_new_tokens},
                bootstrap_iters=0,
                log_samples=False,
            )
        except ConnectionError as error:
            raise FacError(
                f"The data of {', '.join(tasks)} cannot be reached ({str(error).splitlines()[0]}): run once where the "
                f"hub is reachable, which keeps them in HF_HOME."
            ) from None
        except AssertionError as error:
            if "maximum sequence length" not in str(error):
                raise
            raise FacError(f"{str(error).rstrip('.')}: lower max_new_tokens.") from None
    return {task: _metrics(values) for task, values in done["results"].items()}


def rendered(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], add_generation_prompt: bool) -> str:
    """A chat of lm-eval's as `fac.chat` writes it; without generation prompt the task begins the reply itself."""
    return render(
        tokenizer, chat, add_generation_prompt=add_generation_prompt, continue_final_message=not add_generation_prompt
    )


def data_set_of(task: str) -> tuple[str, str | None] | None:
    """The hub data set, and its subset, of one of lm-eval's own tasks; None if it reads none.

    Raises FacError for an unknown task.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder = Path(lm_eval.__file__).parent / "tasks" / task  # most tasks have one; all of them take 8 s to list
    with _quiet():
        manager = TaskManager(include_path=str(folder), include_defaults=False) if folder.is_dir() else TaskManager()
    if task not in manager.task_index:
        raise FacError(f"There is no lm-eval task {task}{closest(task, manager.all_tasks)}.")
    told = manager.task_index[task].cfg or {}
    return (told["dataset_path"], told.get("dataset_name")) if "dataset_path" in told else None


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's `metric,filter` entries as numbers; its standard errors and names are left out."""
    found = {}
    for key, value in values.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            found[metric if filtered == "none" else key] = float(value)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's bars, prints and log, and without what the git that it calls says on stderr."""
    before, stderr = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.ERROR)
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            os.dup2(null.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logging.disable(before)
