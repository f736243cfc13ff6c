"""experiments.config: every YAML composes, becomes typed settings, and a wrong key, type or open value is named."""

from dataclasses import fields
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from experiments import config
from experiments.lab import _Plan
from experiments.main_results import task_plans
from experiments.run import CONF
from experiments.tasks import TASKS
from fac.backbone import ModelRef
from fac.data.source import Source
from fac.errors import FacError
from fac.lab import shipped
from fac.sae import SaeRef, TrainSettings
from fac.sae.recipe import RecipeSettings

FILES = sorted(CONF.rglob("*.yaml"))


def compose(*overrides: str):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(CONF)))
def test_every_yaml_composes_and_becomes_settings(file: Path, tmp_path: Path):
    group = file.parent.name
    chosen = [] if file.parent == CONF else [f"{group}={file.stem}"]
    if group == "tasks":  # the scale chooses them, for experiments that have tasks
        chosen = [f"scale={file.stem}", "experiment=main_results"]
    if group == "head":  # laid over them by a table of head-only training
        chosen = [f"scale={file.stem}", "experiment=cross_model", "experiment.tasks=[reward]"]
    if group == "source":
        chosen = ["experiment=sae", f"+source@data.parts.mine={file.stem}", "data.parts.mine.path=mine.jsonl"]
    if group == "corpus":
        chosen = ["experiment=sae", f"+corpus@data.parts={file.stem}"]
    cfg = compose(*chosen, f"model.path={tmp_path}", f"++model.sae={tmp_path}")
    config.feature_settings(cfg)
    config.read_settings(cfg)
    config.thresholds(cfg)
    config.synthesis_settings(cfg)
    config.classifier_settings(cfg)
    config.engines(cfg)
    if file.parent.name == "tasks" or file.stem == "main_results":
        assert {plan.task.name: type(plan.train) for plan in task_plans(cfg)} == {
            n: t.settings for n, t in TASKS.items()
        }
    trainings = {"train": TrainSettings, "train_paper": RecipeSettings}
    assert isinstance(config.sae_of(cfg), trainings.get(file.stem, SaeRef))
    assert config.model_ref(cfg).path == str(tmp_path)


def test_every_option_of_a_data_set_can_be_set_without_a_plus(tmp_path: Path):
    """Whoever names data of one's own finds the keys there: in the group `source` and in the paper's tasks."""
    options = {field.name for field in fields(Source)} - {"name"}
    texts = {"text", "turns", "label", "label_rule", "label_ones", "label_zeros"}
    assert set(compose("experiment=coverage").data.seed) == options
    assert set(compose("experiment=sae").data.corpus) == options
    assert set(compose("experiment=matching").data.corpus) == options
    assert set(compose("experiment=reward").data.test) == options - texts
    tasks = compose("experiment=main_results", "scale=paper", f"model.path={tmp_path}").tasks
    for name in ("toxicity", "reward", "instruction"):
        for role, told in tasks[name].data.items():
            assert told is None or set(told) == options, f"{name}.{role}"


def test_only_data_sets_that_say_so_lose_malformed_rows(tmp_path: Path):
    """At paper scale those of HH-RLHF and RewardBench, none by inheritance from another data set, and no other test."""
    tasks = compose("experiment=main_results", "scale=paper", f"model.path={tmp_path}").tasks
    for name, task in tasks.items():
        for role, told in task.data.items():
            if told is not None:
                of_hh = str(told.path).startswith("hub:Anthropic/hh-rlhf/")
                says_so = of_hh or str(told.path) == "hub:allenai/reward-bench"
                assert told.on_error == ("skip" if says_so else "fail"), f"{name}.{role}"
                assert not (of_hh and role.startswith("test"))


def test_transfer_trains_heads_only_at_paper_scale_as_table_3_does():
    for task, epochs in (("toxicity", 15), ("reward", 5)):
        told = ["experiment=cross_model", f"experiment.tasks=[{task}]"]
        (lab,), (paper,) = task_plans(compose(*told)), task_plans(compose(*told, "scale=paper", "sae.release=r"))
        assert lab.train.mode == "lora"
        one = (paper.train.mode, paper.train.epochs, paper.train.batch_size, paper.train.gradient_accumulation)
        assert one == ("head", epochs, 1, 4)  # 4.5
        assert paper.train.learning_rate == 8e-5


def test_the_scales_are_the_lab_s_and_the_paper_s():
    lab, paper = (
        compose(f"scale={scale}", "model.path=x", "sae.path=null", "sae.release=r") for scale in ("lab", "paper")
    )
    assert config.classifier_settings(paper).learning_rate == 5e-5
    assert config.classifier_settings(paper).gradient_accumulation == 4
    assert config.value(paper, "train.seeds", list[int]) == [42, 43, 44]
    assert str(config.thresholds(paper).default) == "0.0"
    assert config.thresholds(lab).absolute == config.thresholds(paper).absolute
    assert paper.model.at.paper.path == "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=x", "train.epochs='x' will not do"),
        ("lab.seed=abc", "lab.seed='abc' will not do"),
        ("lab.known=99", "lab.known=99 will not do: choose 1 to 27"),
        ("lab.test=0", "at least one text"),
        ("thresholds.default=abc", "thresholds.default: 'abc' is not a threshold"),
        ("thresholds.default=0.7max", "thresholds.default=0.7max is not one of the thresholds swept (0.0, 0.5,"),
        ("thresholds.absolute=[-1]", "thresholds.absolute, thresholds.relative: A threshold cannot be -1.0"),
        ("thresholds.absolute=[0,0]", "names a threshold twice"),
        ("features.max_tokens=0", "features.max_tokens=0 will not do: it must be above 0"),
        ("+features.top_span=3", "did you mean top_spans"),
        ("interpret.judge=x", "interpret.judge='x' will not do: input should be 'llm' or 'statistical'"),
        ("synthesis.n=0", "synthesis.n=0 will not do"),
        ("train.learning_rate=-1", "train.learning_rate=-1.0 will not do"),
        ("train.seeds=[1,1]", "train.seeds needs at least one entry, and each only once"),
        ("thresholds.absolute=3", "thresholds.absolute=3 will not do"),
        ("experiment.rows=[fc]", "experiment.rows cannot be fc: did you mean fac"),
        ("experiment.rows=fac", "experiment.rows='fac' will not do"),
        ("experiment.test=x", "experiment.test cannot be x"),
        ("train.seeds=[]", "train.seeds needs at least one entry"),
        ("workers=-1", "workers=-1 will not do: input should be greater than 0"),
        ("synthesis.budget=x", "synthesis.budget='x' will not do"),
        ("sae.layer=x", "sae.layer='x' will not do"),
        ("sae.path=/nowhere", "There is no SAE folder /nowhere"),
        ("sae.path=no.pth", "There is no SAE checkpoint no.pth: set sae.path to the file, or to hub:OWNER/REPOSITORY"),
        ("lab=3", "lab"),
        ("~lab.seed", "lab.seed"),
        ("train.mode=x", "There is no training mode 'x'"),
        ("model.path=lab:nothing", "ships no lab model nothing: choose from llama"),
    ],
)
def test_a_wrong_value_is_named(override: str, said: str):
    cfg = compose(override)
    with pytest.raises(FacError) as failure:
        _Plan(cfg)
    assert said in str(failure.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sae.train.k=500", "sae.train.k=500 will not do: an SAE of width 64 has no more features"),
        ("sae.train.steps=0", "sae.train.steps=0 will not do: it must be above 0"),
        ("+sae.train.depth=2", "sae.train.depth is no setting"),
        ("sae.path=/somewhere", "leave out sae=train, or sae.path and sae.release"),
    ],
)
def test_a_wrong_sae_to_train_is_named(override: str, said: str):
    with pytest.raises(FacError) as failure:
        config.sae_of(compose("sae=train", "sae.train.width=64", override))
    assert said in str(failure.value)


@pytest.mark.parametrize(("model", "tokens"), [("llama", 286), ("mistral", 256), ("qwen", 256)])
def test_the_paper_s_sae_is_trained_as_its_defaults_say(model: str, tokens: int):
    cfg = compose("scale=paper", f"model={model}", "sae=train_paper")
    assert config.sae_of(cfg) == RecipeSettings(max_tokens=tokens)
    assert config.sae_layer(cfg) is None
    assert config.model_named(cfg, "mistral")[1] == RecipeSettings(max_tokens=256)


@pytest.mark.parametrize(
    ("overrides", "ref"),
    [
        (["sae.path=hub:Zhongzhi1228/sae_llama_l16_h65536"], SaeRef("hub:Zhongzhi1228/sae_llama_l16_h65536")),
        (["sae.path=hub:a/b", "sae.id=x.pth"], SaeRef("hub:a/b", sae_id="x.pth")),
        (["sae.path=null", "sae.release=r", "sae.id=s"], SaeRef(release="r", sae_id="s")),
    ],
)
def test_an_sae_of_the_hub_is_named(overrides: list[str], ref: SaeRef):
    assert config.sae_of(compose(*overrides)) == ref


def test_an_open_value_is_asked_for():
    with pytest.raises(FacError, match="data.anchor.path is not set"):
        config.source(compose("experiment=coverage"), "anchor")


def test_models_are_named_beside_the_one_of_the_run(tmp_path: Path):
    """The run's own model keeps its overrides; the others are as their files say, at the run's scale."""
    local = ("model=local", f"model.path={tmp_path}", f"model.sae={tmp_path}", "model.dtype=bfloat16")
    cfg = compose(*local)
    assert config.model_named(cfg, "local") == (ModelRef(str(tmp_path), dtype="bfloat16"), SaeRef(str(tmp_path)))
    assert config.model_named(cfg, "llama") == (ModelRef(str(shipped("llama"))), SaeRef(str(shipped("llama/sae"))))
    assert config.model_ref(cfg).path == str(tmp_path)  # the configuration is as it was
    model, sae = config.model_named(compose(*local, "scale=paper", "sae=train", "sae.train.k=4"), "llama")
    assert model.path == "meta-llama/Llama-3.1-8B-Instruct"
    assert isinstance(sae, TrainSettings)
    assert sae.k == 4


def test_each_named_model_is_the_one_its_group_would_choose():
    for file in (CONF / "model").glob("*.yaml"):
        if file.stem == "local":  # no path of its own
            continue
        alone, beside = compose(f"model={file.stem}"), compose("model=local", "model.path=x")
        expected = config.model_ref(alone), config.sae_of(alone)
        assert config.model_named(alone, file.stem) == config.model_named(beside, file.stem) == expected


@pytest.mark.parametrize(
    ("overrides", "name", "said"),
    [
        (["model=local", "model.path=x"], "lama", "There is no model=lama: did you mean llama"),
        ([], "local", "model.path is not set"),
        (["model=local", "model.path=x", "sae.path=y"], "llama", "local and llama need one each: leave them out"),
        (["model=local", "model.path=x", "sae.release=y"], "llama", "set model.sae=DIR for local"),
        (["scale=paper", "model.at.paper.sae=null"], "llama", "No SAE is named for meta-llama"),
    ],
)
def test_a_model_that_cannot_be_named_is_said(overrides: list[str], name: str, said: str):
    with pytest.raises(FacError) as failure:
        config.model_named(compose(*overrides), name)
    assert said in str(failure.value)


def test_a_pinned_revision_is_asked_of_its_own_model_only():
    """Another model.path or model.base has the newest revision, unless one is given with it."""
    qwen, other = ["scale=paper", "model=qwen"], "model.path=Qwen/Qwen2.5-7B-Instruct"
    assert len(config.model_ref(compose(*qwen)).revision or "") == 40
    assert config.model_ref(compose(*qwen, other)).revision is None
    assert config.model_ref(compose(*qwen, other, "model.revision=v1")).revision == "v1"
    for base, length in (("meta-llama/Meta-Llama-3-8B", 40), ("org/base", 0)):
        found = config.base_ref(compose("scale=paper", f"model.base={base}"))
        assert found is not None
        assert (found.path, len(found.revision or "")) == (base, length)


def test_the_lab_trains_one_classifier_in_both_of_its_experiments():
    """Two homes for one setting (conf/scale and conf/tasks): what one of them forgets is another number."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        alone, task = (hydra.compose("config", [f"experiment={name}"]) for name in ("lab", "main_results"))
    own = OmegaConf.to_container(alone.train, resolve=True)
    shared = OmegaConf.to_container(task.tasks.toxicity.train, resolve=True)
    assert isinstance(own, dict)
    assert {name: value for name, value in own.items() if name != "seeds"} == shared
    for name in ("toxicity", "reward", "instruction"):
        assert task.tasks[name].train.float64, name
