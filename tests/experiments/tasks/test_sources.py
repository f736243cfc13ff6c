"""experiments.tasks.sources from data sets: which examples a task is given, what is left out, what wrong settings are
told."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eval.alpaca import is_in_alpaca_eval
from experiments.harness.sections import TaskConfig, source_of, tasks_of
from experiments.tasks import TASKS
from experiments.tasks.base import TaskSteps, scores_step
from experiments.tasks.instruction import ANSWERS, EVALUATION, Evaluation, references
from experiments.tasks.sources import load_notes, task_steps
from fac.data.corpus import Corpus, overlap
from fac.data.example_set import load_examples
from fac.data.examples import read_examples
from fac.data.held_out import HeldOut
from fac.data.pairs import read_pairs
from fac.data.source import Source
from fac.errors import FacError
from fac.lab import shipped
from fac.model_ref import ModelRef
from fac.settings import Problems
from fac.store import Step, Store
from fac.train.settings import SftSettings

COMMON = ("anchor", "seed", "human", "test")
HUMAN = "annotations.toxicity.majority_human"


def write(file: Path, rows: list[dict]) -> dict[str, str]:
    """A data set's settings."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file)}


def queries(folder: Path, name: str, texts: list[str], label: int | None = None) -> dict[str, Any]:
    rows = [{"text": text} | ({} if label is None else {"toxic": i % 2}) for i, text in enumerate(texts)]
    return write(folder / f"{name}.jsonl", rows) | ({} if label is None else {"label": "toxic"})


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


@dataclass(frozen=True)
class Drawn:
    """The data of a task, read from the store when it is asked for."""

    task: str
    steps: TaskSteps
    store: Store

    def examples(self, step: Step) -> list[Any]:
        return load_examples(TASKS[self.task].schema, [self.store.get(step)])

    def corpus(self, step: Step) -> Corpus:
        return Corpus.load(self.store.get(step))

    def texts(self, step: Step) -> list[str]:
        return [example.text for example in self.corpus(step)]

    def labels(self, step: Step) -> list[int]:
        found = self.corpus(step).labels()
        assert found is not None
        return found.tolist()

    @property
    def notes(self) -> dict[str, bool]:
        return load_notes(self.store.get(self.steps.draw))

    @property
    def losses(self) -> list[str]:
        return [note for note, is_loss in self.notes.items() if is_loss]

    @property
    def held_out(self) -> HeldOut:
        return HeldOut.load(self.store.get(self.steps.draw))


def config_of(values: dict[str, Any], task: str = "toxicity") -> TaskConfig:
    """The settings of a task with these of its data. Raises FacError."""
    problems = Problems()
    common = {"prompts": f"paper/{task}", "max_new_tokens": 9, "budget": 9, "protocol": "added"}
    train = {"layer": 2} if task in ("sycophancy", "survival") else {}
    found = tasks_of({task: {**common, "train": train, **values}}, problems)
    problems.check()
    return found[task]


def drawn(values: dict[str, Any], folder: Path, seed: int = 0, task: str = "toxicity", test: str = "test") -> Drawn:
    store, steps = Store(folder / "store"), task_steps(TASKS[task], config_of(values, task), seed, test)
    store.get(steps.draw)
    return Drawn(task, steps, store)


def test_the_toxicity_task_s_roles(toxic: dict[str, Any], tmp_path: Path):
    data = drawn(toxic, tmp_path)
    steps = data.steps
    # Both sets of the anchor, without the test's text.
    assert data.texts(steps.anchor) == [*(f"anchor {i}" for i in range(9)), "more one"]
    known = data.texts(steps.seed)
    assert len(known) == 5
    assert set(known) <= {f"seed {i}" for i in range(8)}
    for part, label, name, count in ((steps.fixed[0], 0, "safe", 4), (steps.seed_examples, 1, "toxic", 3)):
        assert data.labels(part) == [label] * count
        assert {text.split()[0] for text in data.texts(part)} == {name}
    assert len(steps.fixed) == 1
    human = data.texts(steps.human)
    assert not set(human) & set(data.texts(steps.seed_examples))
    assert len(human) == 11 - 3
    assert data.labels(steps.test) == [0, 1, 0]
    for role in ("anchor", "safe"):
        assert f"toxicity, {role}: 1 rows of held-out sets or of AlpacaEval left out" in data.losses


def test_the_test_and_the_validation_set_are_left_out_whichever_is_scored(toxic: dict[str, Any], tmp_path: Path):
    """So choices on the validation set are made with the training set that the test sees."""
    folder = tmp_path / "data"
    toxic["data"]["validation"] = queries(folder, "validation", ["TOXIC  1", "safe 2", "test two", "other"], label=0)
    tested, chosen = (drawn(toxic, tmp_path, test=test) for test in ("test", "validation"))
    assert tested.texts(tested.steps.test) == ["test one", "test two", "test three"]
    assert chosen.texts(chosen.steps.test) == ["TOXIC  1", "safe 2", "other"]  # without what the test asks
    used = {}
    for data in (tested, chosen):
        steps = data.steps
        parts = (steps.anchor, steps.seed, *steps.fixed, steps.seed_examples, steps.human)
        used[data.steps.test.key] = [data.texts(part) for part in parts]
        assert not {"toxic 1", "safe 2"} & {text for part in parts for text in data.texts(part)}
        assert all(text in data.held_out for text in ("Test One", "toxic 1", "safe 2", "other"))
        assert "toxic 2" not in data.held_out
        assert any("toxicity, toxic: 1 rows of held-out sets" in loss for loss in data.losses)
    one, other = used.values()
    assert one == other


@pytest.mark.parametrize("test", ["test", "validation"])
def test_other_tasks_too_are_scored_on_the_set_that_is_named(tmp_path: Path, test: str):
    """And what people wrote is without the seed's rows."""
    held = {
        name: [{"instruction": f"{name} {n}", "output": "so"} for n in range(4)] for name in (*COMMON, "validation")
    }
    held["human"] += held["seed"]
    values = {"data": {name: write(tmp_path / f"{name}.jsonl", rows) for name, rows in held.items()}}
    data = drawn(values, tmp_path, task="instruction", test=test)
    steps = data.steps
    asked = {"test": steps.test, "seed": steps.seed, "known": steps.seed_examples, "human": steps.human}
    found = {
        role: {example.instruction.split()[0] for example in data.examples(step)}
        for role, step in {**asked, "anchor": steps.anchor}.items()
    }
    expected = {"test": {test}, "seed": {"seed"}, "known": {"seed"}, "human": {"human"}, "anchor": {"anchor"}}
    assert found == expected


def test_the_whole_test_is_left_out_though_a_part_of_it_is_scored(toxic: dict[str, Any], tmp_path: Path):
    """Else what a row trains on would depend on which texts of the test the seed draws."""
    folder = tmp_path / "data"
    asked = [f"toxic {i}" for i in range(4)]
    toxic["data"]["test"] = queries(folder, "test", asked, label=0)
    toxic["sample"] |= {"test": 2, "toxic": 2}
    data = drawn(toxic, tmp_path)
    assert set(data.texts(data.steps.test)) < set(asked)
    assert all(text in data.held_out for text in asked)
    assert set(data.texts(data.steps.seed_examples)) == {"toxic 4", "toxic 5"}
    assert not set(asked) & set(data.texts(data.steps.human))


def test_labelled_texts_may_be_the_validation_s_where_the_test_is_scored(toxic: dict[str, Any], tmp_path: Path):
    validation = queries(tmp_path / "data", "validation", ["one", "two", "test two"], label=0)
    toxic["data"] |= {"validation": validation, "labelled": validation}
    data = drawn(toxic, tmp_path)
    assert data.steps.labelled is not None
    assert data.texts(data.steps.labelled) == ["one", "two"]
    with pytest.raises(FacError, match=r"Every row of tasks.toxicity.data.labelled stands in the test, the validation"):
        drawn(toxic, tmp_path, test="validation")


def test_an_anchor_with_labels_is_the_labelled_sample_where_no_other_is_named(toxic: dict[str, Any], tmp_path: Path):
    """So it is measured once."""
    assert drawn(toxic, tmp_path).steps.labelled is None
    del toxic["data"]["anchor_more"]
    toxic["data"]["anchor"] = queries(tmp_path / "data", "anchor", ["one", "two"], label=1)
    steps = drawn(toxic, tmp_path).steps
    assert steps.labelled is steps.anchor
    toxic["data"]["labelled"] = queries(tmp_path / "data", "labelled", ["three"], label=0)
    assert drawn(toxic, tmp_path).steps.labelled is not steps.anchor


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


def test_the_seed_draws_the_examples(toxic: dict[str, Any], tmp_path: Path):
    first, again, other = (drawn(toxic, tmp_path / str(i), seed) for i, seed in enumerate((0, 0, 1)))
    known = [data.texts(data.steps.seed) for data in (first, again, other)]
    assert known[0] == known[1] != known[2]
    assert first.texts(first.steps.anchor) == other.texts(other.steps.anchor)  # of which nothing is drawn
    whole = [task_steps(TASKS["toxicity"], config_of({**toxic, "sample": {}}), seed) for seed in (0, 1)]
    assert whole[0].draw.key == whole[1].draw.key


def test_files_are_known_by_their_content(toxic: dict[str, Any], tmp_path: Path):
    before = drawn(toxic, tmp_path).steps.draw.key
    moved = Path(toxic["data"]["seed"]["path"]).rename(tmp_path / "moved.jsonl")
    toxic["data"]["seed"]["path"] = str(moved)
    assert drawn(toxic, tmp_path).steps.draw.key == before
    moved.write_text('{"text": "all new"}\n' * 5)
    after = drawn(toxic, tmp_path)
    assert after.texts(after.steps.seed) == ["all new"] * 5


def test_pairs_are_known_by_the_names_too_that_decide_their_subsets(tmp_path: Path):
    """LLMBar's and RM-Bench's files are called after their subsets, which the test's accuracies are of."""
    row = {"prompt": "how", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}
    rows = [{"prompt": "why", "chosen": "so", "rejected": "no"}]
    pairs = write(tmp_path / "pairs.jsonl", rows)
    keys, subsets = {}, {}
    for domain in ("chat", "code"):
        test = write(tmp_path / f"{domain}_filtered.jsonl", [row])
        data = drawn({"data": {"anchor": pairs, "seed": pairs, "human": pairs, "test": test}}, tmp_path, task="reward")
        keys[domain] = data.steps.draw.key
        subsets[domain] = {pair.subset.partition("/")[0] for pair in data.examples(data.steps.test)}
    assert subsets == {"chat": {"chat"}, "code": {"code"}}
    assert keys["chat"] != keys["code"]


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
    steps, test = data.steps, data.corpus(data.steps.test)
    assert (len(test), sum(data.labels(steps.test))) == (2853, 362)
    assert len(data.corpus(steps.seed)) == 2801 - 107 - 1  # 99 texts in 107 rows, and one prompt of AlpacaEval
    for part in (steps.anchor, steps.seed, *steps.fixed, steps.seed_examples, steps.labelled):
        assert part is not None
        assert overlap(data.corpus(part), test) == []
    assert [len(data.corpus(part)) for part in (*steps.fixed, steps.seed_examples)] == [1000, 200]
    assert len(data.corpus(steps.human)) > 100


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
    human = data.examples(data.steps.human)
    kept = read_pairs(Source(Path(feedback["path"]), on_error="skip"))
    assert len(human) == sum(1 for _ in kept)  # RM-Bench's 129 prompts, nine pairs each, are all AlpacaEval's
    assert not any(is_in_alpaca_eval(pair.prompt[0]["content"]) for pair in human)
    assert {pair.subset for pair in data.examples(data.steps.test)} == {"llmbar-natural"}
    assert len(data.examples(data.steps.seed_examples)) == 300
    assert (data.steps.fixed, data.steps.seed.key) == ((), data.steps.seed_examples.key)
    with pytest.raises(FacError, match=r"Every row of tasks.reward.data.seed stands in the test, the validation"):
        drawn({"data": {**values["data"], "seed": chat}}, tmp_path, task="reward")


@pytest.mark.parametrize(("task", "name"), [("sycophancy", "sycophancy"), ("survival", "survival-instinct")])
def test_caa_s_questions(task: str, name: str, real_data: Callable[[str], Path], tmp_path: Path):
    root = real_data("caa")
    generate = {"path": str(root / "generate" / name / "generate_dataset.json")}
    test = {"path": str(root / "test" / name / "test_dataset_ab.json")}
    values = {"data": {"anchor": generate, "seed": generate, "human": generate, "test": test}, "sample": {"seed": 50}}
    data = drawn(values, tmp_path, task=task)
    assert len(data.examples(data.steps.test)) == 50
    seed, choices = data.examples(data.steps.seed_examples), data.examples(data.steps.anchor)
    assert len(seed) == 50
    assert len(data.examples(data.steps.human)) == len(choices) - sum(choice in set(seed) for choice in choices)
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
    needed = referred(values, data)
    published = json.loads(outputs.read_text())
    assert json.loads((data.store.get(needed["reference"]) / ANSWERS).read_text()) == [
        row["output"] for row in published
    ]
    asked = [example.instruction for example in data.examples(data.steps.test)]
    assert asked == [row["instruction"] for row in published]
    assert all(map(is_in_alpaca_eval, asked))
    kept = Evaluation(**json.loads((data.store.get(needed["evaluation"]) / EVALUATION).read_text()))
    assert kept == Evaluation(prompts="paper/instruction", answer_tokens=64)
    assert len(data.examples(data.steps.human)) == 1029
    prompts = [example.text for example in read_examples(Source(Path(alpaca["path"])))]
    assert data.texts(data.steps.anchor) == prompts


def referred(values: dict[str, Any], data: Drawn) -> dict[str, Step]:
    """What a test on data sets needs beside its examples."""
    return references(data.steps, config_of(values, "instruction").evaluation)


def test_a_reference_is_whole_or_none(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    alpaca = write(folder / "seed.jsonl", [{"instruction": "how", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "why", "output": "so"}, {"instruction": "when", "output": ""}])
    values = {"data": {"anchor": alpaca, "seed": alpaca, "human": alpaca, "test": test}}
    data = drawn(values, tmp_path, task="instruction")
    with pytest.raises(FacError, match="1 of 2 test instructions have no reference answer"):
        data.store.get(referred(values, data)["reference"])


def judged_with(evaluation: dict, tmp_path: Path) -> Step:
    """How answers are judged, as an input of the scores."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    rows = write(folder / "rows.jsonl", [{"instruction": "how", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "why", "output": "so"}])
    data = {"anchor": rows, "seed": rows, "human": rows, "test": test}
    values = {"data": data, "evaluation": evaluation}
    return referred(values, drawn(values, tmp_path, task="instruction"))["evaluation"]


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
        "annotator": {"annotator": "weighted"},
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


def test_how_the_lab_s_answers_are_drawn_is_in_the_score_s_key(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = write(folder / "rows.jsonl", [{"instruction": "tell me about boats", "output": "so"}])
    test = write(folder / "test.jsonl", [{"instruction": "tell me about bikes", "output": "so"}])
    sets = {**dict.fromkeys(("anchor", "seed", "human"), rows), "test": test}
    data = drawn({"data": sets}, tmp_path, task="instruction")
    model = ModelRef(str(shipped("llama")))
    needed = references(data.steps, None)
    assert needed["evaluation"].params["answer_tokens"] == 60
    assert "annotator" not in needed["evaluation"].params  # as before there was a choice: what was stored is found
    tested = scores_step(TASKS["instruction"], model, SftSettings(), None, data.steps.test, needed, None)
    assert needed["evaluation"].key in [step.key for step in tested.inputs]
