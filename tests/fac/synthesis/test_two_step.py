"""fac.synthesis.two_step on a tiny writer and a tiny encoder, through a real store."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.encoders import LAYER, sentences, train_sae
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat
from fac.features import Extractor, FeatureSettings, Tops
from fac.interpret import Reading
from fac.llm.base import Completion, request_seed
from fac.llm.transformers import TransformersChat
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.sae import SaeRef, load
from fac.store import Artifact, Store
from fac.synthesis.samples import Sample, load_samples, parse_query
from fac.synthesis.two_step import Desk, Settings, contrastive_pair, keep, step_one, step_two

SETTINGS = Settings(n=3, m=2, max_new_tokens=20)


class Recording(TransformersChat):
    """The real engine, which also keeps what it is asked."""

    def __init__(self, ref):
        super().__init__(ref)
        self.asked = []

    def chat(self, requests, sampling):
        self.asked += requests
        return super().chat(requests, sampling)


class BreakdownError(Exception):
    """What a broken engine raises."""


class Echo:
    """An engine behind a wire that writes a sentence by the request's seed; it breaks down after `limit` batches."""

    identity = "echo"

    def __init__(self, limit=10**9):
        self.limit, self.asked = limit, []

    def chat(self, requests, sampling):
        if not self.limit:
            raise BreakdownError
        self.limit -= 1
        self.asked += requests
        return [Completion(random.Random(r.seed).choice(ANCHOR), 1, 1, True) for r in requests]


ANCHOR = sentences(60, seed=5)
ENCODER = {"sae": "the one below", "rule": "paper"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Model folder, extractor, anchor maxima, readings of six features."""
    root = tmp_path_factory.mktemp("world")
    model = tiny_model(root / "model", "llama")
    backbone = Backbone(ModelRef(str(model)), LAYER)
    settings = FeatureSettings(max_tokens=48)
    extractor = Extractor(backbone, load(SaeRef(str(train_sae(model, root / "sae"))), backbone), settings)
    extractor.extract([as_chat(text) for text in ANCHOR], root)
    tops, anchor_max = Tops.load(root), Pooled.load(root).maxima()
    readings = {}
    for feature in np.argsort(-(tops.texts >= 0).sum(axis=1), kind="stable")[:6].tolist():
        places = zip(tops.texts[feature].tolist(), tops.tokens[feature].tolist(), strict=True)
        spans = tuple(extractor.span(as_chat(ANCHOR[text]), token, 8).text for text, token in places if text >= 0)
        readings[feature] = Reading(feature, spans, f"things like {spans[0]}", "Yes", "Yes")
    return model, extractor, anchor_max, readings


@pytest.fixture
def desk_at(world):
    """desk_at(folder, writer): a desk on a store in that folder, whose events are in `events`."""
    _, extractor, anchor_max, readings = world

    def at(folder, writer, settings=SETTINGS):
        events: list[str] = []
        store = Store(folder, lambda event: events.append(event.kind))
        source = Artifact("interpret", "0" * 20, folder)
        prompts = Prompts("lab/toxicity")
        desk = Desk(store, writer, prompts, readings, source, lambda: extractor, ENCODER, anchor_max, settings)
        return desk, events

    return at


@pytest.fixture(scope="module")
def writer(world):
    return Recording(ModelRef(str(world[0])))


def check_provenance(desk, written, step, role, extractor, folder):
    """Every sample says where it came from, and its g, share and span are those of its text measured alone."""
    settings = desk.settings
    for row, sample in enumerate(written.samples):
        assert sample.step == step
        assert sample.prompt == desk.prompts.digest(role)
        assert sample.model == desk.writer.identity
        assert sample.seed == request_seed(settings.seed, sample.feature, step, sample.attempt)
        assert sample.reply
        assert sample.text == parse_query(sample.reply)
        np.testing.assert_array_equal(written.pooled.row(row)[sample.feature], np.float32(sample.g))
        assert sample.share == pytest.approx(sample.g / desk.anchor_max[sample.feature])
        if not sample.text:
            assert (sample.g, sample.span) == (0.0, "")
            continue
        extractor.extract([as_chat(sample.text)], folder)
        assert sample.g == pytest.approx(Pooled.load(folder).row(0)[sample.feature], abs=1e-4)
        if sample.g > 0:
            place = list(Tops.load(folder).texts[sample.feature]).index(0)
            token = int(Tops.load(folder).tokens[sample.feature, place])
            assert sample.span == extractor.span(as_chat(sample.text), token, settings.span_tokens).text != ""
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
        assert f"bad example: {bad.text}" in prompt
    assert events == ["started", "built"] * 2
    assert load_samples(second.artifact.path / "samples.jsonl") == second.samples
    assert (second.artifact.path / "replies.jsonl").read_text().count("\n") == len(second.samples)

    for sample in keep(second, cut):
        assert sample.kept == (sample.why == "")
        assert not sample.kept or sample.g > 0


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
    assert len({step_one(d, features, range(2)).artifact for d in (desk, other, elsewhere)}) == 3


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

    def candidate(attempt, g, text="a b c", of=feature):
        return Sample(of, 1, attempt, text, text, "", "", 0, g=g)

    samples = [candidate(0, 0.7), candidate(1, 2.0), candidate(2, 0.1), candidate(3, 2.0)]
    noise = [candidate(4, 0.0, text=""), candidate(5, 9.0, of=other), candidate(6, -1.0, of=other)]
    assert contrastive_pair(desk, feature, samples + noise, cut) == (samples[1], samples[2])
    assert contrastive_pair(desk, feature, (samples + noise)[::-1], cut) == (samples[1], samples[2])


def test_without_an_active_candidate_the_strongest_anchor_span_is_the_good_one(world, desk_at, tmp_path):
    _, _, anchor_max, readings = world
    writer = Echo()
    desk, _ = desk_at(tmp_path, writer)
    feature = next(iter(readings))
    cut = np.full_like(anchor_max, 0.5)
    at_cut = Sample(feature, 1, 0, "a b c", "a b c", "", "", 0, g=0.5)
    good, bad = contrastive_pair(desk, feature, [at_cut], cut)
    assert (good.step, good.text, good.span) == (0, readings[feature].spans[0], readings[feature].spans[0])
    assert good.g == pytest.approx(anchor_max[feature])
    assert bad == at_cut
    unread = Sample(feature, 1, 0, "", "?", "", "", 0)
    good, bad = contrastive_pair(desk, feature, [unread], cut)
    assert good == bad
    assert good.step == 0

    first = step_one(desk, list(readings), range(2))
    writer.asked.clear()
    step_two(desk, list(readings), first, np.full_like(anchor_max, np.inf))
    for request in writer.asked:
        span = readings[int(request.id.split("-")[0])].spans[0]
        assert f"good example: {span}" in request.messages[0]["content"]
