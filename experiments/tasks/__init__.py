"""The tasks of the paper, one module each, behind one interface (`base.Task`).

A new task is a module in this folder that defines TASK, or TASKS where it has variants, with its prompts and a file in
conf/tasks; nothing here lists the modules.
"""

from __future__ import annotations

from experiments.tasks.base import Task
from fac.parts import parts


def collect() -> dict[str, Task]:
    """Every task of the modules in this folder, by name. Raises ValueError if two have one name."""
    return parts(__name__, __path__, "task")


TASKS = collect()
