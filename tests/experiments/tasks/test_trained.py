"""The tasks' training and testing: every row of a cell is trained on, with its seed and model, and the test is scored.

Against the library, given by hand what the cell should be given. Steering is in test_steering.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
from support.example_sets import examples_folder
from support.models import tiny_model
from support.openai_server import FaultyServer, logprobs

from eval import classification
from eval import reward as reward_eval
from eval.judging import Answers
from experiments.tasks import TASKS, base
from experiments.tasks.base import REPLICATES
from experiments.tasks.instruction import (
    Evaluation,
    _given,
    _kept,
    _model,
    _shares,
    complete,
    is_followed,
    references,
)
from fac.backbone import load_tokenizer
from fac.chat import as_chat, encode, encode_lesson, exchange
from fac.data.example_set import load_examples
from fac.data.instructions import Instruction, Rule
from fac.data.pairs import Pair
from fac.data.schemas import INSTRUCTION, PAIR, QUERY, Query
from fac.llm.base import Completion, Request, Sampling, request_seed
from fac.llm.engines import ROLES, Engine, Judge, LLMConfig
from fac.llm.openai import OpenAISettings
from fac.model_ref import ModelRef
from fac.prompts import Prompts
from fac.store import Step, Store
from fac.synthesis.generate import Generated, save_outcome
from fac.synthesis.method import Outcome
from fac.synthesis.samples import Sample
from fac.synthesis.settings import Settings
from fac.train.classifier import fit_classifier, load_classifier
from fac.train.reward import fit_reward, load_reward
from fac.train.settings import ClassifierSettings, RewardSettings, SftSettings
from fac.train.sft import as_trained, train_sft

CLASSIFIER = ClassifierSettings(rank=2, epochs=2, learning_rate=1e-2, batch_size=4, gradient_accumulation=1)
REWARD = RewardSettings(rank=2, epochs=2, learning_rate=1e-2, gradient_accumulation=1)
SFT = SftSettings(rank=2, epochs=2, learning_rate=1e-2, gradient_accumulation=1, chat_template="alpaca")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(tiny_model(tmp_path_factory.mktemp("model"))))


@dataclass(frozen=True)
class Cell:
    """What is trained and what is tested."""

    training: base.Training
    test: Path

    @property
    def model(self) -> ModelRef:
        return self.training.model

    def testing(self, trained: Path | None, **more: Any) -> base.Testing:
        return base.Testing(self.model, self.training.settings, trained, self.test, **more)


def queries(about: str, count: int = 4) -> list[str]:
    return [f"how do I {about} the dog number {n}" for n in range(count)]


def pairs(about: str, count: int = 3, subset: str = "") -> list[Pair]:
    return [Pair(as_chat(f"how do I {about} {n}"), f"take {n} and {about}", "no", subset) for n in range(count)]


def lessons(about: str, count: int = 3) -> list[Instruction]:
    return [Instruction(f"tell me how to {about} {n}", f"{about} it {n}") for n in range(count)]


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "losses.json").read_text())


# Toxicity


@pytest.fixture
def toxic(model: ModelRef, tmp_path: Path) -> tuple[Cell, list[tuple[list, int]]]:
    """A cell with examples of all three kinds, and those that it has to train on."""
    texts = {about: queries(about) for about in ("walk", "steal", "poison")}
    safe, seed, added = (
        examples_folder(tmp_path / about, QUERY, list(map(Query, found)), [int(about != "walk")] * 4)
        for about, found in texts.items()
    )
    test = examples_folder(tmp_path / "test", QUERY, list(map(Query, queries("see", 6))), [1, 0, 0, 1, 0, 1])
    told = [(as_chat(text), int(about != "walk")) for about, found in texts.items() for text in found]
    return Cell(base.Training(model, CLASSIFIER, 43, (safe,), seed, added), test), told


def test_a_classifier_is_trained_on_all_rows_with_the_cell_s_seed(toxic: tuple[Cell, list], tmp_path: Path):
    cell, told = toxic
    TASKS["toxicity"].train(cell.training, tmp_path / "made")
    assert losses(tmp_path / "made") == fit_classifier(cell.model, told, CLASSIFIER, 43)[1].losses


def test_a_classifier_is_scored_on_the_test(toxic: tuple[Cell, list], tmp_path: Path):
    cell, told = toxic
    (tmp_path / "made").mkdir()
    fit_classifier(cell.model, told, CLASSIFIER, 43)[0].save(tmp_path / "made")
    texts, labels = queries("see", 6), [1, 0, 0, 1, 0, 1]
    expected, replicates = classification.evaluate(
        load_classifier(tmp_path / "made", cell.model),
        [(as_chat(t), label) for t, label in zip(texts, labels, strict=True)],
    )
    assert TASKS["toxicity"].test(cell.testing(tmp_path / "made"), tmp_path) == expected
    assert expected["auprc"] != expected["prevalence"]
    with np.load(tmp_path / REPLICATES) as kept:
        np.testing.assert_array_equal(kept["auprc"], replicates["auprc"])


# Reward


@pytest.fixture
def preferences(model: ModelRef, tmp_path: Path) -> tuple[Cell, list[Pair]]:
    test = examples_folder(tmp_path / "test", PAIR, [*pairs("see", 3, "chat"), *pairs("hear", 3, "safety")])
    told = {name: pairs(name) for name in ("bake", "fix")}
    seed, added = (examples_folder(tmp_path / name, PAIR, found) for name, found in told.items())
    training = base.Training(model, REWARD, 43, seed_examples=seed, added=added)
    return Cell(training, test), [*told["bake"], *told["fix"]]


def test_a_reward_model_is_trained_on_all_pairs_with_the_cell_s_seed(
    preferences: tuple[Cell, list[Pair]], tmp_path: Path
):
    cell, told = preferences
    TASKS["reward"].train(cell.training, tmp_path / "made")
    assert losses(tmp_path / "made") == fit_reward(cell.model, told, REWARD, 43)[1].losses


def test_a_reward_model_is_scored_on_the_test(preferences: tuple[Cell, list[Pair]], tmp_path: Path):
    cell, told = preferences
    fit_reward(cell.model, told, REWARD, 43)[0].save(tmp_path / "made")
    test = load_examples(PAIR, [cell.test])
    expected, replicates = reward_eval.evaluate(load_reward(tmp_path / "made", cell.model), test)
    assert TASKS["reward"].test(cell.testing(tmp_path / "made"), tmp_path) == expected
    with np.load(tmp_path / REPLICATES) as kept:
        np.testing.assert_array_equal(kept["average"], replicates["average"])


# Instruction following


@pytest.fixture
def told(model: ModelRef, tmp_path: Path) -> tuple[Cell, list[Instruction]]:
    rows, unanswered = {name: lessons(name) for name in ("bake", "fix")}, Instruction("tell me about nothing", " ")
    seed = examples_folder(tmp_path / "seed", INSTRUCTION, [*rows["bake"], unanswered])
    added = examples_folder(tmp_path / "added", INSTRUCTION, rows["fix"])
    test = examples_folder(tmp_path / "test", INSTRUCTION, lessons("see", 4))
    training = base.Training(model, SFT, 43, seed_examples=seed, added=added)
    return Cell(training, test), [*rows["bake"], *rows["fix"]]


def test_a_model_is_tuned_on_all_answered_rows_with_the_cell_s_seed(
    told: tuple[Cell, list[Instruction]], tmp_path: Path
):
    cell, rows = told
    (tmp_path / "made").mkdir()
    TASKS["instruction"].train(cell.training, tmp_path / "made")
    chats = [exchange(example.instruction, example.output) for example in rows]
    (tmp_path / "expected").mkdir()
    assert losses(tmp_path / "made") == train_sft(cell.model, chats, SFT, 43, tmp_path / "expected").losses
    assert json.loads((tmp_path / "made" / "left_out.json").read_text()) == 1


def test_the_tuned_model_is_tested_or_the_base_model_in_the_same_template(
    told: tuple[Cell, list[Instruction]], tmp_path: Path
):
    cell, _ = told
    (tmp_path / "made").mkdir()
    TASKS["instruction"].train(cell.training, tmp_path / "made")
    tuned, untuned = _model(cell.testing(tmp_path / "made")), _model(cell.testing(None))
    assert tuned.adapter == str((tmp_path / "made").resolve())
    assert untuned.adapter is None
    assert tuned.chat_template == untuned.chat_template == "alpaca"
    assert Path(tuned.path) == Path(untuned.path) == Path(cell.model.path)


def test_what_is_left_out_is_what_the_template_of_training_leaves_no_room_for(model: ModelRef, tmp_path: Path):
    """Alpaca's is longer than the model's own, and `max_tokens` the paper's 2048 only by default."""
    short, long = lessons("see", 2), lessons("see the sea " * 9, 1)
    own, alpaca = (load_tokenizer(as_trained(model, template)) for template in (None, "alpaca"))
    chat = exchange(long[0].instruction, long[0].output)
    room = len(encode(alpaca, chat[:1], add_generation_prompt=True).ids)
    assert any(encode_lesson(own, chat, max_tokens=room).trained)
    settings = replace(SFT, epochs=1, max_tokens=room)
    rows = examples_folder(tmp_path / "rows", INSTRUCTION, [*short, *long])
    TASKS["instruction"].train(base.Training(model, settings, 43, seed_examples=rows), tmp_path)
    assert json.loads((tmp_path / "left_out.json").read_text()) == 1


def judged(
    cell: Cell,
    folder: Path,
    prefers: Callable[[str], bool],
    asked: list[dict] | None = None,
    both_orders: bool = False,
    likely: Callable[[dict], dict] | None = None,
) -> dict[str, float]:
    """Test the untrained model against reference answers that say REFERENCE, before a judge with a rule.

    `prefers(prompt)`: whether the judge prefers the reference; `likely(body)`: what AlpacaEval's own annotator is told
    in its place. What it is asked goes to `asked`.
    """

    def verdict(body: dict) -> str:
        if asked is not None:
            asked.append(body)
        prompt = body["messages"][0]["content"]
        if "no verdict" in prompt:
            return "I cannot say."
        first = prompt.partition("First answer:")[2].partition("Second answer:")[0]
        return "[[first]]" if ("REFERENCE" in first) == prefers(prompt) else "[[second]]"

    tested = load_examples(INSTRUCTION, [cell.test])
    reference, evaluation = (
        folder.with_name("reference"),
        Evaluation(
            "weighted" if likely else "compare",
            "paper/instruction",
            answer_tokens=8,
            judge_tokens=16,
            both_orders=both_orders,
        ),
    )
    given = examples_folder(folder.with_name("given"), INSTRUCTION, [replace(e, output="REFERENCE") for e in tested])
    reference.mkdir()
    _given(reference, given)
    held = {"reference": reference, "evaluation": Store(folder.with_name("store")).get(_kept(evaluation))}
    with FaultyServer(likely or verdict) as server:
        engine = Engine(OpenAISettings("m", server.url, key_env=None, budget_usd=None))
        llms = LLMConfig(engine, dict.fromkeys(("compare", *ROLES), engine), folder / "r")
        folder.mkdir()
        testing = cell.testing(None, references=held, judge=Judge(llms, cell.model))
        return TASKS["instruction"].test(testing, folder)


@pytest.mark.parametrize(("preferred", "rate"), [((), 1.0), (("see 0",), 0.75), (("see",), 0.0)])
def test_the_win_rate_is_that_of_the_model_that_is_tested(
    told: tuple[Cell, list[Instruction]], tmp_path: Path, preferred: tuple[str, ...], rate: float
):
    found = judged(told[0], tmp_path / "scores", lambda prompt: any(text in prompt for text in preferred))
    assert found["win_rate"] == rate
    assert found["unreadable"] == 0
    with np.load(tmp_path / "scores" / REPLICATES) as kept:
        assert kept["win_rate"].mean() == pytest.approx(rate, abs=0.05)


@pytest.mark.parametrize("both_orders", [False, True])
def test_the_judge_is_asked_as_the_evaluation_says(
    told: tuple[Cell, list[Instruction]], tmp_path: Path, both_orders: bool
):
    """In one order or both, within the judge's tokens, about answers within the answers' tokens."""
    asked: list[dict] = []
    judged(told[0], tmp_path / "scores", lambda prompt: False, asked, both_orders)
    assert len(asked) == 4 * (1 + both_orders)
    assert {(body["max_tokens"], body["temperature"]) for body in asked} == {(16, 0.0)}
    replies = [json.loads(line) for line in (tmp_path / "scores" / "replies.jsonl").read_text().splitlines()]
    assert {reply["reply"]["completion_tokens"] for reply in replies} == {8}


def test_what_stands_beside_the_win_rate(told: tuple[Cell, list[Instruction]], tmp_path: Path):
    """Of wins 1, 1, 1, 0: the standard error of their mean, in the win rate's unit; and answers without a verdict."""
    found = judged(told[0], tmp_path / "scores", lambda prompt: "see 0" in prompt)
    assert found["standard_error"] == pytest.approx(np.std([1, 1, 1, 0], ddof=1) / 2)
    rows = [Instruction(text, "so") for text in ("no verdict", "see 1", "see 2", "see 3")]
    cell = replace(told[0], test=examples_folder(tmp_path / "draws" / "test", INSTRUCTION, rows))
    found = judged(cell, tmp_path / "draws" / "scores", lambda prompt: False)
    assert (found["win_rate"], found["unreadable"]) == (0.875, 0.25)
    assert (found["judgements_cut"], found["judgements_refused"]) == (0.0, 0.0)


def test_alpaca_eval_s_own_annotator_weighs_every_answer_it_gives(told: tuple[Cell, list[Instruction]], tmp_path: Path):
    """The answer of the model is named with .9 of what both names have, but for one pair of which neither is named."""

    def likely(body: dict) -> dict:
        prompt = body["messages"][-1]["content"]
        first, _ = prompt.split('"model_identifier": "M"')
        names = {"m": 0.09, "M": 0.81} if "REFERENCE" in first else {"m": 0.81, "M": 0.09}
        return logprobs(body, {"Both": 1.0} if "see 3" in prompt else {**names, "The": 0.1})

    found = judged(told[0], tmp_path / "scores", lambda prompt: False, likely=likely)
    assert found["win_rate"] == pytest.approx(0.9)
    assert found["unreadable"] == 0.25
    assert "lc" not in found  # of another judge, and other instructions
    with np.load(tmp_path / "scores" / REPLICATES) as kept:
        assert kept["win_rate"] == pytest.approx(0.9)


def test_the_minimal_length_control_is_a_fraction_too(told: tuple[Cell, list[Instruction]], tmp_path: Path):
    rows = [Instruction(f"see {n} " * (1 + n % 3), "so") for n in range(20)]
    cell = replace(told[0], test=examples_folder(tmp_path / "rows", INSTRUCTION, rows))
    found = judged(cell, tmp_path / "scores", lambda prompt: any(f"see {n} " in prompt for n in range(0, 20, 4)))
    assert found["win_rate"] == 0.75
    assert found["minimal_length_control"] == pytest.approx(0.75, abs=0.2)


def test_judgements_that_were_cut_are_counted_as_that():
    assert _shares(Answers(total=8, unreadable=4, cut=2, refused=1)) == {
        "unreadable": 0.5, "judgements_cut": 0.25, "judgements_refused": 0.125,
    }  # fmt: skip


def test_in_the_lab_nobody_judges_and_code_checks_the_rules(told: tuple[Cell, list[Instruction]], tmp_path: Path):
    """Three of four instructions ask for nothing, which the model does; the last for a beginning that it does not."""
    cell, _ = told
    rows = [replace(e, rules=(Rule("REFERENCE" if n == 3 else ""),)) for n, e in enumerate(lessons("see", 4))]
    cell = replace(cell, test=examples_folder(tmp_path / "rows", INSTRUCTION, rows))
    needed = references(cast(Any, None), None)
    held = {name: Store(tmp_path / "store").get(step) for name, step in needed.items()}
    (tmp_path / "scores").mkdir()
    found = TASKS["instruction"].test(cell.testing(None, references=held, judge=None), tmp_path / "scores")
    assert found == {"followed": 0.75}
    with np.load(tmp_path / "scores" / REPLICATES) as kept:
        assert kept["followed"].mean() == pytest.approx(0.75, abs=0.05)


def test_all_rules_and_all_subjects_count():
    first, last = Rule("first"), Rule(end="done")
    example = Instruction("say", rules=(first, last))
    assert is_followed(example, "first this done")
    assert not is_followed(example, "first this")
    assert not is_followed(example, "this done")
    from fac.lab.world.grammar import concepts

    name, other = concepts()[0].name, concepts()[1].name
    example = Instruction("say", subjects=(name, other), rules=(first,))
    assert is_followed(example, f"first {name} then {other}")
    assert not is_followed(example, f"first {name}")


def completed(folder: Path, examples: list[Instruction], writer: Any, prompts: Prompts, settings: Settings) -> Any:
    """The examples as `complete` leaves them, and what it counts."""
    samples = [Sample(1, 2, n, example, "", "", "", 0) for n, example in enumerate(examples)]
    written = Step("synthesis", partial(save_outcome, INSTRUCTION, Outcome(examples, samples, samples)))
    made = Store(folder).get(complete(written, writer, prompts, settings))
    generated = Generated.load(INSTRUCTION, made)
    found = load_examples(INSTRUCTION, [made])
    assert [sample.attempt for sample in generated.chosen] == [
        n for n, example in enumerate(examples) if example.instruction in {one.instruction for one in found}
    ]
    return found, generated.counts


class Writer:
    """Answers with the prompt, in capitals."""

    identity, batch = "capitals", 8

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.sampling, self.seeds = sampling, [request.seed for request in requests]
        return [Completion(request.messages[0]["content"].upper(), 1, 1, True) for request in requests]


@pytest.mark.parametrize(("answers", "temperature"), [("drawn", 0.8), ("greedy", 0.0)])
def test_examples_without_an_answer_are_answered_and_others_left_alone(
    tmp_path: Path, answers: Literal["drawn", "greedy"], temperature: float
):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "answer.jinja").write_text("{{ instruction }}!")
    writer, settings = Writer(), Settings(answers=answers, temperature=0.8, seed=43)
    examples = [Instruction("a"), Instruction("b", "given"), Instruction("c")]
    found, counts = completed(tmp_path / "store", examples, writer, Prompts(tmp_path / "prompts"), settings)
    answered = [Instruction("a", "A!"), Instruction("b", "given"), Instruction("c", "C!")]
    assert found == answered
    assert counts.added == 3
    assert (writer.sampling.temperature, writer.sampling.max_new_tokens) == (temperature, settings.max_new_tokens)
    assert writer.seeds == [request_seed(43, i) for i in range(2)]


class Moody(Writer):
    """Answers in the ways in which writers fail to; the prompt says in which."""

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        ways = {
            "refuses": Completion("I'm sorry, but I can't help with that.\nAnything else?", 1, 1, True),
            "refuses in German": Completion("Ich kann dir dabei leider nicht helfen.", 1, 1, True),
            "is filtered": Completion("The first step", 1, 1, True, refused=True),
            "is cut": Completion("The first step is", 1, 1, False),
            "thinks": Completion("<think>so</think>", 1, 1, True),
            "thinks on": Completion("<think>so", 1, 1, False),
            "answers": Completion("<think>I can't</think>Fine.\nI can't help with that, she said.", 1, 1, True),
        }
        return [ways[request.messages[0]["content"].partition("\n")[0]] for request in requests]


def test_an_instruction_whose_answer_is_refused_cut_or_empty_is_none(tmp_path: Path):
    reasons = {
        "refuses": "refusal",
        "refuses in German": "refusal",
        "is filtered": "refusal",
        "is cut": "cut off",
        "thinks": "unreadable",
        "thinks on": "cut off",
        "answers": "",
    }
    examples = [Instruction(way) for way in reasons]
    found, counts = completed(tmp_path / "store", examples, Moody(), Prompts("paper/instruction"), Settings())
    assert found == [Instruction("answers", "Fine.\nI can't help with that, she said.")]
    assert (counts.added, counts.answers_refused, counts.answers_cut_off, counts.answers_empty) == (
        1, *(list(reasons.values()).count(reason) for reason in ("refusal", "cut off", "unreadable")),
    )  # fmt: skip
