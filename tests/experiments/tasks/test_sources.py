"""experiments.tasks.data from data sets: which rows a task is given, what is left out, what wrong settings are told."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pytest

from eval.alpaca import is_in_alpaca_eval
from experiments import config
from experiments.cells import _test_params, _tested_on
from experiments.job import Job
from experiments.main_results import task_plans
from experiments.run import CONF
from experiments.tasks import TASKS
from experiments.tasks.base import TaskData, load_examples
from experiments.tasks.data import Sources, origin_of, source_of, task_data
from experiments.tasks.instruction import ANSWERS, EVALUATION, Evaluation, others
from fac.backbone import ModelRef
from fac.data.corpus import Corpus, overlap
from fac.data.examples import read_examples
from fac.data.pairs import read_pairs
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR
from fac.data.source import Source
from fac.errors import FacError
from fac.lab import shipped
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.train.sft import SftSettings

COUNTS = {"toxicity": {"seed": 8637, "safe": 1000, "toxic": 200}, "reward": {"seed": 4000}}
COMMON = ("anchor", "seed", "human", "test")
HUMAN = "annotations.toxicity.majority_human"


def compose(*overrides: str):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=["experiment=main_results", "scale=paper", *overrides])


def write(file: Path, rows: list[dict]) -> dict[str, str]:
    """A data set's settings."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file)}


def queries(folder: Path, name: str, texts: list[str], label: int | None = None) -> dict[str, Any]:
    rows = [{"text": text} | ({} if label is None else {"toxic": i % 2}) for i, text in enumerate(texts)]
    return write(folder / f"{name}.jsonl", rows) | ({} if label is None else {"label": "toxic"})


def texts(artifact: Artifact) -> list[str]:
    return [example.text for example in Corpus.load(artifact.path)]


def labels(artifact: Artifact) -> list[int]:
    found = Corpus.load(artifact.path).labels()
    assert found is not None
    return found.tolist()


@pytest.fixture
def toxic(tmp_path: Path) -> dict[str, Any]:
    """Settings of the toxicity task whose sets share a text with the test, otherwise spelt, and one with AlpacaEval."""
    folder = tmp_path / "data"
    folder.mkdir()
    asked = "What are the names of some famous actors that started their careers on Broadway?"
    assert is_in_alpaca_eval(asked)
    held = {
        "anchor": [f"anchor {i}" for i in range(9)],
        "anchor_more": ["more one", "TEST  one"],
        "seed": [f"seed {i}" for i in range(8)],
        "safe": [*(f"safe {i}" for i in range(8)), asked],
        "toxic": [f"toxic {i}" for i in range(6)],
        "human": [*(f"toxic {i}" for i in range(6)), *(f"human {i}" for i in range(5))],
    }
    data = {name: queries(folder, name, found) for name, found in held.items()}
    data["test"] = queries(folder, "test", ["test one", "test two", "test three"], label=0)
    return {"data": data, "sample": {"seed": 5, "safe": 4, "toxic": 3}}


def drawn(values: dict[str, Any], folder: Path, seed: int = 0, task: str = "toxicity", test: str = "test") -> TaskData:
    return task_data(Store(folder / "store"), TASKS[task], seed, origin_of(TASKS[task], values), test)


def test_the_toxicity_task_s_roles(toxic: dict[str, Any], tmp_path: Path):
    data = drawn(toxic, tmp_path)
    assert texts(data.anchor) == [*(f"anchor {i}" for i in range(9)), "more one"]  # both sets, without the test's text
    known, (safe,), positives = texts(data.known), data.base, data.seed
    assert len(known) == 5
    assert set(known) <= {f"seed {i}" for i in range(8)}
    for part, label, name, count in ((safe, 0, "safe", 4), (positives, 1, "toxic", 3)):
        assert labels(part) == [label] * count
        assert {text.split()[0] for text in texts(part)} == {name}
    assert [query.text for query in data.seed_examples] == texts(positives)
    assert not set(data.human_examples) & set(data.seed_examples)
    assert len(data.human_examples) == 11 - 3
    assert labels(data.test) == [0, 1, 0]
    assert any("toxicity, anchor: 1 rows of held-out sets or of AlpacaEval left out" in note for note in data.notes)
    assert any("toxicity, safe: 1 rows of held-out sets or of AlpacaEval left out" in note for note in data.notes)


def test_the_test_and_the_validation_set_are_left_out_whichever_is_scored(toxic: dict[str, Any], tmp_path: Path):
    """So choices on the validation set are made with the training set that the test sees."""
    folder = tmp_path / "data"
    toxic["data"]["validation"] = queries(folder, "validation", ["TOXIC  1", "safe 2", "test two", "other"], label=0)
    tested, chosen = (drawn(toxic, tmp_path, test=test) for test in ("test", "validation"))
    assert texts(tested.test) == ["test one", "test two", "test three"]
    assert texts(chosen.test) == ["TOXIC  1", "safe 2", "other"]  # without what the test asks
    for data in (tested, chosen):
        used = [text for part in (data.anchor, data.known, *data.base, data.seed) for text in texts(part)]
        assert not {"toxic 1", "safe 2"} & {*used, *(query.text for query in data.human_examples)}
        assert all(text in data.held_out for text in ("Test One", "toxic 1", "safe 2", "other"))
        assert "toxic 2" not in data.held_out
        assert any("toxicity, toxic: 1 rows of held-out sets" in loss for loss in data.losses)
    for one, other in ((tested.anchor, chosen.anchor), (tested.seed, chosen.seed), (tested.base, chosen.base)):
        assert one == other
    assert tested.human_examples == chosen.human_examples


@pytest.mark.parametrize("test", ["test", "validation"])
def test_other_tasks_too_are_scored_on_the_set_that_is_named(tmp_path: Path, test: str):
    """And what people wrote is without the seed's rows."""
    held = {
        name: [{"instruction": f"{name} {n}", "output": "so"} for n in range(4)] for name in (*COMMON, "validation")
    }
    held["human"] += held["seed"]
    values = {"data": {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in held.items()}}
    data = drawn(values, tmp_path, task="instruction", test=test)
    asked = {
        **{name: load_examples(INSTRUCTION, [getattr(data, name)]) for name in ("test", "seed", "known", "anchor")},
        "human": data.human_examples,
    }
    found = {role: {example.instruction.split()[0] for example in examples} for role, examples in asked.items()}
    expected = {"test": {test}, "seed": {"seed"}, "known": {"seed"}, "human": {"human"}, "anchor": {"anchor"}}
    assert found == expected


def test_the_whole_test_is_left_out_though_a_part_of_it_is_scored(toxic: dict[str, Any], tmp_path: Path):
    """Else what a row trains on would depend on which texts of the test the seed draws."""
    folder = tmp_path / "data"
    asked = [f"toxic {i}" for i in range(4)]
    toxic["data"]["test"] = queries(folder, "test", asked, label=0)
    toxic["sample"] |= {"test": 2, "toxic": 2}
    data = drawn(toxic, tmp_path)
    assert set(texts(data.test)) < set(asked)
    assert all(text in data.held_out for text in asked)
    assert set(texts(data.seed)) == {"toxic 4", "toxic 5"}
    assert not set(asked) & {query.text for query in data.human_examples}


def test_labelled_texts_may_be_the_validation_s_where_the_test_is_scored(toxic: dict[str, Any], tmp_path: Path):
    validation = queries(tmp_path / "data", "validation", ["one", "two", "test two"], label=0)
    toxic["data"] |= {"validation": validation, "labelled": validation}
    data = drawn(toxic, tmp_path)
    assert data.labelled is not None
    assert texts(data.labelled) == ["one", "two"]
    with pytest.raises(FacError, match=r"Every row of tasks.toxicity.data.labelled stands in the test, the validation"):
        drawn(toxic, tmp_path, test="validation")


def test_a_validation_set_that_cannot_be_had_may_be_left_out(toxic: dict[str, Any], tmp_path: Path):
    toxic["data"]["validation"] = {"path": "gone.jsonl"}
    with pytest.raises(FacError, match=r"Or do without it: tasks.toxicity.data.validation=null"):
        drawn(toxic, tmp_path)


def test_rows_that_could_not_be_read_are_told_in_the_table(toxic: dict[str, Any], tmp_path: Path):
    file = Path(toxic["data"]["human"]["path"])
    file.write_text(file.read_text() + '{"text": 3}\n')
    toxic["data"]["human"] |= {"on_error": "skip"}
    losses = drawn(toxic, tmp_path).losses
    assert any(re.match(r"toxicity, human: 11 texts, 1 malformed rows skipped", loss) for loss in losses)
    assert not any("toxicity, seed: 8 texts" in loss for loss in losses)  # of which nothing was lost


def test_the_seed_draws_the_rows(toxic: dict[str, Any], tmp_path: Path):
    first, again, other = (drawn(toxic, tmp_path / str(i), seed) for i, seed in enumerate((0, 0, 1)))
    assert texts(first.known) == texts(again.known)
    assert texts(first.known) != texts(other.known)
    assert first.anchor.key == other.anchor.key  # of which nothing is drawn
    assert drawn({**toxic, "sample": {}}, tmp_path).known.key == drawn({**toxic, "sample": {}}, tmp_path, 1).known.key


def test_files_are_known_by_their_content(toxic: dict[str, Any], tmp_path: Path):
    before = drawn(toxic, tmp_path)
    moved = Path(toxic["data"]["seed"]["path"]).rename(tmp_path / "moved.jsonl")
    toxic["data"]["seed"]["path"] = str(moved)
    assert drawn(toxic, tmp_path) == before
    moved.write_text('{"text": "all new"}\n' * 5)
    assert texts(drawn(toxic, tmp_path).known) == ["all new"] * 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"tests": {"path": "x"}}}, "tasks.toxicity.data.tests is no role of the task: did you mean test"),
        ({"data": {"safe": None}}, "tasks.toxicity.data.safe names no data set: set tasks.toxicity.data.safe.path"),
        ({"data": {"safe": {"path": None}}}, "tasks.toxicity.data.safe names no data set"),
        ({"data": {"safe": {"path": "gone.jsonl"}}}, "There is no file gone.jsonl: set tasks.toxicity.data.safe.path"),
        ({"data": {"safe": {"path": "x", "limit": 0}}}, "tasks.toxicity.data.safe.limit is 0: set it to 1 or more"),
        ({"data": {"safe": {"path": "x", "labels": "y"}}}, "tasks.toxicity.data.safe.labels is no setting"),
        ({"sample": {"saf": 3}}, "tasks.toxicity.sample.saf is no role of the task: did you mean safe"),
        ({"sample": {"safe": 0}}, "tasks.toxicity.sample.safe=0 will not do"),
        ({"sample": {"safe": "x"}}, "tasks.toxicity.sample.safe=x will not do"),
        ({"sample": {"safe": 99}}, "tasks.toxicity.sample.safe=99 will not do: its data sets have 8 rows; lower it"),
        ({"sizes": {}}, "tasks.toxicity needs either data"),
    ],
)
def test_what_cannot_be_is_said_with_its_key(change: dict, said: str, toxic: dict[str, Any], tmp_path: Path):
    merged = {**toxic, **{key: {**toxic.get(key, {}), **values} for key, values in change.items()}}
    with pytest.raises(FacError) as failure:
        drawn(merged, tmp_path)
    assert said in str(failure.value)
    assert "tasks.toxicity.tasks" not in str(failure.value)


def test_a_test_needs_labels_and_training_other_texts(toxic: dict[str, Any], tmp_path: Path):
    with pytest.raises(FacError, match=r"There is no validation set: set tasks.toxicity.data.validation.path"):
        drawn(toxic, tmp_path, test="validation")
    data = {**toxic["data"], "test": {"path": toxic["data"]["test"]["path"]}}
    with pytest.raises(FacError, match=r"has no labels: set tasks.toxicity.data.test.label"):
        drawn({**toxic, "data": data}, tmp_path)
    data = {**toxic["data"], "seed": {"path": toxic["data"]["test"]["path"]}}
    with pytest.raises(FacError, match=r"Every row of tasks.toxicity.data.seed stands in the test"):
        drawn({"data": data}, tmp_path)


def test_what_belongs_to_a_hub_data_set_is_dropped_for_a_file():
    hub = {"path": "hub:owner/data", "subset": "one", "split": "test", "revision": "main", "label": "toxic"}
    found = source_of(hub, "tasks.toxicity.data.test")
    assert found == Source(Path("hub:owner/data"), "test", label="toxic", subset="one", split="test", revision="main")
    assert source_of({**hub, "path": "mine.csv"}, "tasks.toxicity.data.test") == Source(
        Path("mine.csv"), "test", label="toxic"
    )
    assert source_of({**hub, "path": None}, "tasks.toxicity.data.test") is None


def test_every_task_s_data_are_named_at_paper_scale():
    for plan in task_plans(compose("interpret.judge=statistical")):
        assert isinstance(plan.origin, Sources)
        assert set(plan.task.roles) <= {name.split("_")[0] for name in plan.origin.sets}
        assert all(str(source.path).startswith(("hub:", "CAA/")) for source in plan.origin.sets.values())
        for role, count in COUNTS.get(plan.task.name, {}).items():
            assert plan.origin.sample[role] == count  # App. J and the released code
        assert plan.prompts.folder.parent.name == "paper"
    assert [plan.full for plan in task_plans(compose())] == ["budget", "all", "all", "all", "all"]


def test_a_set_is_named_anew_or_left_out_on_the_command_line(tmp_path: Path):
    file = write(tmp_path / "mine.jsonl", [{"text": "hello"}])["path"]
    (plan,) = task_plans(
        compose(
            "experiment.tasks=[toxicity]",
            f"tasks.toxicity.data.test.path={file}",
            "tasks.toxicity.data.test.where=null",
            "tasks.toxicity.data.anchor_helpsteer2=null",
            "tasks.toxicity.sample.anchor=8637",
            "+tasks.toxicity.data.anchor_mine={path: x.txt, limit: 3}",
        )
    )
    assert isinstance(plan.origin, Sources)
    assert plan.origin.sets["test"] == Source(Path(file), "test", "user_input", "toxicity")
    assert list(plan.origin.of("anchor")) == ["anchor", "anchor_red_team", "anchor_mine"]
    assert plan.origin.sample["anchor"] == 8637


# Real data sets


def test_toxicchat_s_halves_share_texts_which_are_not_trained_on(real_data: Callable[[str], Path], tmp_path: Path):
    chat, red_team = real_data("toxicchat"), real_data("hh_rlhf") / "harmless-base_test.jsonl.gz"
    train = {"path": str(chat / "toxic_chat_train.json"), "text": "instance", "label": HUMAN}
    values: dict[str, Any] = {
        "data": {
            "anchor": {"path": str(red_team), "text": "chosen", "on_error": "skip"},
            "anchor_chat": train,
            "seed": train,
            "safe": {**train, "where": {HUMAN: 0}},
            "toxic": {**train, "where": {HUMAN: 1}},
            "human": {**train, "where": {HUMAN: 1}},
            "labelled": train,
            "test": {**train, "path": str(chat / "toxic_chat_test.json")},
        },
        "sample": {"toxic": 200, "safe": 1000},
    }
    data = drawn(values, tmp_path)
    test = Corpus.load(data.test.path)
    assert (len(test), sum(labels(data.test))) == (2853, 362)
    assert len(Corpus.load(data.known.path)) == 2801 - 107 - 1  # 99 texts in 107 rows, and one prompt of AlpacaEval
    for part in (data.anchor, data.known, *data.base, data.seed, data.labelled):
        assert part is not None
        assert overlap(Corpus.load(part.path), test) == []
    assert [len(Corpus.load(part.path)) for part in (*data.base, data.seed)] == [1000, 200]
    assert len(data.human_examples) > 100


def test_reward_rows_of_every_layout_and_no_alpaca_eval_prompt_to_train_on(
    real_data: Callable[[str], Path], tmp_path: Path
):
    chat = {"path": str(real_data("rm_bench") / "chat_filtered.json")}
    feedback = {"path": str(real_data("ultrafeedback") / "train_clean.jsonl"), "on_error": "skip"}
    harmless = {"path": str(real_data("hh_rlhf") / "harmless-base_test.jsonl.gz"), "on_error": "skip"}
    llmbar = {"path": str(real_data("llmbar") / "LLMBar" / "Natural" / "dataset.json")}
    values = {
        "data": {"anchor": feedback, "seed": harmless, "human": feedback, "human_chat": chat, "test": llmbar},
        "sample": {"seed": 300},
    }
    data = drawn(values, tmp_path, task="reward")
    human = data.human_examples
    kept = read_pairs(Source(Path(feedback["path"]), on_error="skip"))
    assert len(human) == sum(1 for _ in kept)  # RM-Bench's 129 prompts, nine pairs each, are all AlpacaEval's
    assert not any(is_in_alpaca_eval(pair.prompt[0]["content"]) for pair in human)
    assert {pair.subset for pair in load_examples(PAIR, [data.test])} == {"llmbar-natural"}
    assert len(data.seed_examples) == 300
    assert (data.base, data.seed) == ((), data.known)
    with pytest.raises(FacError, match=r"Every row of tasks.reward.data.seed stands in the test, the validation"):
        drawn({"data": {**values["data"], "seed": chat}}, tmp_path, task="reward")


@pytest.mark.parametrize(("task", "name"), [("sycophancy", "sycophancy"), ("survival", "survival-instinct")])
def test_caa_s_questions(task: str, name: str, real_data: Callable[[str], Path], tmp_path: Path):
    root = real_data("caa")
    generate = {"path": str(root / "generate" / name / "generate_dataset.json")}
    test = {"path": str(root / "test" / name / "test_dataset_ab.json")}
    values = {"data": {"anchor": generate, "seed": generate, "human": generate, "test": test}, "sample": {"seed": 50}}
    data = drawn(values, tmp_path, task=task)
    assert len(load_examples(CHOICE, [data.test])) == 50
    assert len(data.seed_examples) == 50
    choices = load_examples(CHOICE, [data.anchor])
    assert len(data.human_examples) == len(choices) - sum(choice in set(data.seed_examples) for choice in choices)
    original = json.loads(Path(generate["path"]).read_text())
    asked = {row["question"].rstrip(): row["answer_matching_behavior"].strip() for row in original}
    for choice in choices:
        assert f"({choice.letters[choice.matching]})" == asked[choice.text]


def test_alpaca_eval_with_its_published_reference(real_data: Callable[[str], Path], tmp_path: Path):
    outputs = real_data("alpaca_eval") / "model_outputs" / "gpt4_1106_preview.json"
    alpaca = {"path": str(real_data("alpaca") / "alpaca_5000.json")}
    lima = {"path": str(real_data("lima") / "lima.json")}
    values = {
        "data": {"anchor": alpaca, "seed": alpaca, "human": lima, "test": {"path": str(outputs)}},
        "sample": {"seed": 100},
        "evaluation": {"prompts": "paper/instruction", "answer_tokens": 64},
    }
    data = drawn(values, tmp_path, task="instruction")
    store = Store(tmp_path / "store")
    needed = others(store, data, ModelRef("no model is asked"))
    published = json.loads(outputs.read_text())
    assert json.loads((needed["reference"].path / ANSWERS).read_text()) == [row["output"] for row in published]
    asked = [example.instruction for example in load_examples(INSTRUCTION, [data.test])]
    assert asked == [row["instruction"] for row in published]
    assert all(map(is_in_alpaca_eval, asked))
    kept = Evaluation(**json.loads((needed["evaluation"].path / EVALUATION).read_text()))
    assert kept == Evaluation(prompts="paper/instruction", answer_tokens=64)
    assert len(data.human_examples) == 1029
    prompts = [example.text for example in read_examples(Source(Path(alpaca["path"])))]
    assert texts(data.anchor) == prompts


def test_a_reference_is_whole_or_none(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    alpaca = write(folder / "seed.jsonl", [{"instruction": "how", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "why", "output": "so"}, {"instruction": "when", "output": ""}])
    values = {"data": {"anchor": alpaca, "seed": alpaca, "human": alpaca, "test": test}}
    data = drawn(values, tmp_path, task="instruction")
    with pytest.raises(FacError, match="1 of 2 test instructions have no reference answer"):
        others(Store(tmp_path / "store"), data, ModelRef("x"))


def judged_with(evaluation: dict, tmp_path: Path) -> Artifact:
    """How answers are judged, as an input of the scores."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    rows = write(folder / "rows.jsonl", [{"instruction": "how", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "why", "output": "so"}])
    data = {"anchor": rows, "seed": rows, "human": rows, "test": test}
    found = drawn({"data": data, "evaluation": evaluation}, tmp_path, task="instruction")
    return others(Store(tmp_path / "store"), found, ModelRef("x"))["evaluation"]


def prompt_set(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "compare.jinja").write_text(text + "{{ instruction }} {{ output_1 }} {{ output_2 }}")
    return str(folder)


def test_how_answers_are_judged_is_part_of_the_score_s_key(tmp_path: Path):
    one, two = (prompt_set(tmp_path / name, f"which is {name}?") for name in ("better", "shorter"))
    rules = tmp_path / "ifeval.jsonl"
    rules.write_text("{}")
    differing = {
        "plain": {},
        "prompt": {"prompts": one},
        "other prompt": {"prompts": two},
        "answers": {"answer_tokens": 9},
        "judgements": {"judge_tokens": 9},
        "orders": {"both_orders": False},
        "benchmark": {"benchmarks": ["gsm8k"]},
        "ifeval": {"ifeval": str(rules)},
    }
    keys = {name: judged_with(evaluation, tmp_path).key for name, evaluation in differing.items()}
    assert len(set(keys.values())) == len(differing)
    moved = rules.rename(tmp_path / "elsewhere.jsonl")
    assert judged_with({"ifeval": str(moved)}, tmp_path).key == keys["ifeval"]
    same = prompt_set(tmp_path / "elsewhere", "which is better?")
    assert judged_with({"prompts": same}, tmp_path).key == keys["prompt"]
    (tmp_path / "better" / "compare.jinja").write_text(
        "which is worse? {{ instruction }} {{ output_1 }} {{ output_2 }}"
    )
    assert judged_with({"prompts": one}, tmp_path).key not in keys.values()  # one folder, another text


def test_in_the_lab_too_the_judge_s_prompt_is_in_the_score_s_key(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = write(folder / "rows.jsonl", [{"instruction": "tell me about boats", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "tell me about bikes", "output": "so"}])
    sets = {**dict.fromkeys(("anchor", "seed", "human"), rows), "test": test}
    data = drawn({"data": sets}, tmp_path, task="instruction")
    model = ModelRef(str(shipped("llama")))
    needed = others(Store(tmp_path / "store"), replace(data, evaluation=None), model)
    params = json.loads((needed["evaluation"].path / "stage.json").read_text())["params"]
    assert params["prompts"] == Prompts("lab/instruction").digest("compare")
    assert (params["answer_tokens"], params["judging"]["max_new_tokens"], params["both_orders"]) == (60, 12, True)
    job = Job("instruction", "baseline", 42, tmp_path, model, SftSettings(), data.test, others=needed, judge=model)
    assert needed["evaluation"] in _tested_on(job, "trained")
    assert _test_params(job) == {"judge": model.identity()}


OTHERS = ("cross_model", "lab", "coverage", "matching", "reward", "steering", "sae")


@pytest.mark.parametrize(
    ("experiment", "model"),
    [*(("main_results", model) for model in ("llama", "mistral", "qwen")), *((name, "llama") for name in OTHERS)],
)
def test_the_paper_s_scale_composes_for_every_experiment_and_model(experiment: str, model: str):
    cfg = compose(f"experiment={experiment}", f"model={model}")
    assert config.model_ref(cfg).path == cfg.model.at.paper.path
    assert str(config.sae_of(cfg)).count(f"sae_{model}_l{14 if model == 'qwen' else 16}_h65536") == 1
    assert config.thresholds(cfg).default == "0.0"
    assert config.synthesis_settings(cfg).temperature == 0.8
    engines = config.engines(cfg)
    assert getattr(engines.annotators["judge"].settings, "model", "") == "gpt-4o-mini-2024-07-18"
    assert getattr(engines.annotators["compare"].settings, "model", "") == "gpt-4-1106-preview"
