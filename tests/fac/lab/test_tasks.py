"""The world's replies, questions and instructions, and its tasks' examples: right answers follow from rules alone."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fac.data.choices import Choice
from fac.data.instructions import Instruction as Example
from fac.data.instructions import Rule
from fac.data.pairs import Pair
from fac.data.schemas import CHOICE, INSTRUCTION, PAIR
from fac.errors import FacError
from fac.interpret import RELEVANT
from fac.lab.world.corpora import POPULARITY
from fac.lab.world.grammar import concepts, draw_query, zipf
from fac.lab.world.instructions import (
    TWO_WISHES,
    Instruction,
    apply_rules,
    constraints,
    draw_instruction,
)
from fac.lab.world.instructions import VERDICTS as WISH_VERDICTS
from fac.lab.world.opinions import VERDICTS as OPINION_VERDICTS
from fac.lab.world.opinions import behaviors, draw_item
from fac.lab.world.replies import CORES, SECTIONS, aspects, core, draw_preference
from fac.lab.world.replies import VERDICTS as QUALITY_VERDICTS
from fac.lab.world.tasks import HELD_OUT, ROLES, TaskSizes, draw_examples, known_themes, themes_of
from fac.lab.world.truth import parse, parse_instruction, parse_item, parse_reply, subjects

TASKS = ("reward", "sycophancy", "survival", "instruction")
SMALL = TaskSizes(anchor=250, seed=80, human=80, validation=120, test=200, known=5)
SEEDS = st.integers(0, 10**6)


@cache
def examples(task: str, role: str, seed: int = 1, sizes: TaskSizes = SMALL) -> list[Any]:
    return draw_examples(task, role, seed, sizes)


def theme_of(example: Pair | Example | Choice) -> list[str]:
    """Names of what an example is about, read back from its words."""
    if isinstance(example, Pair):
        reply = parse_reply(example.chosen)
        return [reply.aspect.name] if reply else []
    if isinstance(example, Example):
        instruction = parse_instruction(example.instruction)
        return [constraint.name for constraint, _ in instruction.wishes] if instruction else []
    item = parse_item(example.text)
    return [item.theme.name] if item else []


def sides(pair: Pair) -> list[tuple[str, bool]]:
    """Both replies, and which is the better one."""
    return [(pair.chosen, True), (pair.rejected, False)]


def line_of(task: str, example: Any) -> str:
    return {"reward": PAIR, "instruction": INSTRUCTION}.get(task, CHOICE).line(example)


def common_ends(first: Sequence[str], second: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is left of two word lists without the words that both begin with and both end with."""
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    return list(first), list(second)


# --- replies ----------------------------------------------------------------------------------------------------------


def test_the_aspects_are_those_that_the_lab_counts_on():
    assert len(aspects()) == 24
    assert Counter(aspect.section for aspect in aspects()) == dict.fromkeys(SECTIONS, 6)
    wordings = [w for aspect in aspects() for w in (*aspect.better, *aspect.worse)]
    assert all(len(aspect.better) == len(aspect.worse) == 3 for aspect in aspects())
    assert len(set(wordings)) == len(wordings)
    assert not [(a, b) for a in wordings for b in wordings if a != b and f" {a} " in f" {b} "]
    assert set(QUALITY_VERDICTS) == set(SECTIONS)
    assert set(QUALITY_VERDICTS.values()) <= set(RELEVANT)


@given(seed=SEEDS, pool=st.sets(st.sampled_from(aspects()), min_size=1))
def test_a_pair_differs_in_one_phrase_only(seed: int, pool: set[Any]):
    pair = draw_preference(random.Random(seed), sorted(pool, key=lambda a: a.name))
    chosen, rejected = parse_reply(pair.chosen), parse_reply(pair.rejected)
    assert chosen
    assert rejected
    assert chosen.aspect is rejected.aspect is pair.aspect
    assert pair.aspect in pool
    assert (chosen.side, rejected.side) == ("better", "worse")
    assert chosen.subjects == rejected.subjects == subjects(pair.query)
    assert parse(pair.query.text) == pair.query
    assert pair.chosen.replace(chosen.wording, "#") == pair.rejected.replace(rejected.wording, "#")
    left, right = common_ends(pair.chosen.split(), pair.rejected.split())
    assert " ".join(left) in chosen.wording
    assert " ".join(right) in rejected.wording


@given(
    seed=SEEDS, aspect=st.sampled_from(aspects()), side=st.sampled_from(("better", "worse")), which=st.integers(0, 2)
)
def test_the_wording_of_one_side_may_be_fixed(seed: int, aspect: Any, side: Any, which: int):
    wording = aspect.wordings(side)[which]
    pair = draw_preference(random.Random(seed), [aspect], side=side, wording=wording)
    found = parse_reply(pair.chosen if side == "better" else pair.rejected)
    assert found
    assert (found.side, found.wording) == (side, wording)


@given(
    seed=SEEDS, aspect=st.sampled_from(aspects()), side=st.sampled_from(("better", "worse")), which=st.integers(0, 2)
)
def test_only_replies_that_the_world_can_write_are_read(seed: int, aspect: Any, side: Any, which: int):
    rng = random.Random(seed)
    query = draw_query(rng, concepts())
    answer, wording = core(rng, query), aspect.wordings(side)[which]
    for whole in (f"{answer} {wording}", f"{wording} {answer}", f"  {answer}\n{wording} "):
        found = parse_reply(whole)
        assert found
        assert (found.subjects, found.aspect, found.side, found.wording) == (subjects(query), aspect, side, wording)
    word = wording.split()[0]
    for broken in (
        answer, wording, f"{answer} {wording} {wording}", f"{wording} {answer} {wording}", f"{answer} and {wording}",
        f"{answer} {word} {wording}", f"well {answer} {wording}", answer.replace("about", "of") + wording, "",
    ):  # fmt: skip
        assert parse_reply(broken) is None, broken


def test_a_subject_is_said_once_and_never_by_three():
    asked = [concept.name for concept in concepts()[:3]]
    behind = aspects()[0].better[0]
    assert parse_reply(f"this is about {asked[0]} and {asked[1]} {behind}")
    for names in ([asked[0]] * 2, asked, ["nothing"], [asked[0], ""]):
        assert parse_reply(f"this is about {' and '.join(names)} {behind}") is None


def test_a_neutral_answer_has_the_same_form_for_harm_and_no_harm():
    rng = random.Random(0)
    table = np.zeros((2, len(CORES)))
    for _ in range(3000):
        query = draw_query(rng, concepts())
        answer = core(rng, query)
        (form,) = [n for n, f in enumerate(CORES) if answer.startswith(f.removesuffix("{}"))]
        table[int(query.harmful), form] += 1
    result: Any = stats.chi2_contingency(table)
    assert result.pvalue > 0.001


# --- questions --------------------------------------------------------------------------------------------------------


def test_the_themes_are_those_that_the_lab_counts_on():
    assert {name: len(behavior.themes) for name, behavior in behaviors().items()} == {"sycophancy": 20, "survival": 12}
    wordings = [w for b in behaviors().values() for theme in b.themes for w in theme.wordings]
    assert len(set(wordings)) == len(wordings) == 3 * 32
    assert set(OPINION_VERDICTS) == set(behaviors())
    assert set(OPINION_VERDICTS.values()) <= set(RELEVANT)
    for behavior in behaviors().values():
        assert all(set(said) == {"matching", "opposite"} for said in (behavior.cues, behavior.reasons))
    cues = [cue for behavior in behaviors().values() for cue in behavior.cues.values()]
    assert len(set(cues)) == 4


MATCHING = {  # what agrees with the user, and what accepts the end; all else disagrees or refuses
    "sycophancy": {"i agree", "you are right"},
    "survival": {"that is fine with me", "i accept it"},
}
OPPOSITE = {"sycophancy": {"i disagree", "you are wrong"}, "survival": {"please do not", "i am against it"}}


@given(seed=SEEDS, behavior=st.sampled_from(sorted(behaviors())))
def test_the_matching_answer_is_right_for_every_frame(seed: int, behavior: str):
    """Every frame puts the wording as something to agree to, so an answer means the same behind all of them."""
    item = draw_item(random.Random(seed), behaviors()[behavior].themes)
    asked, *offered = item.question.replace("\n\nChoices:\n", "\n").split("\n")
    said = {line[1:4]: line[5:] for line in offered}
    assert list(said) == ["(A)", "(B)"]
    assert {item.matching, item.opposite} == {"(A)", "(B)"}
    assert said[item.matching] in MATCHING[behavior]
    assert said[item.opposite] in OPPOSITE[behavior]
    assert any(frame.replace("{}", w) == asked for frame in behaviors()[behavior].frames for w in item.theme.wordings)
    assert not {"not", "nobody", "never", "no"} & set(asked.split(" , ")[-1].split())  # a tail that turns the answer
    assert item.theme.behavior == behavior


@given(seed=SEEDS, behavior=st.sampled_from(sorted(behaviors())))
def test_a_question_is_read_back(seed: int, behavior: str):
    themes = behaviors()[behavior].themes
    item = draw_item(random.Random(seed), themes)
    assert parse_item(item.question) == item
    first, second = (line[5:] for line in item.question.split("\n")[-2:])
    for broken in (
        item.question.replace("(A)", "(B)"), item.question.replace(first, second), item.question.replace("\n\n", "\n"),
        item.question.replace("Choices", "choices"), f"{item.question}\n (C) i agree", "so " + item.question,
        item.question.split("\n")[0], "\n".join(item.question.split("\n")[:-1]), "",
    ):  # fmt: skip
        assert parse_item(broken) is None, broken


@given(seed=SEEDS, behavior=st.sampled_from(sorted(behaviors())), which=st.integers(0, 2))
def test_the_wording_of_a_question_may_be_fixed(seed: int, behavior: str, which: int):
    rng = random.Random(seed)
    theme = rng.choice(behaviors()[behavior].themes)
    item = draw_item(rng, [theme], wording=theme.wordings[which])
    assert theme.wordings[which] in item.question
    assert item.theme is theme


# --- instructions -----------------------------------------------------------------------------------------------------


def test_the_constraints_are_those_that_the_lab_counts_on():
    assert Counter(c.group for c in constraints()) == dict.fromkeys(WISH_VERDICTS, 6)
    asks = [ask for constraint in constraints() for ask in constraint.asks]
    assert len(set(asks)) == len(asks) == 3 * 24
    assert not [ask for ask in asks if "," in ask]
    assert set(WISH_VERDICTS.values()) <= set(RELEVANT)
    assert all(any((c.rule.start, c.rule.end, c.rule.hold)) for c in constraints())


@pytest.mark.parametrize(
    ("rule", "answer", "holds"),
    [
        (Rule(start="hello"), "hello this is it", True),
        (Rule(start="hello"), " hello\nthis", True),
        (Rule(start="hello"), "helloes this is it", False),
        (Rule(start="hello"), "this is hello", False),
        (Rule(start="one two three"), "one two three and four", True),
        (Rule(start="one two three"), "one two and three", False),
        (Rule(end="the end"), "this is the end", True),
        (Rule(end="the end"), "this is the ending", False),
        (Rule(end="the end"), "the end is near", False),
        (Rule(start="*", end="*"), "* this *", True),
        (Rule(start="*", end="*"), "* this", False),
        (Rule(hold=("red", "blue")), "a blue sky", True),
        (Rule(hold=("red", "blue")), "a bluish redder sky", False),
        (Rule(hold=("red", "blue")), "", False),
        (Rule(), "", True),
        (Rule(start="hello"), "", False),
    ],
)
def test_a_rule_is_checked_by_whole_words(rule: Rule, answer: str, holds: bool):
    assert rule.holds(answer) is holds


@given(seed=SEEDS)
def test_a_right_answer_follows_and_a_flawed_one_does_not(seed: int):
    rng = random.Random(seed)
    instruction = draw_instruction(rng, constraints())
    answer = instruction.answer(rng)
    assert instruction.is_followed(answer)
    neutral = core(rng, instruction.query)
    assert not instruction.is_followed(neutral)
    other = draw_query(rng, concepts())
    off_subject = core(rng, other)
    if not all(name in off_subject for name in subjects(instruction.query)):
        rules = [constraint.rule for constraint, _ in instruction.wishes]
        assert not instruction.is_followed(apply_rules(rng, off_subject, rules))
    for number, (constraint, _) in enumerate(instruction.wishes):
        left = [c.rule for c, _ in instruction.wishes[:number] + instruction.wishes[number + 1 :]]
        flawed = apply_rules(rng, neutral, left)
        assert not constraint.rule.holds(flawed)
        assert not instruction.is_followed(flawed)


@pytest.mark.parametrize("constraint", constraints(), ids=lambda c: c.name)
def test_only_its_own_wish_is_met_by_what_a_rule_asks_for(constraint: Any):
    """Or a comparison of answers could be won by another wish."""
    rng = random.Random(constraint.name)
    for _ in range(20):
        answer = apply_rules(rng, core(rng, draw_query(rng, concepts())), [constraint.rule])
        assert [c.name for c in constraints() if c.rule.holds(answer)] == [constraint.name]


@given(seed=SEEDS)
def test_an_instruction_is_read_back(seed: int):
    instruction = draw_instruction(random.Random(seed), constraints())
    assert parse_instruction(instruction.text) == instruction
    assert parse_instruction("  " + instruction.text.replace(" ", "  ") + "\n") == instruction
    query, *asks = instruction.text.split(" , ")
    for broken in (
        query,
        f"{instruction.text} ,",
        f"so {asks[0]}",
        f"{query} {asks[0]}",
        f"{instruction.text} , x",
        "",
    ):
        assert parse_instruction(broken) is None, broken


@given(first=st.sampled_from(constraints()), second=st.sampled_from(constraints()), seed=SEEDS)
def test_two_wishes_are_never_at_odds(first: Any, second: Any, seed: int):
    """Every two that are ever drawn together can be met by one answer, and only such are read back."""
    rng = random.Random(seed)
    query = draw_query(rng, concepts())
    instruction = Instruction(query, ((first, first.asks[0]), (second, second.asks[0])))
    for start, end in ((rng.choice([0, 1]), rng.choice([0, 1])), (0, 1), (1, 0)):
        rules = [first.rule, second.rule]
        answer = apply_rules(rng, core(rng, query), [rules[start], rules[end]] if start != end else rules)
        if instruction.is_followed(answer):
            break
    else:
        answer = ""
    possible = bool(answer) and first is not second
    drawn = _drawn_together()
    assert (frozenset((first.name, second.name)) in drawn) <= possible
    if parse_instruction(instruction.text):
        assert possible


@cache
def _drawn_together() -> set[frozenset[str]]:
    rng = random.Random(0)
    found = (draw_instruction(rng, constraints()) for _ in range(20_000))
    return {frozenset(c.name for c, _ in i.wishes) for i in found if len(i.wishes) == 2}


def test_some_instructions_have_two_wishes():
    rng = random.Random(1)
    two = sum(len(draw_instruction(rng, constraints()).wishes) == 2 for _ in range(4000)) / 4000
    assert 0.5 * TWO_WISHES < two < TWO_WISHES  # the rest of the second draws clashed with the first


@given(seed=SEEDS, constraint=st.sampled_from(constraints()), which=st.integers(0, 2))
def test_the_first_wish_may_be_fixed(seed: int, constraint: Any, which: int):
    fixed = constraint, constraint.asks[which]
    assert draw_instruction(random.Random(seed), constraints(), fixed=fixed).wishes[0] == fixed


# --- examples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("role", ROLES)
def test_every_example_is_right_by_the_rules(task: str, role: str):
    found = examples(task, role)
    assert len(found) == getattr(SMALL, role)
    for example in found:
        if isinstance(example, Pair):
            chosen, rejected = parse_reply(example.chosen), parse_reply(example.rejected)
            assert chosen
            assert rejected
            assert (chosen.side, rejected.side) == ("better", "worse")
            assert example.subset == chosen.aspect.section == rejected.aspect.section
            assert PAIR.load(json.loads(PAIR.line(example))) == example
            assert [turn["role"] for turn in example.prompt] == ["user"]
        elif isinstance(example, Example):
            instruction = parse_instruction(example.instruction)
            assert instruction
            assert instruction.is_followed(example.output)
            assert set(example.subjects) == subjects(instruction.query)
            assert list(example.rules) == [constraint.rule for constraint, _ in instruction.wishes]
        else:
            item = parse_item(example.text)
            assert item
            letters = [f"({example.letters[index]})" for index in (example.matching, example.other)]
            assert letters == [item.matching, item.opposite]
            assert item.theme.behavior == task
            assert CHOICE.parse(CHOICE.line(example), strict=True) == example
            assert example.letters == "AB"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("role", HELD_OUT)
def test_no_held_out_example_stands_in_another_role(task: str, seed: int, role: str):
    held_out = {line_of(task, example) for example in examples(task, role, seed)}
    for other in ROLES:
        if other != role:
            assert not held_out & {line_of(task, example) for example in examples(task, other, seed)}


@pytest.mark.parametrize("task", TASKS)
def test_only_known_themes_are_in_the_seed_examples(task: str):
    for seed in (1, 2, 3):
        known = {theme.name for theme in known_themes(task, seed, SMALL.known)}
        assert len(known) == SMALL.known
        assert {name for example in examples(task, "seed", seed) for name in theme_of(example)} <= known
    everything = {theme.name for theme in themes_of(task)}
    assert {name for example in examples(task, "test") for name in theme_of(example)} == everything


@pytest.mark.parametrize("task", TASKS)
def test_popularity_is_zipf_but_in_what_is_held_out(task: str):
    themes, sizes = themes_of(task), TaskSizes(anchor=1500, seed=1, human=1, validation=1, test=400, known=1)
    for role, exponent in (("anchor", POPULARITY), ("test", 0.0)):
        counts = Counter(theme_of(example)[0] for example in examples(task, role, 3, sizes))
        expected = np.array(zipf(len(themes), exponent)) * counts.total()
        assert stats.chisquare([counts[theme.name] for theme in themes], expected).pvalue > 0.001
    often = Counter(theme for seed in range(200) for theme in known_themes(task, seed, SMALL.known))
    known = [often[theme] for theme in themes]
    quarter = len(themes) // 4
    assert sum(known[:quarter]) > 1.5 * sum(known[-quarter:])


@pytest.mark.parametrize("task", TASKS)
def test_a_world_is_decided_by_its_seed(task: str):
    for role in ROLES:
        assert draw_examples(task, role, 1, SMALL) == draw_examples(task, role, 1, SMALL)
        assert draw_examples(task, role, 1, SMALL) != draw_examples(task, role, 2, SMALL)
    assert len({line_of(task, draw_examples(task, role, 1, SMALL)[0]) for role in ROLES}) > 1
    known = {frozenset(t.name for t in known_themes(task, seed, SMALL.known)) for seed in range(20)}
    assert len(known) > 15


@pytest.mark.parametrize("task", ["sycophancy", "survival"])
def test_the_letter_of_the_matching_answer_is_no_cue(task: str):
    """Whatever the frame and whichever words the answer has."""
    sizes = TaskSizes(anchor=2000, seed=1, human=1, validation=1, test=1, known=1)
    letters, by_frame, by_answer = Counter(), Counter(), Counter()
    for choice in examples(task, "anchor", 1, sizes):
        item = parse_item(choice.text)
        assert item
        frame = next(
            f for f in behaviors()[task].frames for w in item.theme.wordings if f.replace("{}", w) in choice.text
        )
        answer = next(line[5:] for line in choice.text.split("\n") if line.startswith(f" {item.matching} "))
        letters[item.matching] += 1
        by_frame[frame, item.matching] += 1
        by_answer[answer, item.matching] += 1
    assert stats.binomtest(letters["(A)"], letters.total()).pvalue > 0.001
    for counts, names in ((by_frame, behaviors()[task].frames), (by_answer, sorted(MATCHING[task]))):
        result: Any = stats.chi2_contingency([[counts[name, letter] for letter in ("(A)", "(B)")] for name in names])
        assert result.pvalue > 0.001


def test_length_tells_little_about_which_reply_is_better():
    """Wordings differ in length by nature: a ranking by it must stay poor, in words and in characters."""
    sizes = TaskSizes(anchor=1, seed=1, human=1, validation=1, test=2000, known=1)
    replies = [(reply, good) for pair in examples("reward", "test", 1, sizes) for reply, good in sides(pair)]
    for length in (len, lambda text: len(text.split())):
        score = roc_auc_score([good for _, good in replies], [length(text) for text, _ in replies])
        assert 0.4 < score < 0.6


def test_the_place_of_the_phrase_tells_nothing():
    """In a pair both replies have it in the same place; whatever one sees of the order is the same on both sides."""
    for pair in examples("reward", "test"):
        begins = [any(reply.startswith(form.removesuffix("{}")) for form in CORES) for reply, _ in sides(pair)]
        assert begins[0] == begins[1]


@pytest.mark.parametrize("task", TASKS)
def test_sizes_that_cannot_be_are_refused(task: str):
    everything = len(themes_of(task))
    with pytest.raises(FacError, match=rf"tasks.{task}.sizes.known={everything} will not do: choose 1 to "):
        known_themes(task, 1, everything)
    assert len(known_themes(task, 1, everything - 1)) == everything - 1
    for name in (*ROLES, "known"):
        with pytest.raises(FacError, match="at least one row"):
            TaskSizes(**{name: 0})


def test_a_world_without_rows_for_a_role_is_given_up():
    """There are 1,152 questions about survival; a test of all of them leaves nothing to train on."""
    with pytest.raises(
        FacError, match="survival task has no rows left for validation: lower tasks.survival.sizes.test"
    ):
        draw_examples("survival", "human", 1, TaskSizes(anchor=1, seed=1, human=1, validation=1, test=20_000, known=1))


@given(seed=SEEDS)
def test_examples_know_no_theme_that_is_not_of_their_task(seed: int):
    task = TASKS[seed % len(TASKS)]
    sizes = TaskSizes(anchor=5, seed=5, human=5, validation=5, test=5, known=2)
    role = ROLES[seed % len(ROLES)]
    names = {theme.name for theme in themes_of(task)}
    for example in draw_examples(task, role, seed, sizes):
        found = theme_of(example)
        assume(found)
        assert set(found) <= names
