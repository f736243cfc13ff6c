"""fac.steps: whoever changes code that decides a step is made to decide whether the step's version must be raised."""

import ast
import json

import pytest
from support.step_code import DECIDE, RECORDED, ROOT, code_of, digests

from experiments.tasks import TASKS
from fac.steps import VERSIONS, version_of


@pytest.mark.parametrize("place", DECIDE)
def test_code_that_decides_a_step_has_not_changed_unseen(place: str):
    recorded = json.loads(RECORDED.read_text())
    assert recorded.get(place) == digests()[place], (
        f"{place} has changed, which decides {', '.join(DECIDE[place])}. If the same settings now give another result, "
        f"raise the versions of these steps in fac/steps.py. In either case run python tests/support/step_code.py."
    )


def test_every_step_that_is_decided_by_code_has_a_version_and_the_other_way_round():
    decided = {step for steps in DECIDE.values() for step in steps}
    assert decided == set(VERSIONS)
    assert set(json.loads(RECORDED.read_text())) == set(DECIDE)


def test_the_steps_of_the_table_are_those_that_the_code_makes():
    """Names that are written where a step is made, and those that tasks bring."""
    named = {task.stage for task in TASKS.values()}
    for package in ("fac", "experiments"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Step":
                    first = node.args[0]
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        named.add(first.value)
                    else:
                        assert ast.unparse(first) == "task.stage", f"{path}: a step's name is written where it is made"
    assert named == set(VERSIONS)


def test_what_is_not_in_the_table_is_of_the_first_version():
    assert version_of("one's own") == 1


def test_comments_and_documentation_are_no_code():
    assert code_of('"""Says."""\ndef f():\n    """Says."""\n    return 1  # one\n') == code_of("def f(): return 1")
    assert code_of("def f(): return 1") != code_of("def f(): return 2")
