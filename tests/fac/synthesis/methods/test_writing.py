"""The writing methods of other papers, for every task and both prompt sets, on a writer that does what it is asked."""

import random
import re
from dataclasses import fields, replace
from typing import Any, cast

import jinja2
import jinja2.meta
import pytest
from support.scripted import WORDS, Scripted, text
from support.writing import BreakdownError

from fac.chat import as_chat
from fac.data.choices import to_choice
from fac.data.held_out import HeldOut
from fac.data.instructions import Instruction
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR, QUERY, Query
from fac.errors import FacError
from fac.llm.base import Sampling
from fac.prompts import ROOT, Prompts
from fac.synthesis.expansion import CAP, differing
from fac.synthesis.method import SynthesisInput
from fac.synthesis.methods import METHODS
from fac.synthesis.novelty import Novelty
from fac.synthesis.samples import HELD_OUT, NO_GAIN, SCAFFOLD, UNFIT
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Writer

WRITING = ("alpaca", "evol_instruct", "magpie", "cot_self_instruct", "sao")
SCHEMAS = {"toxicity": QUERY, "reward": PAIR, "sycophancy": CHOICE, "survival": CHOICE, "instruction": INSTRUCTION}
SETTINGS = Settings(rows=3, votes=3, max_new_tokens=50)
BUDGET = 12


class Poison:
    """What no such method may look at, in any way."""

    def __getattribute__(self, name):
        raise AssertionError(f"a method looked at {name} of what it may not see")

    __len__ = __iter__ = __getitem__ = __bool__ = __call__ = lambda self, *_: self.looked


def seeds(task, count=8):
    rng = random.Random(task)
    made = {
        QUERY: lambda: Query(text(rng)),
        PAIR: lambda: Pair(as_chat(text(rng)), text(rng), text(rng)),
        CHOICE: lambda: to_choice({
            "question": f"{text(rng)}\n\nChoices:\n (A) {text(rng)}\n (B) {text(rng)}",
            "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)",
        }),
        INSTRUCTION: lambda: Instruction(text(rng), text(rng)),
    }  # fmt: skip
    return [made[SCHEMAS[task]]() for _ in range(count)]


def given_for(task, **changes):
    """What a method is given, all that it may not see being poison."""
    may_see: dict[str, Any] = {
        "seed_examples": seeds(task),
        "budget": BUDGET,
        "settings": SETTINGS,
        "held_out": HeldOut(),
    }
    poison: dict[str, Any] = {field.name: Poison() for field in fields(SynthesisInput)}
    return SynthesisInput(**poison | may_see | changes)


def writer_at(folder, task, model, prompts="paper", settings=SETTINGS):
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    return Writer(
        folder, model, Prompts(f"{prompts}/{task}"), SCHEMAS[task], cast(Any, Poison()), cast(Any, Poison()), sampling,
        settings.seed,
    )  # fmt: skip


def run(name, task, folder, model=None, prompts="paper", **changes):
    given = given_for(task, **changes)
    return METHODS[name].run(given, writer_at(folder, task, model or Scripted(), prompts, given.settings))


each = pytest.mark.parametrize("name", WRITING)
in_both_sets = pytest.mark.parametrize("prompts", ["paper", "lab"])
for_each_task = pytest.mark.parametrize("task", SCHEMAS)


@each
@for_each_task
@in_both_sets
def test_each_adds_its_budget_of_new_rows_for_every_task_and_sees_nothing_but_the_seed(name, task, prompts, tmp_path):
    outcome = run(name, task, tmp_path, prompts=prompts)
    schema = SCHEMAS[task]
    assert len(outcome.examples) == outcome.counts.added == outcome.counts.budget == BUDGET
    assert [s.example for s in outcome.chosen] == outcome.examples
    assert len({schema.plain(example) for example in outcome.examples}) == BUDGET
    assert not {schema.plain(e) for e in outcome.examples} & {schema.plain(e) for e in seeds(task)}
    assert len({(s.step, s.attempt) for s in outcome.samples}) == len(outcome.samples)
    for sample in outcome.samples:
        assert sample.kept == (not sample.rejected_because)
        assert not sample.kept or sample.text == " ".join(t["content"] for t in schema.chats(sample.example)[0])
    again = run(name, task, tmp_path / "again", prompts=prompts)
    assert again == outcome
    other = run(name, task, tmp_path / "other", prompts=prompts, settings=replace(SETTINGS, seed=43))
    assert other.examples != outcome.examples


@pytest.mark.parametrize(("name", "task"), zip(WRITING, ("toxicity", "instruction", *["reward"] * 3), strict=True))
def test_a_kill_in_a_middle_round_changes_nothing_and_nothing_is_asked_twice(name, task, tmp_path):
    batch = 2 if name == "alpaca" else 8
    whole = Scripted(batch=batch)
    expected = run(name, task, tmp_path / "whole", whole)
    assert whole.batches > 1
    for limit in {1, whole.batches // 2, whole.batches - 1}:
        folder = tmp_path / str(limit)
        broken, resumed = Scripted(limit, batch=batch), Scripted(batch=batch)
        with pytest.raises(BreakdownError):
            run(name, task, folder, broken)
        assert run(name, task, folder, resumed) == expected
        assert len(broken.asked) + len(resumed.asked) == len(whole.asked)


@each
def test_a_writer_that_cannot_do_it_is_found_out_by_its_cap_and_fewer_rows_are_said(name, tmp_path):
    """Nothing is topped up by another method's rows."""
    always = "how do i bake bread at home"
    model = Scripted(says=lambda prompt, rng: None if "Final Decision" in prompt else f"Query-1: {always}")
    outcome = run(name, "toxicity", tmp_path, model)
    assert outcome.counts.added == len(outcome.examples) <= 1
    assert outcome.counts.kept <= 1
    asked = {r.id.partition("-")[0] for r, _ in model.asked}
    for role in asked & {name, "cot", "evolve"}:
        assert sum(r.id.startswith(f"{role}-") for r, _ in model.asked) <= CAP * BUDGET + 3
    assert f"{outcome.counts.added} of {BUDGET} added" in str(outcome.counts)


@each
def test_what_asks_what_the_test_asks_is_not_kept(name, tmp_path):
    first = run(name, "toxicity", tmp_path / "first")
    tested = [example.text for example in first.examples[:4]]
    outcome = run(name, "toxicity", tmp_path / "second", held_out=HeldOut.of(tested))
    assert not {example.text for example in outcome.examples} & set(tested)
    assert outcome.counts.in_the_test >= 1
    held_out = [cast(Query, s.example) for s in outcome.samples if s.rejected_because == HELD_OUT]
    assert {example.text for example in held_out} <= set(tested)


@pytest.mark.parametrize("name", ["alpaca", "magpie", "cot_self_instruct", "sao"])
def test_rows_that_are_like_a_seed_or_an_earlier_row_are_left_out(name, tmp_path):
    known = seeds("instruction")

    def says(prompt, rng):
        near = f"{rng.choice(known).instruction} {rng.choice(WORDS)}"
        return f"<instruction>\n{near}\n</instruction>" if "THE INSTRUCTION" in prompt and rng.random() < 0.5 else None

    outcome = run(name, "instruction", tmp_path, Scripted(says=says), budget=40)
    assert name == "magpie" or outcome.counts.similar > 0  # whose turns are no replies to a prompt
    texts, held = [differing(INSTRUCTION, example) for example in outcome.examples], Novelty(0.7)
    for one in [*(differing(INSTRUCTION, example) for example in known), *texts]:
        assert one not in texts or held.is_new(one)
        held.add(one)


@pytest.mark.parametrize("name", ["alpaca", "evol_instruct", "cot_self_instruct"])
def test_without_seed_data_the_method_says_so(name, tmp_path):
    with pytest.raises(FacError, match=r"writes from seed examples, and there are none: give the task some"):
        run(name, "toxicity", tmp_path, seed_examples=[])


@each
def test_all_that_a_prompt_shows_is_named_so_that_it_is_in_the_keys(name):
    """Templates that others include are files of their own."""
    method = METHODS[name]
    for prompts in ("paper", "lab"):
        for task in SCHEMAS:
            held = Prompts(f"{prompts}/{task}")
            for role in method.prompts:
                held.digest(role)  # there is one
                source = next(f for at in (task, ".") if (f := ROOT / prompts / at / f"{role}.jinja").exists())
                included = jinja2.meta.find_referenced_templates(jinja2.Environment().parse(source.read_text()))
                assert {str(file).removesuffix(".jinja") for file in included} <= set(method.prompts)


@each
def test_a_method_states_what_it_asks_for(name, tmp_path):
    """Every role that is asked is named, and the doctor's number of requests is no higher than what is made."""
    method = METHODS[name]
    assert "arXiv" in method.note
    assert "(lab form)" in method.note
    model = Scripted(
        says=lambda prompt, rng: (
            f"Final Decision: [[{'No' if 'equal' in prompt else 'Yes'}]]" if "Decision" in prompt else None
        )
    )
    run(name, "toxicity", tmp_path, model)
    assert {re.sub(r"[^a-z_].*", "", r.id) for r, _ in model.asked} <= set(method.prompts)
    planned = method.requests(SETTINGS, 99, BUDGET)
    assert 0.5 * planned <= len(model.asked) <= 4 * planned


# What is each method's own


def asked_of(model, role):
    return [(r, s) for r, s in model.asked if r.id.startswith(f"{role}-")]


def test_alpaca_shows_three_seeds_and_reads_a_list(tmp_path):
    model = Scripted()
    outcome = run("alpaca", "toxicity", tmp_path, model)
    known = {seed.text for seed in seeds("toxicity")}
    for request, sampling in model.asked:
        assert sum(one in request.messages[0]["content"] for one in known) == 3
        assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (1.0, 1.0, 150)
    assert len(model.asked) < BUDGET
    assert outcome.counts.requested == 3 * len(model.asked)  # of five that were sent three were asked for


def test_alpaca_asks_for_no_pictures_and_no_short_instructions(tmp_path):
    def says(prompt, rng):
        rows = ["draw me a map of the whole town", f"bake {rng.choice(WORDS)} now", text(rng)]
        return "\n".join(f"<instruction>{one}</instruction>" for one in rows)

    outcome = run("alpaca", "instruction", tmp_path, Scripted(says=says))
    assert outcome.counts.unfit >= 2
    assert all(len(example.instruction.split()) >= 4 for example in outcome.examples)


def test_evol_instruct_goes_four_rounds_from_parent_to_child_by_every_operation(tmp_path):
    model = Scripted()
    outcome = run("evol_instruct", "toxicity", tmp_path, model, budget=40)
    evolved = asked_of(model, "evolve")
    told = {line for r, _ in evolved for line in r.messages[0]["content"].splitlines()}
    for words in ("one more condition", "go deeper", "more particular", "several steps", "more complicated", "rarer"):
        assert any(words in line for line in told)
    assert {s.step for s in outcome.samples} == {1, 2, 3, 4}
    assert {s.step for s in outcome.chosen} == {1, 2, 3, 4}
    by_place = {(s.step, s.attempt): s for s in outcome.samples}
    children = [s for s in outcome.samples if s.step > 1 and not by_place[s.step - 1, s.attempt].rejected_because]
    prompts = {r.id: r.messages[0]["content"] for r, _ in evolved}
    assert children
    for child in children:
        assert by_place[child.step - 1, child.attempt].text in prompts[f"evolve-None-{child.step}-{child.attempt}"]


def test_evol_instruct_eliminates_what_gains_nothing_repeats_its_prompt_or_has_no_answer(tmp_path):
    sorry = "I am sorry, that is all."

    def says(prompt, rng):
        if "(Answer in fewer" in prompt:
            return rng.choice([sorry, "to be or no", "a good and long answer"])
        if "Are they equal" in prompt:
            return "Final Decision: [[No]]"
        at, parent = rng.random(), prompt.partition("One that exists:\n")[2].partition("\n")[0]
        if at < 0.2:
            return f"<instruction>{parent.upper()}</instruction>"
        return f"<instruction>the rewritten prompt {text(rng)}</instruction>" if at < 0.4 else None

    outcome = run("evol_instruct", "instruction", tmp_path, Scripted(says=says))
    assert min(outcome.counts.no_gain, outcome.counts.scaffold, outcome.counts.unfit) > 0
    assert {e.output for e in outcome.examples} == {"a good and long answer"}
    assert {s.rejected_because for s in outcome.samples} >= {NO_GAIN, SCAFFOLD, UNFIT}
    judged = run("evol_instruct", "toxicity", tmp_path / "equal", Scripted(
        says=lambda prompt, rng: "Final Decision: [[Yes]]" if "Are they equal" in prompt else None))  # fmt: skip
    assert judged.counts.no_gain == judged.counts.requested
    assert judged.examples == []


@pytest.mark.parametrize(("prefix", "opens"), [("bare", "bare user"), ("template", "user")])
def test_magpie_gives_nothing_but_the_opening_of_a_users_turn(prefix, opens, tmp_path):
    model = Scripted()
    run("magpie", "instruction", tmp_path, model, settings=replace(SETTINGS, prefix=prefix))
    turns = asked_of(model, "magpie")
    assert {r.opens for r, _ in turns} == {opens}
    assert all(r.messages == [] for r, _ in turns)
    assert {(s.temperature, s.top_p) for _, s in turns} == {(1.0, 1.0)}
    told = Scripted()
    run("magpie", "toxicity", tmp_path / "system", told)
    assert {turn["role"] for r, _ in asked_of(told, "magpie") for turn in r.messages} == {"system"}
    assert METHODS["magpie"].engines == ("transformers", "vllm")


def test_magpie_keeps_the_turns_that_its_own_check_takes_for_what_they_should_be(tmp_path):
    harmful = set(WORDS[::3])

    def says(prompt, rng):
        if "Somebody wrote this" in prompt:
            said = prompt.splitlines()[1].split()
            return f"Final Decision: [[{'Yes' if said[0] in harmful else 'No'}]]"
        return None

    outcome = run("magpie", "toxicity", tmp_path, Scripted(says=says))
    assert outcome.counts.unfit > 0
    assert {example.text.split()[0] for example in outcome.examples} <= harmful


def test_magpie_pairs_the_best_answer_with_the_worst(tmp_path):
    def says(prompt, rng):
        if "[[GRADE]]" in prompt:
            return f"[[{1 + int(prompt.partition('Answer:')[2].split()[0]) % 9}]]"
        return str(rng.randrange(1000)) if "(Answer in at most" in prompt else None

    model = Scripted(says=says)
    outcome = run("magpie", "reward", tmp_path, model)
    for example in outcome.examples:
        (prompt,) = [turn["content"] for turn in example.prompt]
        answers = {r.id.rpartition("-")[2] for r, _ in asked_of(model, "answer") if prompt in r.messages[0]["content"]}
        assert len(answers) == 5
        assert int(example.chosen) % 9 > int(example.rejected) % 9


def test_a_plan_is_made_from_two_seeds_and_only_its_result_is_read(tmp_path):
    model = Scripted()
    outcome = run("cot_self_instruct", "toxicity", tmp_path, model)
    for prompt, (_, sampling) in zip(model.prompts, model.asked, strict=True):
        if "Plan:" in prompt:
            assert sum(seed.text in prompt for seed in seeds("toxicity")) == 2
            assert (sampling.temperature, sampling.top_p) == (0.7, 0.8)
    assert all("Plan" in s.reply and "Plan" not in s.text for s in outcome.samples)


@pytest.mark.parametrize("task", ["toxicity", "sycophancy", "reward"])
def test_a_row_is_kept_if_most_votes_say_what_it_says(task, tmp_path):
    """Of pairs every second vote sees the replies in the other order."""
    right, votes = {"toxicity": "[[Yes]]", "sycophancy": "(A)", "reward": "[[first]]"}[task], {}

    def says(prompt, rng):
        if "Plan:" in prompt:
            return None
        reply = rng.choice([right, right, {"(A)": "(B)", "[[first]]": "[[second]]"}.get(right, "[[No]]")])
        votes.setdefault(prompt, []).append(reply)
        return reply

    outcome = run("cot_self_instruct", task, tmp_path, Scripted(says=says))
    assert 0 < outcome.counts.unfit < outcome.counts.requested
    for sample in outcome.samples:
        if sample.rejected_because not in ("", UNFIT):
            continue
        example: Any = sample.example
        if task == "reward":
            own = {p: v for p, v in votes.items() if example.chosen in p and example.rejected in p}
            agreed = sum(
                (reply == "[[first]]") == (p.index(example.chosen) < p.index(example.rejected))
                for p, replies in own.items() for reply in replies
            )  # fmt: skip
            assert sorted(map(len, own.values())) == [1, 2]
        else:
            asked = example.text
            (replies,) = [v for p, v in votes.items() if asked in p]
            key = "[[Yes]]" if task == "toxicity" else f"({example.letters[example.matching]})"
            agreed = replies.count(key)
        assert sample.kept == (agreed >= 2)


def test_instructions_whose_worst_answer_is_good_are_kept(tmp_path):
    grades = {}

    def says(prompt, rng):
        if "[[GRADE]]" in prompt:
            asked = prompt.partition("Message:\n")[2].partition("\n")[0]
            grades.setdefault(asked, []).append(rng.randint(1, 10))
            return f"[[{grades[asked][-1]}]]"
        return None

    outcome = run("cot_self_instruct", "instruction", tmp_path, Scripted(says=says), budget=4)
    first = [s for s in outcome.samples if s.attempt < 4]
    worst = {s.text: min(grades[s.text]) for s in first}
    middle = sorted(worst.values())[2]
    assert {s.text for s in first if s.kept} == {one for one, grade in worst.items() if grade >= middle}


def test_a_persona_asks_once_and_no_two_personas_are_alike(tmp_path):
    model = Scripted()
    run("sao", "instruction", tmp_path, model)
    personas = [
        p.partition("writes to the assistant: ")[2].splitlines()[0] for p in model.prompts if "This person" in p
    ]
    assert len(set(personas)) == len(personas) >= BUDGET
    assert not any(persona[0].isdigit() for persona in personas)
    same = Scripted(says=lambda prompt, rng: "a nurse who works at night" if prompt.startswith("Make up") else None)
    assert len(run("sao", "instruction", tmp_path / "same", same).examples) <= 1


@pytest.mark.parametrize("task", ["reward", "instruction"])
def test_of_two_answers_the_one_that_is_preferred_in_both_orders_is_the_better(task, tmp_path):
    """A judge of two minds: it likes long answers, or whatever stands first."""

    def says(prompt, rng):
        if "(Answer in" in prompt:
            return "word " * rng.randint(1, 30)
        if "[[first]] or [[second]]" in prompt:
            one, _, other = prompt.partition("First reply:")[2].partition("Second reply:")
            fickle = "bake" in prompt
            return "[[first]]" if fickle or len(one) > len(other.partition("Give your")[0]) else "[[second]]"
        return None

    outcome = run("sao", task, tmp_path, Scripted(says=says))
    counts = outcome.counts
    assert counts.judged >= counts.agreed >= BUDGET
    assert counts.unfit > 0
    assert "ranked alike in both orders" in str(counts)
    for example in outcome.examples:
        if task == "reward":
            assert len(example.chosen) > len(example.rejected) > 0
        else:
            assert example.output
    fickle = run("sao", task, tmp_path / "first", Scripted(
        says=lambda prompt, rng: "[[first]]" if "[[first]] or" in prompt else None))  # fmt: skip
    assert (fickle.counts.agreed, fickle.examples) == (0, [])
    assert fickle.counts.judged > 0


def test_what_a_method_took_is_told(tmp_path):
    model = Scripted()
    given, writer = given_for("toxicity"), writer_at(tmp_path, "toxicity", model)
    outcome = METHODS["magpie"].run(given, writer)
    spent = writer.spent()
    assert spent.requests == len(model.asked)
    assert spent.prompt_tokens == 3 * spent.requests
    assert f"; {spent.requests:,} requests" in str(replace(outcome.counts, **vars(spent)))
