"""Every experiment refuses settings that it does not read, with the key that would do it, before anything is run."""

import json
import re

import pytest
from support.cli import fac_here

OWN = ["data.train.path=x.jsonl", "data.test.path=x.jsonl"]
CORPORA = ["data.anchor.path=x.jsonl", "data.seed.path=x.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["main_results", "experiment.tasks=[toxicity]", "tasks.reward.budget=9"], "or set tasks.toxicity.budget."),
        (["lab", "tasks.reward.train.rank=2"], "or set tasks.toxicity.train.rank."),
        (["coverage", *CORPORA, "interpret.judge=statistical"],
         r"reads interpret.judge, so interpret.judge=statistical would change no number: leave it out\."),
        (["reward", *OWN, "sae=train"], "reads sae, so sae=train"),
        (["reward", *OWN, "tasks.toxicity.train.epochs=2"], "or set tasks.reward.train.epochs"),
        (["worlds", "seeds.generation=7"], r"leave it out, or set experiment.generations\."),
        (["matching", "interpret.judge=statistical"], "reads interpret.judge"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_every_experiment_refuses_what_it_does_not_read(arguments, said, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c", "text": "a"}) + "\n")
    failure = fac_here(f"experiment={arguments[0]}", *arguments[1:], cwd=tmp_path).failure
    assert failure.startswith("fac: Nothing in this run reads ")
    assert re.search(said, failure), failure
    assert not (tmp_path / "outputs" / "store").exists()
