"""The writing methods of other papers on the lab's own model and data: each adds rows to every task."""

import numpy as np
import pytest
from support.cli import fac_here
from support.reduced import SIZES

from experiments.tasks import TASKS
from fac.backbone import ModelRef
from fac.lab import shipped
from fac.llm.base import Sampling
from fac.llm.transformers import TransformersChat
from fac.prompts import Prompts
from fac.synthesis.method import SynthesisInput
from fac.synthesis.methods import METHODS
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Writer

WRITING = ("alpaca", "evol_instruct", "magpie", "cot_self_instruct", "sao")
SETTINGS = Settings(rows=1, votes=3, novelty=0.9, max_new_tokens=110)
BUDGET = 3


@pytest.fixture(scope="module")
def model():
    return TransformersChat(ModelRef(str(shipped("llama"))))


def seed_of(task):
    sizes = TASKS[task].sizes(**SIZES[task])
    return [example for example, _ in TASKS[task].drawn_in_lab(TASKS[task].seed_role, 0, sizes)]


@pytest.mark.slow
@pytest.mark.parametrize("task", SIZES)
def test_each_fills_a_small_budget_in_the_lab(task, model, tmp_path):
    """With the prompts that the lab's models know, in their lab form."""
    schema, known = TASKS[task].schema, seed_of(task)
    nothing = np.zeros(0, np.float32)
    sampling = Sampling(SETTINGS.temperature, SETTINGS.top_p, SETTINGS.max_new_tokens)
    for name in WRITING:
        given = SynthesisInput(known, [], [], [], {}, nothing, nothing, BUDGET, SETTINGS)
        writer = Writer(tmp_path / name, model, Prompts(f"lab/{task}"), schema, _nothing, nothing, sampling, 42)
        outcome = METHODS[name].run(given, writer)
        assert outcome.counts.added == BUDGET, name
        assert outcome.counts.refused == 0
        assert writer.spent().requests >= outcome.counts.requested / SETTINGS.rows


def _nothing():
    raise AssertionError("nothing is encoded")


@pytest.mark.slow
def test_a_server_that_cannot_open_a_users_turn_is_named_while_planning(tmp_path):
    rows = ["experiment=main_results", "experiment.tasks=[toxicity]", "experiment.methods=[magpie]", "llm=openai"]
    rows += [f"paths.outputs={tmp_path}", "tracking.enabled=false"]
    said = "what magpie asks for: choose llm=transformers or llm=vllm, or leave magpie out"
    assert said in fac_here(*rows, cwd=tmp_path).failure
    planned = fac_here(*rows, "dry_run=true", cwd=tmp_path)
    assert said in " ".join((planned.out + planned.err).split())
