"""A setting that an experiment never reads is refused before anything is run: no number stands under a wrong one."""

import pytest

from experiments.harness.config import RunConfig, read_config
from experiments.harness.listing import experiments
from fac.errors import FacError
from fac.settings import SettingsError


def planned(*settings: str) -> RunConfig:
    run = read_config(list(settings))
    experiments()[run.name].plan(run)
    return run


@pytest.mark.parametrize(
    "settings",
    [
        ["experiment=probe", "parity=official", "tasks=lab_heads", "out=x", "workers=1", "tracking.enabled=false"],
        ["experiment=probe", "model=lab_qwen", "model.sae=lab:qwen/sae", "sae.layer=2", "seeds.training=[1]"],
        ["experiment=probe", "sae=train", "features.max_tokens=9", "tasks.reward.train.rank=2", "synthesis.n=1"],
        ["experiment=probe", "llm=openai", "llm.timeout=9", "annotator=vllm", "+llm@annotator.roles.judge=openai"],
        ["experiment=probe", "interpret.fdr=0.1", "seeds.annotation=1", "seeds.generation=2", "experiment.rows=[fac]"],
        ["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "data.seed.limit=3", "model.dtype=float32"],
        ["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "+corpus@data.parts=paper"],
    ],
    ids=" ".join,
)
def test_what_is_read_may_be_given(settings: list[str]):
    planned(*settings).check_read()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["experiment=probe", "experiment.tasks=[toxicity]", "tasks.reward.budget=9"],
         "Nothing in this run reads tasks.reward.budget, so tasks.reward.budget=9 would change no number: leave it "
         "out, or set tasks.toxicity.budget."),
        (["experiment=probe", "families=[x]"], "Nothing in this run reads families"),
        (["experiment=probe", "seeds.data=1"], "Nothing in this run reads seeds.data, so seeds.data=1 would change"),
        (["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "interpret.judge=statistical"],
         "Nothing in this run reads interpret.judge, so interpret.judge=statistical would change no number: leave it "
         "out."),
        (["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "llm=openai"], "reads llm, so llm=openai"),
        (["experiment=own_data", "data.anchor.path=x", "data.seed.path=x", "+data.mine.path=y"],
         "reads data.mine.path, so +data.mine.path=y would change no number: leave it out, or set data.anchor.path, "
         "data.seed.path, data.more.path."),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_with_the_key_that_is(settings: list[str], said: str):
    with pytest.raises(FacError) as failure:
        planned(*settings).check_read()
    assert said in str(failure.value)


def test_all_that_is_not_read_is_said_at_once():
    with pytest.raises(SettingsError) as failure:
        planned("experiment=probe", "seeds.data=1", "families=[x]").check_read()
    assert len(failure.value.sentences) == 2


def test_a_seed_of_writing_that_another_key_gives_is_not_read():
    run = read_config(["experiment=probe", "seeds.generation=7"])
    assert run.synthesis("toxicity", seed=9).seed == 9
    with pytest.raises(SettingsError, match="Nothing in this run reads seeds.generation"):
        run.check_read()
    assert run.synthesis("toxicity").seed == 7
    run.check_read()


def test_reading_through_a_run_like_this_one_counts_but_for_what_it_changed():
    run = read_config(["experiment=probe", "synthesis.temperature=0.3", "synthesis.top_p=0.5", "model=lab_qwen"])
    run.with_({"synthesis.temperature": 0.4}).synthesis("toxicity")
    _ = run.for_model("lab_llama").model.ref
    with pytest.raises(SettingsError) as failure:
        run.check_read()
    assert [sentence.split(",")[0] for sentence in failure.value.sentences] == [
        "Nothing in this run reads synthesis.temperature", "Nothing in this run reads model"
    ]  # fmt: skip
    run.synthesis("toxicity")
    _ = run.for_model("lab_qwen").model.ref
    run.check_read()


def test_what_another_run_has_read_may_refer_to_keys_of_this_one():
    """sae.path is model.sae: of the other model first, which is not given here, then of this one, which is."""
    run = read_config(["experiment=probe", "model=lab_qwen", "model.sae=lab:qwen/sae"])
    _ = run.for_model("lab_llama").sae
    with pytest.raises(SettingsError, match=r"Nothing in this run reads model\.sae"):
        run.check_read()
    _ = run.sae
    _ = run.model.ref
    run.check_read()
