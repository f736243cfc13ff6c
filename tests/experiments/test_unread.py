"""A setting that an experiment never reads is refused before anything is run: no number stands under a wrong one."""

import json
import re

import pytest
from support.cli import fac_here

from experiments.unread import check, note, watching
from fac.errors import FacError


def test_what_is_read_may_be_given():
    with watching({"a.b": "a.b=1", "c": "c=x", "d.e.f": "d.e.f=2", "out": "out=x", "parity": "parity=official"}):
        note("a", "c.d", "d.e.f")
        check(["a.b", "c.d", "d.e.f"])
    check([])  # without a command line, nothing is watched


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("train.rank", "reads train.rank, so train.rank=2 would change no number: .*, or set tasks.reward.train.rank"),
        ("protocol", "leave it out, or set experiment.protocols"),
        ("nothing", r"leave it out\.$"),
    ],
)
def test_what_is_not_read_is_refused_with_the_key_that_is(key, said):
    known = [key, "tasks.reward.train.rank", "experiment.protocols", "zzz"]
    with watching({key: f"{key}=2"}):
        note("tasks.reward", "experiment.protocols")
        with pytest.raises(FacError, match=said):
            check(known)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["main_results", "train.rank=2"], "train.rank=2 would change no number: .*, or set tasks.toxicity.train.rank"),
        (["main_results", "synthesis.budget=50"], "or set tasks.toxicity.budget, tasks.reward.budget"),
        (["main_results", "synthesis.max_new_tokens=9"], "or set tasks.toxicity.max_new_tokens"),
        (["main_results", "experiment.tasks=[toxicity]", "tasks.reward.budget=9"], "or set tasks.toxicity.budget."),
        (["cross_model", "train.mode=head"], "or set tasks.toxicity.train.mode"),
        (["lab", "+protocol=alone"], "or set experiment.protocols"),
        (["coverage", "data.anchor.path=x.jsonl", "data.seed.path=x.jsonl", "interpret.judge=statistical"],
         r"reads interpret.judge, so interpret.judge=statistical would change no number: leave it out\."),
        (["reward", "data.train.path=x.jsonl", "data.test.path=x.jsonl", "sae=train"], "reads sae, so sae=train"),
        (["reward", "data.train.path=x.jsonl", "data.test.path=x.jsonl", "train.epochs=2"],
         "or set tasks.reward.train.epochs"),
        (["worlds", "synthesis.seed=7"], r"leave it out, or set experiment.generations\."),
        (["matching", "experiment.models=[llama,qwen]", "interpret.judge=statistical"], "reads interpret.judge"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_experiment_refuses_what_it_does_not_read(arguments, said, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c", "text": "a"}) + "\n")
    failure = fac_here(f"experiment={arguments[0]}", *arguments[1:], cwd=tmp_path).failure
    assert failure.startswith("fac: Nothing in this run reads ")
    assert re.search(said, failure), failure
    assert not (tmp_path / "outputs" / "store").exists()
