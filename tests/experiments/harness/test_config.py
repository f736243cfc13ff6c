"""experiments.harness.config: what is composed is typed, whatever is wrong is said at once, and nothing is unread."""

import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from experiments.harness.config import RunConfig, read_config
from experiments.harness.overrides import CONF
from experiments.tasks import TASKS
from fac.data.source import Source
from fac.errors import FacError
from fac.lab import shipped
from fac.llm.openai import OpenAISettings
from fac.llm.settings import TransformersSettings, VllmSettings
from fac.model_ref import ModelRef
from fac.sae.ref import SaeRef
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.settings import SettingsError

SCALES = ("lab", "small", "paper")
CHOICES = {  # group -> how one of its files is chosen
    **{group: group + "={}" for group in ("annotator", "llm", "model", "parity", "sae", "tasks")},
    "data": "+data@data.mine={}",
    "corpus": "+corpus@data.parts={}",
}


def read(*settings: str) -> RunConfig:
    return read_config(["experiment=probe", *settings])


def sentences(*settings: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as failure:
        read(*settings)
    return failure.value.sentences


# Composition


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("group", CHOICES)
def test_every_file_composes_at_every_scale_and_becomes_settings(group: str, scale: str, tmp_path: Path):
    files = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    assert files
    for name in files:
        if group == "tasks" and not name.startswith(scale):
            continue
        if group == "data" and name.startswith("small_") != (scale == "small"):
            continue
        open_values = {"local": [f"model.path={tmp_path}"], "source": ["data.mine.path=mine.jsonl"]}.get(name, [])
        if (
            name == "official" and scale == "small"
        ):  # the seed side cannot be judged from features that nobody explained
            open_values.append("interpret.explained=all")
        run = read(f"scale={scale}", CHOICES[group].format(name), *open_values)
        assert run.scale == scale
        assert {task: type(told.train) for task, told in run.tasks.items()} == {
            task.name: task.settings for task in TASKS.values()
        }
        assert run.model.ref.path
        assert run.llms.writer
        if group == "data":
            assert run.data["mine"].name == "mine"
        if group == "model":
            assert run.model.name == (tmp_path.name if name == "local" else name)


def test_every_folder_of_the_configuration_is_composed():
    folders = {str(file.parent.relative_to(CONF)) for file in CONF.rglob("*.yaml")}
    assert folders == {".", "scale", *CHOICES, *(f"tasks/{scale}" for scale in SCALES)}
    for scale in SCALES:  # each task's file is in its scale's list
        listed = yaml.safe_load((CONF / "tasks" / f"{scale}.yaml").read_text())["defaults"]
        assert set(listed) == {f"{scale}/{file.stem}@{file.stem}" for file in (CONF / "tasks" / scale).glob("*.yaml")}


def test_the_scales_are_the_lab_s_and_the_paper_s():
    lab, paper = read(), read("scale=paper")
    assert (lab.model.name, paper.model.name) == ("lab_llama", "llama31_8b")
    assert lab.families == ("lab_llama", "lab_mistral", "lab_qwen")
    assert paper.families == ("llama31_8b", "mistral_7b", "qwen2_7b")
    assert paper.tasks["toxicity"].train.learning_rate == 5e-5
    assert paper.tasks["toxicity"].train.gradient_accumulation == 4
    assert paper.tasks["instruction"].protocol == "alone"
    assert paper.seeds.training == lab.seeds.training == (42, 43, 44)
    assert str(paper.thresholds.default) == "0.0"
    assert lab.thresholds.absolute == paper.thresholds.absolute
    assert paper.model.ref.path == "meta-llama/Llama-3.1-8B-Instruct"
    assert (lab.tasks["survival"].sizes.known, lab.tasks["survival"].sizes.seed) == (4, 40)
    assert lab.tasks["toxicity"].data == {} == lab.tasks["toxicity"].sample
    assert paper.tasks["toxicity"].sizes is None
    assert list(paper.tasks["toxicity"].data)[:3] == ["anchor", "anchor_red_team", "anchor_helpsteer2"]
    assert paper.tasks["toxicity"].sample == {"seed": 8637, "safe": 1000, "toxic": 200}
    assert paper.tasks["toxicity"].data["test"].where == {"human_annotation": True}
    assert paper.tasks["toxicity"].data["validation"].where == {"human_annotation": True}
    assert paper.tasks["toxicity"].data["validation"].split == "train"
    assert paper.tasks["reward"].data["seed"].text == "auto"
    assert str(paper.tasks["survival"].data["test"].path).endswith("survival-instinct/test_dataset_ab.json")
    for name in ("toxicity", "reward", "instruction"):
        assert lab.tasks[name].train.float64, name


def test_the_small_scale_is_a_chat_model_on_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAC_DATA", "/data")
    monkeypatch.setenv("FAC_SMALL_MODEL", "outputs/models/small")
    small = read("scale=small")
    assert (small.model.name, small.model.path) == ("smollm2_135m", "outputs/models/small")
    sources = [source for task in small.tasks.values() for source in task.data.values()]
    sources += [part.source for part in small.sae_texts.values()]
    assert {str(file).split("/")[1] for source in sources for file in source.paths} == {"data"}
    assert small.tasks["toxicity"].train.mode == small.tasks["reward"].train.mode == "head"
    assert small.tasks["toxicity"].data["seed"].path == small.tasks["toxicity"].data["safe"].path
    for role in ("seed", "safe", "seed_toxic", "toxic"):  # the seed that is measured is the one that is trained on
        assert small.tasks["toxicity"].data[role].limit == (100 if "toxic" in role else 1000)
    monkeypatch.delenv("FAC_SMALL_MODEL")
    assert read("scale=small").model.path == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_heads_only_are_trained_at_paper_scale_where_an_experiment_chooses_them():
    for scale, expected in (("lab", ("lora", 3)), ("small", ("head", 15)), ("paper", ("head", 15))):
        train = read(f"scale={scale}", f"tasks={scale}_heads").tasks["toxicity"].train
        assert (train.mode, train.epochs) == expected
    train = read("scale=paper", "tasks=paper_heads").tasks["reward"].train
    assert (train.epochs, train.learning_rate, train.batch_size, train.gradient_accumulation) == (5, 8e-5, 1, 4)  # 4.5


def test_every_option_of_a_data_set_can_be_set_without_a_plus():
    """Whoever names data of one's own finds the keys there: under data.ROLE and in the paper's tasks."""
    options = {field.name for field in fields(Source)} - {"name"}
    own = read_config(["experiment=own_data", "data.anchor.path=a.csv", "data.seed.path=b.csv"])
    assert set(own.values["data"]["anchor"]) == options
    assert own.values["data"]["more"]["path"] is None
    for name, task in read("scale=paper").values["tasks"].items():
        for role, told in task["data"].items():
            assert told is None or set(told) == options, f"{name}.{role}"


def test_only_data_sets_that_say_so_lose_malformed_rows():
    """At paper scale those of HH-RLHF and RewardBench, none by inheritance from another data set, and no other test."""
    for name, task in read("scale=paper").tasks.items():
        for role, told in task.data.items():
            of_hh = str(told.path).startswith("hub:Anthropic/hh-rlhf/")
            says_so = of_hh or str(told.path) == "hub:allenai/reward-bench"
            assert told.on_error == ("skip" if says_so else "fail"), f"{name}.{role}"
            assert not (of_hh and role.startswith("test"))


def test_a_data_set_at_hand_takes_the_place_of_the_hub_s():
    """Its subset, split and revision go with it; with null a role does without one of its sets."""
    run = read("scale=paper", "tasks.toxicity.data.test.path=mine.csv", "tasks.toxicity.data.anchor_helpsteer2=null")
    sets = run.tasks["toxicity"].data
    assert (str(sets["test"].path), sets["test"].split, sets["test"].label) == ("mine.csv", None, "toxicity")
    assert "anchor_helpsteer2" not in sets


def test_the_paper_s_corpus_is_a_mixture():
    parts = read("+corpus@data.parts=paper").parts
    assert list(parts) == ["sharegpt", "ultrachat", "hh_rlhf", "webglm_qa", "evol_instruct", "helpsteer2"]
    assert {name: part.sample for name, part in parts.items() if part.sample} == {"ultrachat": 400000}
    assert parts["evol_instruct"].source.on_error == "skip"


# What is wrong


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lab.sead=1", "The configuration has no key lab.sead: --cfg job --resolve prints all that there are."),
        ("seeds.dta=1", "The configuration has no key seeds.dta: did you mean seeds.data."),
        ("train.rank=2", "The configuration has no key train.rank: set tasks.toxicity.train.rank, "
         "tasks.reward.train.rank, tasks.instruction.train.rank."),
        ("protocol=alone", "The configuration has no key protocol: set tasks.toxicity.protocol, tasks.reward.protocol, "
         "tasks.sycophancy.protocol and 2 more."),
        ("+protocol=alone", "The configuration has no key protocol: set tasks.toxicity.protocol, "),
        ("synthesis.budget=50", "The configuration has no key synthesis.budget: set tasks.toxicity.budget, "),
        ("tasks.toxicty.budget=3", "no key tasks.toxicty.budget: did you mean tasks.toxicity.budget."),
        ("tasks.toxicity.data.test.path=x", "The configuration has no key tasks.toxicity.data.test.path at scale=lab: "
         "it is a key of scale=paper."),
        ("+tasks.toxicity.sample.test=5", "tasks.toxicity.sample is of data sets, and this task draws from the lab's"),
        ("+features.top_span=3", "features.top_span is no setting: did you mean top_spans."),
        ("+interpret.seed=3", "interpret.seed is no setting: set seeds.annotation."),
        ("+synthesis.max_new_tokens=3", "synthesis.max_new_tokens is no setting: set tasks.NAME.max_new_tokens."),
        ("+experiment.row=x", "experiment.row is no setting: did you mean rows."),
        ("experiment.at_least=x", "experiment.at_least='x' will not do"),
        ("experiment.rows=[fc]", "experiment.rows cannot be fc: did you mean fac."),
        ("experiment.rows=fac", "experiment.rows='fac' will not do"),
        ("tasks.toxicity.train.epochs=x", "tasks.toxicity.train.epochs='x' will not do"),
        ("tasks.toxicity.train.mode=x", "tasks.toxicity.train.mode=x will not do: a training is lora, head"),
        ("tasks.reward.train.learning_rate=-1", "tasks.reward.train.learning_rate=-1 will not do: it must be above 0"),
        ("tasks.sycophancy.train.norm=0", "tasks.sycophancy.train.norm=0.0 will not do: it is a share above 0"),
        ("tasks.toxicity.sizes.known=99", "tasks.toxicity.sizes.known=99 will not do: choose 1 to 27 concepts."),
        ("tasks.reward.sizes.known=99", "tasks.reward.sizes.known=99 will not do: choose 1 to"),
        ("tasks.toxicity.sizes.test=0", "tasks.toxicity.sizes.test=0 will not do: every corpus of the lab needs at"),
        ("tasks.toxicity.budget=x", "tasks.toxicity.budget='x' will not do"),
        ("tasks.toxicity.protocol=x", "tasks.toxicity.protocol='x' will not do: input should be 'added' or 'alone'."),
        ("tasks.toxicity.train=3", "tasks.toxicity.train is a group of settings, not a value: set its keys, such as"),
        ("~tasks.toxicity.train", "tasks.toxicity.train is missing: give it a value."),
        ("+tasks.toxicity_2.budget=1", "tasks.toxicity_2 is no task: did you mean toxicity."),
        ("seeds.data=abc", "seeds.data='abc' will not do"),
        ("seeds.training=[1,1]", "seeds.training needs at least one entry, and each only once."),
        ("seeds.training=[]", "seeds.training needs at least one entry"),
        ("seeds=3", "seeds is a group of settings, not a value"),
        ("~seeds.data", "seeds.data is missing: give it a value."),
        ("thresholds.default=abc", "thresholds.default: 'abc' is not a threshold"),
        ("thresholds.default=0.7max", "thresholds.default=0.7max is not one of the thresholds swept (0.0, 0.5,"),
        ("thresholds.absolute=[-1]", "thresholds.absolute, thresholds.relative: A threshold cannot be -1.0"),
        ("thresholds.absolute=[0,0]", "names a threshold twice"),
        ("thresholds.absolute=3", "thresholds.absolute=3 will not do"),
        ("features.max_tokens=0", "features.max_tokens=0 will not do: it must be above 0."),
        ("features.shift=-1", "features.shift=-1 will not do: it is the index of the first token that counts."),
        ("interpret.judge=x", "interpret.judge='x' will not do: input should be 'llm' or 'statistical'."),
        ("interpret.missing=x", "interpret.missing='x' will not do"),
        ("synthesis.n=0", "synthesis.n=0 will not do: it must be above 0."),
        ("synthesis.spans=-1", "synthesis.spans=-1 will not do: it is 0 or more."),
        ("workers=-1", "workers=-1 will not do: it must be above 0."),
        ("sae.layer=x", "sae.layer='x' will not do"),
        ("model=local", "model.path is not set: give it on the command line, model.path=VALUE."),
        ("model=llama", "There is no model=llama: at scale=lab it is model=lab_llama."),
        ("model=llma", "There is no model=llma: did you mean lab_llama."),
        ("scale=papr", "There is no scale=papr: did you mean paper."),
        ("model.path=lab:nothing", "ships no lab model nothing: choose from llama"),
        ("row=x", "The configuration has no key row: set experiment.rows."),
        ("out=${nowhere}", "out cannot be resolved (Interpolation key 'nowhere' not found): in a value, ${KEY} stands"),
        ("model.path=a/${x}", "model.path cannot be resolved (Interpolation key 'x' not found): in a value, ${KEY}"),
        ("llm.engine=vlm", "There is no llm.engine=vlm: did you mean vllm."),
        ("llm.batch=0", "llm.batch=0 will not do: it must be above 0."),
        ("+llm@annotator.roles.judg=openai", "annotator.roles.judg is no role: did you mean judge."),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence_that_names_its_key(setting: str, said: str):
    found = sentences(setting)
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["scale=paper", "model=qwen"], "There is no model=qwen: at scale=paper it is model=qwen2_7b."),
        (["sae=train", "sae.train.width=64", "sae.train.k=500"], "sae.train.k=500 will not do: an SAE of width 64 has"),
        (["sae=train", "sae.train.steps=0"], "sae.train.steps=0 will not do: it must be above 0"),
        (["sae=train", "+sae.train.depth=2"], "sae.train.depth is no setting"),
        (["sae=train", "sae.train.recipe=papr"], "There is no sae.train.recipe=papr: did you mean paper"),
        (
            ["sae=train_paper", "sae.train.k_start=9"],
            "sae.train: k=20 (at the end), k_start=9 and width=65536 must not",
        ),
        (["+seeds.data=1"], "+seeds.data=1 adds a key that the configuration has: write it without the +."),
        (["llm=opnai", "llm.timeout=9"], "There is no llm=opnai: did you mean openai."),  # whose key that may be
        (["llm=vllm", "llm.tensor_parallel_size=x"], "llm.tensor_parallel_size='x' will not do"),
        (["llm=openai", "++llm.api_key=x"], "llm.api_key is no setting"),
        (["annotator=openai", "annotator.key_env=sk-planted"], "key_env is the NAME of an environment variable"),
        (["annotator=openai", "annotator.model=other"], "The price of other is not known"),
        (["scale=paper", "tasks.reward.sample.seed=0"], "tasks.reward.sample.seed=0 will not do: set it to 1 or more"),
        (["scale=paper", "tasks.reward.data.seed=null"], "tasks.reward.data.seed names no data set: set tasks.reward."),
        (
            ["scale=paper", "+tasks.reward.data.sead=null"],
            "tasks.reward.data.sead is no role of the task: did",
        ),
        (["scale=paper", "tasks.reward.data.test.limit=0"], "tasks.reward.data.test.limit is 0: set it to 1 or more"),
    ],
)
def test_a_wrong_choice_or_what_it_brings_is_named(settings: list[str], said: str):
    (found,) = sentences(*settings)
    assert said in found
    assert "sk-planted" not in found


def test_all_mistakes_of_a_command_are_named_at_once():
    with pytest.raises(FacError) as failure:
        read("train.rank=2", "tasks.toxicty.budget=3")
    assert str(failure.value) == (
        "2 settings will not do:\n"
        "  The configuration has no key train.rank: set tasks.toxicity.train.rank, tasks.reward.train.rank, "
        "tasks.instruction.train.rank.\n"
        "  The configuration has no key tasks.toxicty.budget: did you mean tasks.toxicity.budget."
    )
    found = sentences(
        *("foo", "seeds.data=0,1", "model=llama", "train.epochs=x", "workers=0", "tasks.toxicity.train.rank=0"),
        *("features.max_tokens=0", "+features.depth=3", "seeds.training=[]", "llm.batch=0", "experiment.at_least=x"),
    )
    keys = ["'foo'", "seeds.data=0,1", "model=llama", "train.epochs", "workers=0", "features.depth", "max_tokens=0",
            "seeds.training", "experiment.at_least", "tasks.toxicity.train.rank=0", "llm.batch=0"]  # fmt: skip
    assert len(found) == len(keys)
    for key, sentence in zip(keys, found, strict=True):
        assert key in sentence


def test_an_open_value_is_asked_for_by_name():
    with pytest.raises(SettingsError) as failure:
        read_config(["experiment=own_data", "model=local"])
    assert failure.value.sentences == tuple(
        f"{key} is not set: give it on the command line, {key}=VALUE."
        for key in ("model.path", "data.anchor.path", "data.seed.path")
    )


# Models, SAEs, engines


@pytest.mark.parametrize(("model", "tokens"), [("llama31_8b", 286), ("mistral_7b", 256), ("qwen2_7b", 256)])
def test_the_paper_s_sae_is_trained_as_its_defaults_say(model: str, tokens: int):
    run = read("scale=paper", f"model={model}", "sae=train_paper")
    assert run.sae == RecipeSettings(max_tokens=tokens)
    assert run.sae_layer is None
    assert run.for_model("mistral_7b").sae == RecipeSettings(max_tokens=256)


@pytest.mark.parametrize(
    ("settings", "ref"),
    [
        (["sae.path=hub:Zhongzhi1228/sae_llama_l16_h65536"], SaeRef("hub:Zhongzhi1228/sae_llama_l16_h65536")),
        (["sae.path=hub:a/b", "sae.id=x.pth"], SaeRef("hub:a/b", sae_id="x.pth")),
        (["sae.path=null", "sae.release=r", "sae.id=s"], SaeRef(release="r", sae_id="s")),
    ],
)
def test_an_sae_of_the_hub_is_named(settings: list[str], ref: SaeRef):
    assert read(*settings).sae == ref


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["sae.path=/nowhere"], "There is no SAE folder /nowhere"),
        (
            ["sae.path=no.pth"],
            "There is no SAE checkpoint no.pth: set sae.path to the file, or to hub:OWNER/REPOSI",
        ),
        (["sae=train", "sae.path=/somewhere"], "leave out sae=train, or sae.path and sae.release"),
        (["sae.path=null", "sae.release=r"], "sae.release=r holds several SAEs: name one of them with sae.id"),
        (["scale=paper", "model.sae=null"], "No SAE is named for meta-llama/Llama-3.1-8B-Instruct: set sae.path=DIR"),
    ],
)
def test_an_sae_is_missed_by_those_who_read_it(settings: list[str], said: str):
    run = read(*settings)
    with pytest.raises(FacError) as failure:
        _ = run.sae
    assert said in str(failure.value)


def test_models_are_named_beside_the_one_of_the_run(tmp_path: Path):
    """The run's own model keeps its overrides; the others are as their files say, with the run's other settings."""
    local = ("model=local", f"model.path={tmp_path}", f"model.sae={tmp_path}", "model.dtype=bfloat16")
    run = read(*local, "features.max_tokens=9")
    own = run.for_model("local")
    assert (own.model.ref, own.sae) == (ModelRef(str(tmp_path), dtype="bfloat16"), SaeRef(str(tmp_path)))
    other = run.for_model("lab_llama")
    assert (other.model.ref, other.sae) == (ModelRef(str(shipped("llama"))), SaeRef(str(shipped("llama/sae"))))
    assert other.features.max_tokens == 9
    assert run.model.path == str(tmp_path)
    paper = read(*local, "scale=paper", "sae=train", "sae.train.k=4").for_model("llama31_8b")
    assert paper.model.ref.path == "meta-llama/Llama-3.1-8B-Instruct"
    assert isinstance(paper.sae, TrainSettings)
    assert paper.sae.k == 4


def test_each_named_model_is_the_one_its_group_would_choose():
    beside = read("model=local", "model.path=x")
    for file in (CONF / "model").glob("*.yaml"):
        if file.stem != "local":  # no path of its own
            alone, other = read(f"model={file.stem}"), beside.for_model(file.stem)
            assert alone.model == other.model
            if alone.model.sae is not None:  # else it is to be trained
                assert alone.sae == other.sae


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        (["model=local", "model.path=x"], "lab_lama", "There is no model=lab_lama: did you mean lab_llama"),
        (["model=local", "model.path=x"], "qwen", "There is no model=qwen: at scale=lab it is model=lab_qwen."),
        ([], "local", "model.path is not set"),
        (["model=local", "model.path=x", "sae.path=y"], "lab_llama", "x and lab_llama need one each: leave them"),
        (["model=local", "model.path=x", "sae.release=y"], "lab_llama", "set model.sae=DIR for x"),
    ],
)
def test_a_model_that_cannot_be_named_is_said(settings: list[str], name: str, said: str):
    run = read(*settings)
    with pytest.raises(FacError) as failure:
        run.for_model(name)
    assert said in str(failure.value)


def test_a_pinned_revision_is_asked_of_its_own_model_only():
    """Another model.path or model.base has the newest revision, unless one is given with it."""
    qwen, other = ["scale=paper", "model=qwen2_7b"], "model.path=Qwen/Qwen2.5-7B-Instruct"
    assert len(read(*qwen).model.ref.revision or "") == 40
    assert read(*qwen, other).model.ref.revision is None
    assert read(*qwen, other, "model.revision=v1").model.ref.revision == "v1"
    assert len(read(*qwen, other).for_model("llama31_8b").model.ref.revision or "") == 40
    for settings, length in (([], 40), (["model.base=org/base"], 0)):
        base = read("scale=paper", *settings).model.base_ref
        assert base is not None
        assert len(base.revision or "") == length


def test_who_writes_and_annotates():
    llms = read().llms
    assert llms.writer.settings == TransformersSettings()
    assert set(llms.annotators.values()) == {llms.writer}
    paper = read("scale=paper").llms
    assert {role: getattr(engine.settings, "model", None) for role, engine in paper.annotators.items()} == {
        **dict.fromkeys(("explain", "verify", "judge"), "gpt-4o-mini-2024-07-18"),
        "compare": "gpt-4-1106-preview",
    }
    vllm = read("scale=paper", "annotator=writer", "llm=vllm").llms
    assert vllm.annotators["judge"] is vllm.writer
    assert vllm.writer.settings == VllmSettings()
    own = read("+llm@annotator.roles.judge=openai", "annotator=transformers", "annotator.path=lab:mistral").llms
    assert own.annotators["explain"].model == ModelRef(str(shipped("mistral")))
    assert isinstance(own.annotators["judge"].settings, OpenAISettings)


# Seeds and runs like this one


def test_the_seeds_reach_what_they_are_named_for():
    run = read("seeds.annotation=7", "seeds.generation=8")
    assert run.interpret.seed == 7
    assert run.synthesis("toxicity").seed == 8
    assert run.synthesis("toxicity").max_new_tokens == run.tasks["toxicity"].max_new_tokens == 40


def test_a_run_with_other_values_is_checked_as_on_the_command_line():
    run = read("tasks.toxicity.budget=7")
    other = run.with_({"synthesis.temperature": 0.4, "tasks.toxicity.budget": 100, "seeds.training": (1, 2)})
    assert (run.synthesis("toxicity").temperature, run.tasks["toxicity"].budget) == (0.8, 7)
    assert (other.synthesis("toxicity").temperature, other.tasks["toxicity"].budget) == (0.4, 100)
    assert other.seeds.training == (1, 2)
    assert other.with_({"tasks.toxicity.budget": 5}).synthesis("reward").temperature == 0.4
    assert run.with_({}) is run
    with pytest.raises(SettingsError) as failure:
        run.with_({"synthesis.temprature": 0.4, "tasks.toxicity.budget": 0, "features.max_tokens": "x"})
    assert [s.split(":")[0] for s in failure.value.sentences] == [
        "The configuration has no key synthesis.temprature",
        "features.max_tokens='x' will not do",
        "tasks.toxicity.budget=0 will not do",
    ]


def test_what_refers_to_a_changed_value_follows_it():
    run = read("sae=train").with_({"features.max_tokens": 99})
    assert isinstance(run.sae, TrainSettings)
    assert run.sae.max_tokens == 99


def test_settings_can_go_to_another_process():
    run = read()
    assert pickle.loads(pickle.dumps(run.tasks["toxicity"])) == run.tasks["toxicity"]
    assert pickle.loads(pickle.dumps(run.model)) == run.model
