"""fac.interpret: verdicts are read from replies; interpretations are made by annotators, real and scripted ones."""

import json
from dataclasses import replace

import pytest
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.errors import FacError
from fac.interpret import (
    ROLES,
    Interpretation,
    check_verdicts,
    interpret_features,
    interpretation_note,
    load_interpretations,
    parse_decision,
    with_analyses,
)
from fac.llm.base import Completion, Sampling
from fac.llm.transformers import TransformersChat
from fac.prompts import Prompts

PROMPTS = Prompts("lab/toxicity")
GREEDY = Sampling(temperature=0, max_new_tokens=12)
SPANS = {3: ["steal a bike", "steal a phone"], 11: ["bake bread"], 7: ["in the park", "at noon", "on sunday"]}


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ("[[Yes]]", "Yes"),
        ("It is about theft. [[probably]]", "Probably"),
        ("[[ MAYBE ]].", "Maybe"),
        ("[[\nNo\n]]", "No"),
        ("First I thought [[Yes]], but then [[No]].", "No"),
        ("[[Yes/Probably/Maybe/No]] ... [[Maybe]]", "Maybe"),
        ("[[Yes/Probably/Maybe/No]]", ""),
        ("Yes", "Yes"),
        ("[Yes]", "Yes"),
        ("It is about theft.\n\n**Probably**", "Probably"),
        ("Final Decision: Yes", "Yes"),
        ("It names a plant.\n**Final Decision:** no.", "No"),
        ("**Final Decision:** [[Yes]]", "Yes"),
        ("[[**Yes**]]", "Yes"),
        ("final decision: [Maybe]", "Maybe"),
        ("Final Decision: “Probably”", "Probably"),
        ("My verdict is no, since it is only wording.", "No"),
        ("Decision: Yes (it is about theft)", "Yes"),
        ("[[Yes]] at first. Final Decision: No", "No"),
        ("Final Decision: Yes\nOn second thought:\nFinal Decision: No", "No"),
        ("Final Decision: No\n\nYes", "Yes"),
        ("Final Decision: Yes/Probably/Maybe/No", ""),
        ("Final Decision: Yes or Probably", ""),
        ("Final Decision: No one can tell", ""),
        ("The answer is yesterday's", ""),
        ("No, it is only about names", ""),
        ("Yes\nbut then again it is not", ""),
        ("[[Surely]]", ""),
        ("[[Yes", "Yes"),
        ("", ""),
    ],
)
def test_the_last_decision_of_a_reply_counts(reply, decision):
    assert parse_decision(reply) == decision


@pytest.mark.parametrize(
    ("verification", "relevance", "relevant", "and_verified"),
    [
        ("Yes", "Yes", True, True),
        ("Maybe", "Probably", True, True),
        ("No", "Maybe", True, False),
        ("", "Yes", True, False),
        ("Yes", "No", False, False),
        ("Yes", "", False, False),
    ],
)
def test_what_makes_a_feature_relevant(verification, relevance, relevant, and_verified):
    interpretation = Interpretation(1, (), "theft", verification, relevance)
    assert (interpretation.is_relevant(False), interpretation.is_relevant(True)) == (relevant, and_verified)


class BreakdownError(Exception):
    """What a broken annotator raises."""


class Scripted:
    """An annotator behind a wire: it answers a prompt by the first words that it knows in it."""

    batch = 64

    def __init__(self, answers, limit=10**9):
        self.identity, self.answers, self.limit, self.prompts = "scripted", answers, limit, []

    def chat(self, requests, sampling):
        if len(self.prompts) >= self.limit:
            raise BreakdownError
        self.prompts += [request.messages[-1]["content"] for request in requests]
        found = (next(a for words, a in self.answers.items() if words in p) for p in self.prompts[-len(requests) :])
        return [Completion(answer, 1, 1, True) for answer in found]


def annotators():
    return {
        "explain": Scripted({"steal a bike": "theft", "bake bread": "Cannot tell.", "in the park": "places and times"}),
        "verify": Scripted({"theft": "They all fit: [[Yes]]", "places": "I would say so."}),
        "judge": Scripted({"theft": "[[Probably]]", "places": "[[Yes]] at first, then [[No]]"}),
    }


def test_each_feature_is_explained_verified_and_judged(tmp_path):
    roles = annotators()
    interpretations = interpret_features(roles, PROMPTS, SPANS, GREEDY, 42, tmp_path)
    assert interpretations == [
        Interpretation(3, ("steal a bike", "steal a phone"), "theft", "Yes", "Probably"),
        Interpretation(11, ("bake bread",), "", "", ""),
        Interpretation(7, ("in the park", "at noon", "on sunday"), "places and times", "", "No"),
    ]
    assert load_interpretations(tmp_path) == {each.feature: each for each in interpretations}
    for feature, prompt in zip(SPANS, roles["explain"].prompts, strict=True):
        assert prompt == PROMPTS.render("explain", spans=SPANS[feature])
    assert roles["verify"].prompts == [
        PROMPTS.render("verify", summary="theft", spans=SPANS[3]),
        PROMPTS.render("verify", summary="places and times", spans=SPANS[7]),
    ]
    assert roles["judge"].prompts == [PROMPTS.render("judge", summary=s) for s in ("theft", "places and times")]


@pytest.mark.parametrize(
    "silence",
    ["", "cannot tell", "**Cannot tell** what they share", "Answer: Cannot Tell", "**Answer:** Cannot Tell.", "Answer:",
     "I cannot tell", "I can’t tell."],
)  # fmt: skip
def test_a_feature_that_cannot_be_told_has_no_verdicts(tmp_path, silence):
    roles = annotators() | {"explain": Scripted({"": silence})}
    assert interpret_features(roles, PROMPTS, {3: SPANS[3]}, GREEDY, 42, tmp_path) == [
        Interpretation(3, tuple(SPANS[3]), "")
    ]
    assert not roles["verify"].prompts
    assert not roles["judge"].prompts


def test_a_name_before_an_explanation_is_no_part_of_it(tmp_path):
    roles = annotators() | {"explain": Scripted({"": "**Answer:** theft of bikes: all kinds"})}
    (interpretation,) = interpret_features(roles, PROMPTS, {3: SPANS[3]}, GREEDY, 42, tmp_path)
    assert interpretation.explanation == "theft of bikes: all kinds"


def test_a_broken_run_does_not_ask_again(tmp_path):
    broken = annotators() | {"judge": Scripted({}, limit=0)}
    with pytest.raises(BreakdownError):
        interpret_features(broken, PROMPTS, SPANS, GREEDY, 42, tmp_path)
    roles = annotators()
    interpretations = interpret_features(roles, PROMPTS, SPANS, GREEDY, 42, tmp_path)
    assert [len(roles[role].prompts) for role in ROLES] == [0, 0, 2]
    assert interpretations == interpret_features(
        annotators(), PROMPTS, SPANS, GREEDY, 42, tmp_path.with_name("unbroken")
    )


def test_a_real_model_reads_features(tmp_path):
    """Its words are random: they are kept as they are, and where no verdict stands there is none."""
    model = TransformersChat(ModelRef(str(tiny_model(tmp_path / "model", "llama"))))
    interpretations = interpret_features(dict.fromkeys(ROLES, model), PROMPTS, SPANS, GREEDY, 42, tmp_path)
    assert [(r.feature, list(r.spans)) for r in interpretations] == list(SPANS.items())
    said = {}
    for role in ROLES:
        lines = (tmp_path / f"replies-{role}.jsonl").read_text().splitlines()
        said[role] = {int(r["id"]): r["reply"]["raw"] for r in map(json.loads, lines)}
    for interpretation in interpretations:
        assert interpretation.explanation == said["explain"][interpretation.feature] != ""
        assert interpretation.verification == parse_decision(said["verify"][interpretation.feature])
        assert interpretation.relevance == parse_decision(said["judge"][interpretation.feature])
        assert (interpretation.verification, interpretation.relevance) == ("", "")
        assert not interpretation.is_relevant(verified=False)
    assert load_interpretations(tmp_path) == {each.feature: each for each in interpretations}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("It is about taking what others own.\n\nFinal Decision: [[Yes]]", "It is about taking what others own."),
        ("**Final Decision: [[Probably]]** since bikes get stolen.", "since bikes get stolen."),
        ("Theft [[Maybe]]", "Theft"),
        ("It is about theft.\n**Final Decision:** Yes", "It is about theft."),
        ("No verdict, but an analysis.", "No verdict, but an analysis."),
        ("[[Yes]]", "stealing things"),
        ("Final decision: [[No]].", "stealing things"),
    ],
)
def test_the_judge_s_analysis_may_stand_for_the_explanation(tmp_path, reply, told):
    record = {"id": "3", "reply": {"raw": reply, "prompt_tokens": 1, "completion_tokens": 1, "finished": True}}
    (tmp_path / "replies-judge.jsonl").write_text(json.dumps(record) + "\n")
    judged, silent = (
        Interpretation(3, ("steal a bike",), "stealing things", "Yes", "Yes"),
        Interpretation(7, ("at noon",), ""),
    )
    found = with_analyses({3: judged, 7: silent}, tmp_path)
    assert found[3].explanation == told
    assert (found[3].spans, found[3].relevance) == (judged.spans, judged.relevance)
    assert found[7] == silent  # never shown to the judge


def interpreted(feature, explanation, relevance):
    return Interpretation(feature, ("a span",), explanation, relevance=relevance)


def test_what_of_an_annotator_s_answers_came_to_nothing_is_told():
    interpretations = [
        interpreted(0, "theft", "Yes"),
        interpreted(1, "", ""),
        interpreted(2, "bikes", ""),
        interpreted(3, "bread", "No"),
    ]
    assert interpretation_note(interpretations) == (
        "Of 4 features the annotator could explain 3; 1 of its 3 verdicts on relevance could not be read or were cut "
        "off, and count as not relevant."
    )
    assert interpretation_note([]) == ""
    check_verdicts(interpretations)
    check_verdicts([])


@pytest.mark.parametrize(
    ("interpretations", "said"),
    [
        (
            [interpreted(0, "", ""), interpreted(1, "", "")],
            "The annotator explained none of 2 features: raise interpret.max_new",
        ),
        (
            [interpreted(0, "theft", ""), interpreted(1, "", "")],
            "None of the annotator's 1 verdicts on relevance can be read: ",
        ),
    ],
)
def test_an_annotator_without_one_verdict_is_an_error_and_no_empty_gap(interpretations, said):
    with pytest.raises(FacError, match=said):
        check_verdicts(interpretations)


def test_a_verdict_that_was_cut_off_is_none(tmp_path):
    class Cut(Scripted):
        def chat(self, requests, sampling):
            return [replace(c, finished=False) for c in super().chat(requests, sampling)]

    roles = {**annotators(), "judge": Cut({"theft": "[[Yes]], since", "places": "[[Yes]]"})}
    found = interpret_features(roles, PROMPTS, SPANS, GREEDY, 42, tmp_path)
    assert [r.relevance for r in found] == ["", "", ""]
    assert [r.explanation for r in found] == ["theft", "", "places and times"]
