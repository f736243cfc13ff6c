"""The tasks of the paper, one module each, behind one interface (`base.Task`)."""

from experiments.tasks import instruction, reward, steering, toxicity
from experiments.tasks.base import Task

TASKS: dict[str, Task] = {task.name: task for task in (toxicity.TASK, reward.TASK, *steering.TASKS, instruction.TASK)}
