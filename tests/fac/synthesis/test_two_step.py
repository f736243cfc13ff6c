"""fac.synthesis.two_step on a tiny writer and a tiny encoder, through a real store."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.writing import ANCHOR, ENCODER, SETTINGS, BreakdownError, Echo

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.errors import FacError
from fac.features import Tops
from fac.llm.base import request_seed
from fac.llm.transformers import TransformersChat
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.store import Artifact
from fac.synthesis.forms import PAIR
from fac.synthesis.samples import UNREADABLE, Sample, load_samples, verify
from fac.synthesis.two_step import Written, contrastive_pair, one_sided, step_one, step_two, written_for


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
def writer(world):
    return Recording(ModelRef(str(world[0])))


def said(chat):
    return " ".join(message["content"] for message in chat)


def check_provenance(desk, written, step, role, extractor, folder):
    """Every sample says where it came from, and its g, share and span are those of its chats measured alone.

    The rows of the matrix are those of all chats, in order.
    """
    settings, row = desk.settings, 0
    assert written.pooled.n_texts == sum(sample.chats for sample in written.samples) == len(written.written_for)
    for sample in written.samples:
        assert sample.step == step
        assert sample.prompt == desk.prompts.digest(role)
        assert sample.model == desk.writer.identity
        assert sample.seed == request_seed(settings.seed, sample.feature, step, sample.attempt)
        assert sample.reply
        assert sample.row == desk.form.parse(sample.reply)
        rows = range(row, row + sample.chats)
        row += sample.chats
        assert {int(feature) for feature in written.written_for[rows]} == {sample.feature}
        own = [float(written.pooled.row(r)[sample.feature]) for r in rows]
        assert sample.g == max(own)
        assert sample.share == pytest.approx(sample.g / desk.anchor_max[sample.feature])
        if not sample.row:
            assert (sample.chats, sample.text, sample.g, sample.span) == (1, "", 0.0, "")
            continue
        chats = desk.form.chats(sample.row)
        assert sample.chats == len(chats)
        chat = chats[int(np.argmax(own))]
        assert sample.text == said(chat)
        extractor.extract(chats, folder)
        tops = Tops.load(folder)
        alone = [Pooled.load(folder).row(r)[sample.feature] for r in range(len(chats))]
        np.testing.assert_allclose(own, alone, atol=1e-4)
        if sample.g > 0:
            strongest = int(tops.texts[sample.feature, 0])
            assert chats[strongest] == chat
            token = int(tops.tokens[sample.feature, 0])
            assert sample.span == extractor.span(chat, token, settings.span_tokens).text != ""
        else:
            assert sample.span == ""


def test_both_steps_on_a_real_writer(world, desk_at, writer, tmp_path):
    _, extractor, _, readings = world
    features = list(readings)
    writer.asked.clear()
    desk, events = desk_at(tmp_path / "store", writer)
    first = step_one(desk, features, range(SETTINGS.n))
    assert [(s.feature, s.attempt) for s in first.samples] == [(f, a) for f in features for a in range(SETTINGS.n)]
    check_provenance(desk, first, 1, "write", extractor, tmp_path)
    assert len({s.reply for s in first.samples}) > len(features)  # attempts differ
    assert any(s.g > 0 for s in first.samples)
    for request, sample in zip(writer.asked, first.samples, strict=True):
        reading = readings[sample.feature]
        prompt = desk.prompts.render("write", summary=reading.explanation, spans=reading.spans[: SETTINGS.spans])
        assert request.messages == [{"role": "user", "content": prompt}]

    writer.asked.clear()
    cut = np.zeros_like(desk.anchor_max)
    second = step_two(desk, features, first, cut)
    assert [(s.feature, s.attempt) for s in second.samples] == [(f, a) for f in features for a in range(SETTINGS.m)]
    check_provenance(desk, second, 2, "contrast", extractor, tmp_path)
    for request, sample in zip(writer.asked, second.samples, strict=True):
        good, bad = contrastive_pair(desk, sample.feature, first.samples, cut)
        prompt = request.messages[0]["content"]
        assert f"good example: {good.text}" in prompt
        assert f"active part: {good.span}" in prompt
        assert ("bad example" in prompt) == (bad is not None)
        assert bad is None or f"bad example: {bad.text}" in prompt
    assert events == ["started", "built"] * 2
    assert load_samples(second.artifact.path / "samples.jsonl") == second.samples
    assert (second.artifact.path / "replies.jsonl").read_text().count("\n") == len(second.samples)

    for sample in verify(second.samples, cut.tolist()):
        assert sample.kept == (sample.why == "")
        assert not sample.kept or sample.g > 0


def test_a_row_of_several_chats_is_worth_its_strongest(world, desk_at, tmp_path):
    """Of a preference pair both conversations are measured; a reply that was cut off is measured as nothing."""
    _, extractor, anchor_max, readings = world
    features, cut = list(readings), np.zeros_like(anchor_max)
    desk, _ = desk_at(tmp_path / "store", Echo(reply=pair), form=PAIR)
    first = step_one(desk, features, range(8))
    check_provenance(desk, first, 1, "write", extractor, tmp_path)
    assert {s.chats for s in first.samples} == {1, 2}
    assert {s.chats == 2 for s in first.samples} == {bool(s.row) for s in first.samples}
    best = [s.text == said(PAIR.chats(s.row)[0]) for s in first.samples if s.g > 0]
    assert len(set(best)) == 2  # the strongest is now the one, now the other
    assert first.written_for.tolist() == [s.feature for s in first.samples for _ in range(s.chats)]
    assert written_for([]).tolist() == []

    desk.writer.asked.clear()
    second = step_two(desk, features, first, cut)
    check_provenance(desk, second, 2, "contrast", extractor, tmp_path)
    for request, sample in zip(desk.writer.asked, second.samples, strict=True):
        good, bad = contrastive_pair(desk, sample.feature, first.samples, cut)
        assert good.row
        assert bad
        assert bad.row
        prompt = request.messages[0]["content"]
        assert f"good example: {good.text}" in prompt  # the chat that is active, not the JSON
        assert f"bad example: {bad.text}" in prompt
    kept = verify(second.samples, cut.tolist())
    assert {s.why for s in kept if not s.row} == {UNREADABLE}
    assert all(s.row and s.g > 0 for s in kept if s.kept)


def test_finished_steps_are_found_again(world, desk_at, tmp_path):
    features = list(world[3])
    cut = np.zeros_like(world[2])
    desk, events = desk_at(tmp_path, Echo())
    first = step_one(desk, features, range(2))
    second = step_two(desk, features, first, cut)

    def fail():
        raise AssertionError("nothing is left to measure")

    again, later = desk_at(tmp_path, Echo(limit=0))
    again = replace(again, extractor=fail)
    found = step_one(again, features, range(2))
    assert found.samples == first.samples
    assert step_two(again, features, found, cut).samples == second.samples
    assert Counter(events) == {"started": 2, "built": 2}
    assert later == ["reused", "reused"]
    assert step_two(again, features, found, cut + 1e-9).artifact == second.artifact  # the same pairs, so the same texts
    with pytest.raises(BreakdownError):
        step_two(again, features, found, cut + np.inf)  # anchor spans take their place, so there is more to write


@pytest.mark.parametrize(
    "change", [{"seed": 43}, {"temperature": 0.7}, {"top_p": 0.8}, {"max_new_tokens": 21}, {"spans": 2}]
)
def test_another_setting_is_another_stage(world, desk_at, tmp_path, change):
    features = list(world[3])[:1]
    desk, _ = desk_at(tmp_path, Echo())
    other, _ = desk_at(tmp_path, Echo(), replace(SETTINGS, **change))
    elsewhere = replace(desk, encoder={**ENCODER, "rule": "official"})
    read_otherwise = replace(desk, form=PAIR)
    assert len({step_one(d, features, range(2)).artifact for d in (desk, other, elsewhere, read_otherwise)}) == 4


def test_another_way_to_read_replies_is_another_stage(world, desk_at, tmp_path):
    """Whether a reply refuses is decided as it is read: with other patterns, other rows are left."""
    features, prompts = list(world[3])[:1], tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "write.jinja").write_text("write")
    stages = []
    for refusals in ("[en]", "{en: {refusal: [no idea]}}"):
        (prompts / "set.yaml").write_text(f"refusals: {refusals}")
        desk, _ = desk_at(tmp_path / "store", Echo())
        stages.append(step_one(replace(desk, prompts=Prompts(prompts)), features, range(2)).artifact)
    assert stages[0] != stages[1]


def test_a_broken_run_continues_where_it_stopped(world, desk_at, tmp_path):
    features, attempts = list(world[3]), range(25)  # 150 requests, asked in batches of 64
    unbroken, resumed = Echo(), Echo()
    expected = step_one(desk_at(tmp_path / "whole", unbroken)[0], features, attempts)
    assert len(unbroken.asked) == 150
    desk, events = desk_at(tmp_path / "broken", Echo(limit=2))
    with pytest.raises(BreakdownError):
        step_one(desk, features, attempts)
    assert events == ["started"]
    desk, events = desk_at(tmp_path / "broken", resumed)
    written = step_one(desk, features, attempts)
    assert [r.id for r in resumed.asked] == [r.id for r in unbroken.asked[128:]]
    assert written.samples == expected.samples
    assert written.artifact.key == expected.artifact.key
    assert events == ["started", "built"]


def test_a_pair_is_the_strongest_and_the_weakest_candidate(world, desk_at, tmp_path):
    desk, _ = desk_at(tmp_path, Echo())
    feature, other = list(world[3])[:2]
    cut = np.full_like(desk.anchor_max, 0.5)

    def candidate(attempt, g, text=None, of=feature):
        text = f"text {attempt}" if text is None else text
        return Sample(of, 1, attempt, text, text, "", "", 0, g=g, text=text)

    samples = [candidate(0, 0.7), candidate(1, 2.0), candidate(2, 0.1), candidate(3, 2.0)]
    noise = [candidate(4, 0.0, text=""), candidate(5, 9.0, of=other), candidate(6, -1.0, of=other)]
    assert contrastive_pair(desk, feature, samples + noise, cut) == (samples[1], samples[2])
    assert contrastive_pair(desk, feature, (samples + noise)[::-1], cut) == (samples[1], samples[2])


def test_the_released_code_pairs_the_best_with_the_second_best(world, desk_at, tmp_path):
    desk, _ = desk_at(tmp_path, Echo(), replace(SETTINGS, pair="official"))
    feature = next(iter(world[3]))
    span = world[3][feature].spans[0]
    cut = np.full_like(desk.anchor_max, 0.5)

    def pair_of(*gs):
        samples = [Sample(feature, 1, i, "a b c", "a b c", "", "", 0, g=g, text=f"text {i}") for i, g in enumerate(gs)]
        good, bad = contrastive_pair(desk, feature, samples, cut)
        return (good.text, good.g), bad and (bad.text, bad.g)

    assert pair_of(0.1, 3.0, 0.7, 2.0) == (("text 1", 3.0), ("text 3", 2.0))
    assert pair_of(0.1, 3.0, 0.2) == ((span, 5.0), ("text 0", 0.1))  # one active candidate does not count
    assert pair_of(0.1, 0.5) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(0.1, 7.0) == ((span, 5.0), ("text 0", 0.1))
    assert pair_of(7.0) == ((span, 5.0), ("text 0", 7.0))
    assert pair_of() == ((span, 5.0), None)


def test_scores_are_shown_as_the_released_code_shows_them(world, desk_at, tmp_path):
    """Out of ten by default; g itself with its pairs."""
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "contrast.jinja").write_text("{{ good.score }} {{ bad.score }}")
    feature, anchor_max = next(iter(world[3])), world[2]
    own = [
        Sample(feature, 1, i, "a b c", "a b c", "", "", 0, g=g, share=g / anchor_max[feature], text=f"text {i}")
        for i, g in enumerate((3.04, 1.0, 0.2))
    ]
    cut = np.zeros_like(anchor_max)
    for rule, scores in (("paper", [10 * own[0].share, 10 * own[2].share]), ("official", [3.04, 1.0])):
        writer = Echo()
        desk, _ = desk_at(tmp_path / rule, writer, replace(SETTINGS, pair=rule))
        desk = replace(desk, prompts=Prompts(tmp_path / "task"))
        first = Written(own, Pooled.from_dense(np.zeros((3, 4))), Artifact("write", rule, tmp_path))
        step_two(desk, [feature], first, cut)
        assert writer.asked[0].messages[0]["content"] == " ".join(str(round(float(s), 1)) for s in scores)


def test_a_query_may_be_measured_with_its_label(world, desk_at, tmp_path):
    _, extractor, _, readings = world
    features = list(readings)[:3]
    written = {
        on: step_one(desk_at(tmp_path, Echo(), replace(SETTINGS, label_scored=on))[0], features, range(4))
        for on in (False, True)
    }
    assert written[True].artifact != written[False].artifact
    assert [s.row for s in written[True].samples] == [s.row for s in written[False].samples]
    assert [s.text for s in written[True].samples] == [s.row for s in written[True].samples]  # the label is not shown
    for sample, row in zip(written[True].samples, range(12), strict=True):
        extractor.extract([as_chat(f"{sample.row}\t1")], tmp_path)
        np.testing.assert_allclose(written[True].pooled.row(row), Pooled.load(tmp_path).row(0), atol=1e-4)
    pairs = {
        on: step_one(desk_at(tmp_path / "pairs", Echo(reply=pair), replace(SETTINGS, label_scored=on), PAIR)[0],
                     features, range(2))
        for on in (False, True)
    }  # fmt: skip
    assert [s.g for s in pairs[True].samples] == [s.g for s in pairs[False].samples]  # no other form has a label


def test_a_step_is_another_stage_only_by_the_ways_that_it_follows(world, desk_at, tmp_path):
    features = list(world[3])[:2]
    cut = np.zeros_like(world[2])
    keys = {}
    for name, change in {
        "default": {},
        "pair": {"pair": "official"},
        "summary": {"summary": "analysis"},
        "choice": {"filter": False, "ratio": 0.5},  # of features and samples: no matter of writing
    }.items():
        desk, _ = desk_at(tmp_path, Echo(), replace(SETTINGS, **change))
        first = step_one(desk, features, range(2))
        keys[name] = first.artifact.key, step_two(desk, features, first, cut).artifact.key
    assert keys["choice"] == keys["default"]
    assert keys["pair"][0] == keys["default"][0]
    assert keys["pair"][1] != keys["default"][1]
    assert not set(keys["summary"]) & set(keys["default"])
    with pytest.raises(FacError, match=r"synthesis.ratio=0 will not do"):
        replace(SETTINGS, ratio=0)


def test_a_pair_is_two_texts_or_the_good_one_alone(world, desk_at, tmp_path):
    """One readable candidate, or several of one text, show no difference to learn from."""
    desk, _ = desk_at(tmp_path, Echo())
    feature = next(iter(world[3]))
    span, cut = world[3][feature].spans[0], np.full_like(desk.anchor_max, 0.5)

    def texts(*candidates, rule="paper"):
        samples = [
            Sample(feature, 1, i, text, text, "", "", 0, g=g, text=text) for i, (text, g) in enumerate(candidates)
        ]
        told = replace(desk, settings=replace(SETTINGS, pair=rule))
        good, bad = contrastive_pair(told, feature, samples, cut)
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
def test_without_a_second_text_the_prompt_shows_one(world, desk_at, tmp_path, prompts):
    writer, feature = Echo(), next(iter(world[3]))
    cut = np.zeros_like(world[2])
    desk = replace(desk_at(tmp_path, writer)[0], prompts=Prompts(prompts))
    pairs = {}
    for texts in (["a good one"], ["a good one", "a weak one"]):
        own = [
            Sample(feature, 1, i, text, text, "", "", 0, g=2.0 - i, share=0.9, text=text, span="good")
            for i, text in enumerate(texts)
        ]
        first = Written(own, Pooled.from_dense(np.zeros((len(own), 4))), Artifact("write", str(len(own)), tmp_path))
        assert one_sided(desk, [feature], first, cut) == (len(texts) == 1)
        step_two(desk, [feature], first, cut)
        pairs[len(texts)] = writer.asked[-1].messages[0]["content"]
    assert pairs[1].count("a good one") == pairs[2].count("a good one") == 1
    assert "a weak one" in pairs[2]
    for word in ("weak", "bad example", "difference", "None"):
        assert word not in pairs[1]


def test_without_an_active_candidate_the_strongest_anchor_span_is_the_good_one(world, desk_at, tmp_path):
    _, _, anchor_max, readings = world
    writer = Echo()
    desk, _ = desk_at(tmp_path, writer)
    feature = next(iter(readings))
    cut = np.full_like(anchor_max, 0.5)
    at_cut = Sample(feature, 1, 0, "a b c", "a b c", "", "", 0, g=0.5, text="a b c")
    good, bad = contrastive_pair(desk, feature, [at_cut], cut)
    assert (good.step, good.row) == (0, "")
    assert (good.text, good.span) == (readings[feature].spans[0], readings[feature].spans[0])
    assert good.g == pytest.approx(anchor_max[feature])
    assert bad == at_cut
    unread = Sample(feature, 1, 0, "", "?", "", "", 0)
    good, bad = contrastive_pair(desk, feature, [unread], cut)
    assert (good.step, bad) == (0, None)

    first = step_one(desk, list(readings), range(2))
    writer.asked.clear()
    step_two(desk, list(readings), first, np.full_like(anchor_max, np.inf))
    for request in writer.asked:
        span = readings[int(request.id.split("-")[0])].spans[0]
        assert f"good example: {span}" in request.messages[0]["content"]
