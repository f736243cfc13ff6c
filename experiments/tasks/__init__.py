"""The tasks of the paper, one module each, behind one interface (`base.Task`).

A new task is a module in this folder that defines TASK, or TASKS where it has variants, with its prompts and a file in
conf/tasks; nothing here lists the modules.
"""

from __future__ import annotations

import importlib
import pkgutil

from experiments.tasks.base import Task


def collect() -> dict[str, Task]:
    """Every task of the modules in this folder, by name. Raises ValueError if two have one name."""
    found: dict[str, Task] = {}
    for module in sorted(part.name for part in pkgutil.iter_modules(__path__)):
        held = importlib.import_module(f"{__name__}.{module}")
        for task in (*getattr(held, "TASKS", ()), *([held.TASK] if hasattr(held, "TASK") else ())):
            if task.name in found:
                raise ValueError(f"two tasks are called {task.name}; one of them is in {held.__file__}")
            found[task.name] = task
    return found


TASKS = collect()
