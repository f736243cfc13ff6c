"""Imports run downward, the core is light, and the ground truth stays out of the method's reach."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fac

REPO = Path(fac.__file__).parents[1]
TRUTH = "fac.lab.world.truth"
MAY_READ_TRUTH = {"experiments.pages.lab_truth", "fac.lab.skills"}  # diagnostics: nothing they compute reaches a method
HEAVY = {"hydra", "omegaconf", "mlflow", "vllm", "trl"}
FLOORS = (  # from the ground up
    "fac", "eval", "experiments.tasks", "experiments.harness", "experiments.steps", "experiments.pages", "experiments",
)  # fmt: skip
BENCH = "experiments.bench"
CORE = (
    "fac.chat", "fac.backbone", "fac.sae", "fac.features", "fac.coverage", "fac.relevance", "fac.diversity",
    "fac.pooled", "fac.store", "fac.interpret", "fac.encoder", "fac.gap", "fac.synthesis",
)  # fmt: skip


def imported(source, module, is_package=False, types=True):
    """Names of all modules that a source may import, at its top or within functions, `from` parts included.

    Unless `types`, what only type checkers import is left out.
    """
    found = set()
    for node in nodes(ast.parse(source), types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("fac.", "eval."))
        ):
            found.add(node.value)  # as importlib and console scripts name modules
    return found


def nodes(tree, types):
    """The tree and all below it; unless `types`, nothing that stands under `if TYPE_CHECKING`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if types or not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from nodes(child, types)


def sources():
    for package in ("fac", "experiments", "eval"):
        for path in sorted((REPO / package).rglob("*.py")):
            parts = path.relative_to(REPO).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield ".".join(parts[:-1] if is_package else parts), path, is_package


MODULES = {module: imported(path.read_text(), module, pack) for module, path, pack in sources()}
RUNNING = {module: imported(path.read_text(), module, pack, types=False) for module, path, pack in sources()}


def within(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def offenders(modules, *forbidden, imports=MODULES):
    return {(m, name) for m in modules for name in imports[m] if within(name, *forbidden)}


@pytest.mark.parametrize(
    ("source", "module", "name"),
    [
        ("import fac.lab.world.truth as t", "a.b", TRUTH),
        ("from fac.lab.world import truth", "a.b", TRUTH),
        ("from fac.lab.world.truth import parse", "a.b", TRUTH),
        ("def f():\n    from fac.lab.world import truth", "a.b", TRUTH),
        ("from .truth import parse", "fac.lab.world.x", TRUTH),
        ("from ..world import truth", "fac.lab.other.x", TRUTH),
        ("importlib.import_module('fac.lab.world.truth')", "a.b", TRUTH),
    ],
)
def test_every_way_to_import_is_seen(source, module, name):
    assert name in imported(source, module)


def test_an_import_for_types_only_is_told_from_one_that_runs():
    source = "if TYPE_CHECKING:\n    from a import b\nif found:\n    from c import d"
    assert imported(source, "m") == {"a", "a.b", "c", "c.d"}
    assert imported(source, "m", types=False) == {"c", "c.d"}


def test_all_of_the_project_is_read():
    assert set(CORE) <= set(MODULES)
    assert {TRUTH, "experiments.harness.cli", "eval.classification"} <= set(MODULES)


def test_only_diagnostics_may_read_the_ground_truth():
    readers = {module for module, names in MODULES.items() if any(within(name, TRUTH) for name in names)}
    assert readers - {TRUTH} <= MAY_READ_TRUTH


def test_no_method_reaches_the_ground_truth_through_others():
    """Nor does the library import a diagnostic, except the diagnostics themselves."""
    library = [m for m in MODULES if within(m, "fac") and m not in MAY_READ_TRUTH]
    assert offenders(library, *MAY_READ_TRUTH) == set()


def test_the_core_is_light():
    core = [m for m in MODULES if within(m, *CORE)]
    assert offenders(core, *HEAVY) == set()


def above(floor):
    """Modules that stand on floors above this one, but for the package that it lies in."""
    return {m for m in MODULES if FLOORS.index(floor_of(m)) > FLOORS.index(floor) and not within(floor, m)}


def floor_of(module):
    return next((floor for floor in FLOORS[:-1] if within(module, floor)), FLOORS[-1])


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_run_downward(floor):
    """An experiment may import the harness; no part of the harness, of the tasks or below knows an experiment.

    Steps and pages know the options of theirs, as a type only.
    """
    here = [m for m in MODULES if floor_of(m) == floor]
    assert here
    assert offenders(here, *above(floor), imports=RUNNING) == set()
    typed = {(m, name) for m, name in offenders(here, *above(floor)) if not is_options_of_its_own(m, name)}
    assert typed == set()


def is_options_of_its_own(module, name):
    """Whether a page or step (NAME, NAME_table) names the options of its experiment."""
    own, (package, experiment, *rest) = module.rpartition("."), name.split(".")
    return (
        own[0] in ("experiments.steps", "experiments.pages")
        and package == "experiments"
        and f"{own[2]}_".startswith(f"{experiment}_")
        and rest in ([], ["Options"])
    )


def test_nothing_runs_the_benches():
    assert offenders([m for m in MODULES if not within(m, BENCH)], BENCH) == set()


def test_the_library_does_not_know_the_lab():
    assert offenders([m for m in MODULES if within(m, "fac") and not within(m, "fac.lab")], "fac.lab") == set()


@pytest.mark.slow
def test_nothing_heavy_comes_with_the_core():
    """What a process really loads, through libraries as well."""
    script = "import sys, fac.gap, fac.synthesis.generate; print(*{m.split('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {*HEAVY, "sae_lens", "peft", "matplotlib", "wandb"}
