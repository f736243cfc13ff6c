"""fac.synthesis.methods.fac, contrast and writer on a tiny writer and a tiny encoder, through a real store."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.writing import ANCHOR, ENCODER, SETTINGS, BreakdownError, Echo

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.data.schemas import PAIR, QUERY, Query
from fac.errors import FacError
from fac.features import Tops
from fac.llm.base import request_seed
from fac.llm.transformers import TransformersChat
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.synthesis.contrast import contrastive_pair
from fac.synthesis.methods.fac import STEP_ONE, STEP_TWO, prompts_one, prompts_two
from fac.synthesis.samples import UNREADABLE, Sample, load_samples, verify, written_for
from fac.synthesis.writer import Prompt


class Recording(TransformersChat):
    """The real engine, which also keeps what it is asked. Its random words never end: they count as whole replies."""

    def __init__(self, ref):
        super().__init__(ref)
        self.asked = []

    def chat(self, requests, sampling):
        self.asked += requests
        return [replace(reply, finished=True) for reply in super().chat(requests, sampling)]


def pair(seed):
    """A preference pair; one in four replies is cut off."""
    prompt, *replies = random.Random(seed).sample(ANCHOR, 3)
    whole = json.dumps(dict(zip(("prompt", "chosen", "rejected"), (prompt, *replies), strict=True)))
    return whole if seed % 4 else whole[:-1]


@pytest.fixture(scope="module")
def model(world):
    return Recording(ModelRef(str(world[0])))


def step_one(given, writer, features, attempts):
    return writer.write(STEP_ONE, prompts_one(given, features, attempts))


def first_step(synthesis, features, attempts):
    given, writer, _ = synthesis
    return step_one(given, writer, features, attempts)


def step_two(given, writer, features, first):
    return writer.write(STEP_TWO, prompts_two(given, features, first.samples, range(given.settings.m)))


def said(chat):
    return " ".join(message["content"] for message in chat)


def check_provenance(writer, written, step, extractor, folder, rendered):
    """Every sample says where it came from, and its activations and span are those of its chats measured alone.

    The rows of the matrix are those of all chats, in order; `rendered` are the prompts.
    """
    schema, row = writer.schema, 0
    assert written.pooled.n_texts == sum(sample.chats for sample in written.samples) == len(written.written_for)
    for sample, prompt in zip(written.samples, rendered, strict=True):
        assert sample.step == step
        assert sample.prompt == hashlib.sha256(prompt.encode()).hexdigest()[:12]
        assert sample.model == writer.model.identity
        assert sample.seed == request_seed(writer.seed, sample.feature, step, sample.attempt)
        assert sample.reply
        assert sample.example == schema.parse(sample.reply)
        rows = range(row, row + sample.chats)
        row += sample.chats
        assert {int(feature) for feature in written.written_for[rows]} == {sample.feature}
        own = [float(written.pooled.row(r)[sample.feature]) for r in rows]
        assert sample.activation == max(own)
        assert sample.relative_activation == pytest.approx(sample.activation / writer.anchor_max[sample.feature])
        if not sample.example:
            assert (sample.chats, sample.text, sample.activation, sample.span) == (1, "", 0.0, "")
            continue
        chats = schema.chats(sample.example)
        assert sample.chats == len(chats)
        chat = chats[int(np.argmax(own))]
        assert sample.text == said(chat)
        extractor.extract(chats, folder)
        tops = Tops.load(folder)
        alone = [Pooled.load(folder).row(r)[sample.feature] for r in range(len(chats))]
        np.testing.assert_allclose(own, alone, atol=1e-4)
        if sample.activation > 0:
            strongest = int(tops.texts[sample.feature, 0])
            assert chats[strongest] == chat
            token = int(tops.tokens[sample.feature, 0])
            assert sample.span == extractor.span(chat, token, writer.span_tokens).text != ""
        else:
            assert sample.span == ""


def prompts_of(requests):
    return [request.messages[0]["content"] for request in requests]


def test_both_steps_on_a_real_writer(world, synthesis_at, model, tmp_path):
    _, extractor, _, interpretations = world
    features = list(interpretations)
    model.asked.clear()
    given, writer, events = synthesis_at(tmp_path / "store", model)
    first = step_one(given, writer, features, range(SETTINGS.n))
    assert [(s.feature, s.attempt) for s in first.samples] == [(f, a) for f in features for a in range(SETTINGS.n)]
    check_provenance(writer, first, 1, extractor, tmp_path, prompts_of(model.asked))
    assert len({s.reply for s in first.samples}) > len(features)  # attempts differ
    assert any(s.activation > 0 for s in first.samples)
    for request, sample in zip(model.asked, first.samples, strict=True):
        about = interpretations[sample.feature]
        prompt = writer.prompts.render("write", summary=about.explanation, spans=about.spans[: SETTINGS.spans])
        assert request.messages == [{"role": "user", "content": prompt}]

    model.asked.clear()
    second = step_two(given, writer, features, first)
    assert [(s.feature, s.attempt) for s in second.samples] == [(f, a) for f in features for a in range(SETTINGS.m)]
    check_provenance(writer, second, 2, extractor, tmp_path, prompts_of(model.asked))
    for request, sample in zip(model.asked, second.samples, strict=True):
        good, bad = contrastive_pair(given, sample.feature, first.samples)
        prompt = request.messages[0]["content"]
        assert f"good example: {good.text}" in prompt
        assert f"active part: {good.span}" in prompt
        assert ("bad example" in prompt) == (bad is not None)
        assert bad is None or f"bad example: {bad.text}" in prompt
    assert events == ["started", "built"] * 2
    assert load_samples(QUERY, second.artifact.path / "samples.jsonl") == second.samples
    assert (second.artifact.path / "replies.jsonl").read_text().count("\n") == len(second.samples)

    for sample in verify(QUERY, second.samples, given.thresholds.tolist()):
        assert sample.kept == (sample.rejected_because == "")
        assert not sample.kept or sample.is_active(0.0)


def test_an_example_of_several_chats_is_worth_its_strongest(world, synthesis_at, tmp_path):
    """Of a preference pair both conversations are measured; a reply that was cut off is measured as nothing."""
    _, extractor, _, interpretations = world
    features, model = list(interpretations), Echo(reply=pair)
    given, writer, _ = synthesis_at(tmp_path / "store", model, schema=PAIR)
    first = step_one(given, writer, features, range(8))
    check_provenance(writer, first, 1, extractor, tmp_path, prompts_of(model.asked))
    assert {s.chats for s in first.samples} == {1, 2}
    assert {s.chats == 2 for s in first.samples} == {bool(s.example) for s in first.samples}
    best = [s.text == said(PAIR.chats(s.example)[0]) for s in first.samples if s.is_active(0.0)]
    assert len(set(best)) == 2  # the strongest is now the one, now the other
    assert first.written_for.tolist() == [s.feature for s in first.samples for _ in range(s.chats)]
    assert written_for([]).tolist() == []

    model.asked.clear()
    second = step_two(given, writer, features, first)
    check_provenance(writer, second, 2, extractor, tmp_path, prompts_of(model.asked))
    for request, sample in zip(model.asked, second.samples, strict=True):
        good, bad = contrastive_pair(given, sample.feature, first.samples)
        assert good.example
        assert bad
        assert bad.example
        prompt = request.messages[0]["content"]
        assert f"good example: {good.text}" in prompt  # the chat that is active, not the JSON
        assert f"bad example: {bad.text}" in prompt
    kept = verify(PAIR, second.samples, given.thresholds.tolist())
    assert {s.rejected_because for s in kept if not s.example} == {UNREADABLE}
    assert all(s.example and s.is_active(0.0) for s in kept if s.kept)


def test_finished_steps_are_found_again(world, synthesis_at, tmp_path):
    features = list(world[3])
    given, writer, events = synthesis_at(tmp_path, Echo())
    first = step_one(given, writer, features, range(2))
    second = step_two(given, writer, features, first)

    def fail():
        raise AssertionError("nothing is left to measure")

    _, again, later = synthesis_at(tmp_path, Echo(limit=0))
    again = replace(again, extractor=fail)
    found = step_one(given, again, features, range(2))
    assert found.samples == first.samples
    assert step_two(given, again, features, found).samples == second.samples
    assert Counter(events) == {"started": 2, "built": 2}
    assert later == ["reused", "reused"]
    higher = replace(given, thresholds=given.thresholds + np.float32(1e-9))
    assert step_two(higher, again, features, found).artifact == second.artifact  # the same pairs, so the same texts
    with pytest.raises(BreakdownError):  # anchor spans take their place, so there is more to write
        step_two(replace(given, thresholds=given.thresholds + np.inf), again, features, found)


@pytest.mark.parametrize(
    "change",
    [{"seed": 43}, {"temperature": 0.7}, {"top_p": 0.8}, {"max_new_tokens": 21}, {"spans": 2}, {"span_tokens": 9}],
)
def test_another_setting_is_another_stage(world, synthesis_at, tmp_path, change):
    features = list(world[3])[:1]
    given, writer, _ = synthesis_at(tmp_path, Echo())
    others = [
        replace(writer, encoder={**ENCODER, "rule": "official"}),
        replace(writer, schema=PAIR),
        replace(writer, model=Named()),
    ]
    stages = {step_one(given, each, features, range(2)).artifact for each in [writer, *others]}
    stages.add(first_step(synthesis_at(tmp_path, Echo(), replace(SETTINGS, **change)), features, range(2)).artifact)
    assert len(stages) == 5


class Named(Echo):
    identity = "another"


def test_whatever_a_prompt_says_is_in_the_key(world, synthesis_at, tmp_path):
    """A value that a method puts into a prompt, and the template that shows it: neither can be forgotten."""
    (tmp_path / "prompts").mkdir()
    template = tmp_path / "prompts" / "own.jinja"
    template.write_text("like {{ texts }}")
    _, writer, _ = synthesis_at(tmp_path / "store", Echo())

    def key(texts, attempts=range(2)):
        own = replace(writer, prompts=Prompts(tmp_path / "prompts"))
        return own.write("imitating", [Prompt("own", {"texts": texts}, None, n) for n in attempts]).artifact.key

    keys = [key("a"), key("b"), key("a", range(2, 4)), key("a", range(3))]
    template.write_text("more like {{ texts }}")
    assert len({*keys, key("a")}) == 5
    template.write_text("{# a comment #}like {{ texts }}")
    assert key("a") == keys[0]


def test_what_is_written_for_no_feature_has_its_texts_encoded_and_no_activation_of_one(world, synthesis_at, tmp_path):
    _, extractor, _, _ = world
    given, writer, _ = synthesis_at(tmp_path / "store", Echo(reply=pair), schema=PAIR)
    prompts = [Prompt("write", {"summary": "s", "spans": [str(n)]}, None, n) for n in range(8)]
    written = writer.write("imitating", prompts)
    row = 0
    for n, sample in enumerate(written.samples):
        assert (sample.feature, sample.activation, sample.relative_activation, sample.span) == (None, None, None, "")
        assert sample.seed == request_seed(SETTINGS.seed, None, 1, n)
        for chat in PAIR.chats(sample.example) if sample.example else ():
            extractor.extract([chat], tmp_path)
            np.testing.assert_allclose(written.pooled.row(row), Pooled.load(tmp_path).row(0), atol=1e-4)
            row += 1
        row += not sample.example
    assert row == written.pooled.n_texts > 8
    assert any(sample.text for sample in written.samples)
    with pytest.raises(ValueError, match="no feature"):
        _ = written.written_for
    for wrong in ([*prompts, prompts[0]], [*prompts, replace(prompts[0], feature=0)]):
        with pytest.raises(ValueError, match=r"imitating: (two|some) prompts"):
            writer.write("imitating", wrong)
    assert given.seed == SETTINGS.seed


def test_another_way_to_read_replies_is_another_stage(world, synthesis_at, tmp_path):
    """Whether a reply refuses is decided as it is read: with other patterns, other examples are left."""
    features, prompts = list(world[3])[:1], tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "write.jinja").write_text("write")
    stages = []
    for refusals in ("[en]", "{en: {refusal: [no idea]}}"):
        (prompts / "set.yaml").write_text(f"refusals: {refusals}")
        given, writer, _ = synthesis_at(tmp_path / "store", Echo())
        stages.append(step_one(given, replace(writer, prompts=Prompts(prompts)), features, range(2)).artifact)
    assert stages[0] != stages[1]


def test_a_broken_run_continues_where_it_stopped(world, synthesis_at, tmp_path):
    features, attempts = list(world[3]), range(25)  # 150 requests, asked in batches of 64
    unbroken, resumed = Echo(), Echo()
    expected = first_step(synthesis_at(tmp_path / "whole", unbroken), features, attempts)
    assert len(unbroken.asked) == 150
    given, writer, events = synthesis_at(tmp_path / "broken", Echo(limit=2))
    with pytest.raises(BreakdownError):
        step_one(given, writer, features, attempts)
    assert events == ["started"]
    given, writer, events = synthesis_at(tmp_path / "broken", resumed)
    written = step_one(given, writer, features, attempts)
    assert [r.id for r in resumed.asked] == [r.id for r in unbroken.asked[128:]]
    assert written.samples == expected.samples
    assert written.artifact.key == expected.artifact.key
    assert events == ["started", "built"]


def candidate(feature, attempt, activation, text, **given):
    example = Query(text) if text else None
    return Sample(feature, 1, attempt, example, text, "", "", 0, activation=activation, text=text, **given)


def test_a_pair_is_the_strongest_and_the_weakest_candidate(world, synthesis_at, tmp_path):
    given, _, _ = synthesis_at(tmp_path, Echo(), threshold=0.5)
    feature, other = list(world[3])[:2]
    samples = [candidate(feature, n, g, f"text {n}") for n, g in enumerate((0.7, 2.0, 0.1, 2.0))]
    noise = [candidate(feature, 4, 0.0, ""), candidate(other, 5, 9.0, "text 5"), candidate(other, 6, -1.0, "text 6")]
    assert contrastive_pair(given, feature, samples + noise) == (samples[1], samples[2])
    assert contrastive_pair(given, feature, (samples + noise)[::-1]) == (samples[1], samples[2])


def test_the_released_code_pairs_the_best_with_the_second_best(world, synthesis_at, tmp_path):
    given, _, _ = synthesis_at(tmp_path, Echo(), replace(SETTINGS, pair="official"), threshold=0.5)
    feature = next(iter(world[3]))
    span = world[3][feature].spans[0]

    def pair_of(*gs):
        samples = [candidate(feature, i, g, f"text {i}") for i, g in enumerate(gs)]
        good, bad = contrastive_pair(given, feature, samples)
        return (good.text, good.activation), bad and (bad.text, bad.activation)

    assert pair_of(0.1, 3.0, 0.7, 2.0) == (("text 1", 3.0), ("text 3", 2.0))
    assert pair_of(0.1, 3.0, 0.2) == ((span, 5.0), ("text 0", 0.1))  # one active candidate does not count
    assert pair_of(0.1, 0.5) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(0.1, 7.0) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(7.0) == ((span, 5.0), ("text 0", 7.0))
    assert pair_of() == ((span, 5.0), None)


def test_scores_are_shown_as_the_released_code_shows_them(world, synthesis_at, tmp_path):
    """Out of ten by default; g itself with its pairs."""
    feature, anchor_max = next(iter(world[3])), world[2]
    own = [
        candidate(feature, n, g, f"text {n}", relative_activation=g / float(anchor_max[feature]))
        for n, g in enumerate((3.04, 1.0, 0.2))
    ]
    strengths = [10 * g / float(anchor_max[feature]) for g in (3.04, 0.2)]
    for rule, scores in (("paper", strengths), ("official", [3.04, 1.0])):
        given, _, _ = synthesis_at(tmp_path / rule, Echo(), replace(SETTINGS, pair=rule))
        (prompt,) = prompts_two(given, [feature], own, range(1))
        values: Any = prompt.values
        assert [values[side]["score"] for side in ("good", "bad")] == [round(score, 1) for score in scores]


def test_a_query_may_be_measured_with_its_label(world, synthesis_at, tmp_path):
    _, extractor, _, interpretations = world
    features = list(interpretations)[:3]
    written = {
        on: first_step(synthesis_at(tmp_path, Echo(), replace(SETTINGS, label_scored=on)), features, range(4))
        for on in (False, True)
    }
    assert written[True].artifact != written[False].artifact
    assert [s.example for s in written[True].samples] == [s.example for s in written[False].samples]
    for row, sample in enumerate(written[True].samples):
        assert sample.text == sample.example.text  # the label is not shown
        extractor.extract([as_chat(f"{sample.text}\t1")], tmp_path)
        np.testing.assert_allclose(written[True].pooled.row(row), Pooled.load(tmp_path).row(0), atol=1e-4)


def test_a_step_is_another_stage_only_by_what_it_shows(world, synthesis_at, tmp_path):
    features = list(world[3])[:2]
    keys = {}
    for name, change in {
        "default": {},
        "pair": {"pair": "official"},
        "choice": {"filter": False, "ratio": 0.5, "top_up": 1},  # of features and samples: no matter of writing
    }.items():
        given, writer, _ = synthesis_at(tmp_path, Echo(), replace(SETTINGS, **change))
        first = step_one(given, writer, features, range(2))
        keys[name] = first.artifact.key, step_two(given, writer, features, first).artifact.key
    assert keys["choice"] == keys["default"]
    assert keys["pair"][0] == keys["default"][0]
    assert keys["pair"][1] != keys["default"][1]
    with pytest.raises(FacError, match=r"synthesis.ratio=0 will not do"):
        replace(SETTINGS, ratio=0)


def test_a_pair_is_two_texts_or_the_good_one_alone(world, synthesis_at, tmp_path):
    """One readable candidate, or several of one text, show no difference to learn from."""
    feature = next(iter(world[3]))
    span = world[3][feature].spans[0]

    def texts(*candidates, rule="paper"):
        given, _, _ = synthesis_at(tmp_path, Echo(), replace(SETTINGS, pair=rule), threshold=0.5)
        samples = [candidate(feature, i, g, text) for i, (text, g) in enumerate(candidates)]
        good, bad = contrastive_pair(given, feature, samples)
        return good.text, bad and bad.text

    assert texts(("a b c", 2.0)) == ("a b c", None)
    assert texts(("a b c", 2.0), ("A  b c!", 0.1)) == ("a b c", None)  # the same but for case and punctuation
    assert texts(("a b c", 2.0), ("d e f", 0.1), ("a b c.", 0.0)) == ("a b c", "d e f")
    assert texts(("a b c", 2.0), ("d e f", 2.0)) == ("a b c", None)  # none of them is the weaker one
    assert texts() == (span, None)
    assert texts((span.upper(), 0.2)) == (span, None)
    assert texts((span.upper(), 0.2), ("d e f", 0.1)) == (span, "d e f")
    assert texts(("a b c", 3.0), ("A b c", 2.0), ("d e f", 1.0), rule="official") == ("a b c", "d e f")
    assert texts(("a b c", 3.0), ("A b c", 2.0), ("d e f", 0.1), rule="official") == (span, "d e f")
    assert texts((span.upper(), 0.2), rule="official") == (span, None)


@pytest.mark.parametrize("prompts", ["lab/toxicity", "paper/toxicity", "paper/reward"])
def test_without_a_second_text_the_prompt_shows_one(world, synthesis_at, tmp_path, prompts):
    feature = next(iter(world[3]))
    given, _, _ = synthesis_at(tmp_path, Echo())
    rendered = {}
    for texts in (["a good one"], ["a good one", "a weak one"]):
        own = [
            candidate(feature, n, 2.0 - n, text, relative_activation=0.9, span="good") for n, text in enumerate(texts)
        ]
        (prompt,) = prompts_two(given, [feature], own, range(1))
        rendered[len(texts)] = Prompts(prompts).render(prompt.role, **prompt.values)
    assert rendered[1].count("a good one") == rendered[2].count("a good one") == 1
    assert "a weak one" in rendered[2]
    for word in ("weak", "bad example", "difference", "None"):
        assert word not in rendered[1]


def test_without_an_active_candidate_the_strongest_anchor_span_is_the_good_one(world, synthesis_at, tmp_path):
    _, _, anchor_max, interpretations = world
    given, _, _ = synthesis_at(tmp_path, Echo(), threshold=0.5)
    feature = next(iter(interpretations))
    at_threshold = candidate(feature, 0, 0.5, "a b c")
    good, bad = contrastive_pair(given, feature, [at_threshold])
    assert (good.step, good.example) == (0, None)
    assert (good.text, good.span) == (interpretations[feature].spans[0], interpretations[feature].spans[0])
    assert good.activation == pytest.approx(anchor_max[feature])
    assert bad == at_threshold
    good, bad = contrastive_pair(given, feature, [candidate(feature, 0, 0.0, "")])
    assert (good.step, bad) == (0, None)

    model = Echo()
    given, writer, _ = synthesis_at(tmp_path, model, threshold=np.inf)
    first = step_one(given, writer, list(interpretations), range(2))
    model.asked.clear()
    step_two(given, writer, list(interpretations), first)
    for request in model.asked:
        span = interpretations[int(request.id.split("-")[0])].spans[0]
        assert f"good example: {span}" in request.messages[0]["content"]
