"""fac.synthesis.methods.fac: both steps on a real tiny writer and a tiny encoder, in a real folder."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from support.writing import SETTINGS, BreakdownError, Echo, pair, step_one, step_two

from fac.backbone import ModelRef
from fac.corpus_features import Tops
from fac.data.schemas import PAIR, QUERY
from fac.errors import FacError
from fac.llm.base import request_seed
from fac.llm.transformers import TransformersChat
from fac.pooled import Pooled
from fac.synthesis.contrast import contrastive_pair
from fac.synthesis.samples import UNREADABLE, load_samples, verify, written_for


class Recording(TransformersChat):
    """The real engine, which also keeps what it is asked. Its random words never end: they count as whole replies."""

    def __init__(self, ref):
        super().__init__(ref)
        self.asked = []

    def chat(self, requests, sampling):
        self.asked += requests
        return [replace(reply, finished=True) for reply in super().chat(requests, sampling)]


@pytest.fixture(scope="module")
def model(world):
    return Recording(ModelRef(str(world[0])))


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
    given, writer = synthesis_at(tmp_path / "writing", model)
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
    assert sorted((tmp_path / "writing").iterdir()) == sorted([first.folder, second.folder])
    assert load_samples(QUERY, second.folder / "samples.jsonl") == second.samples
    assert (second.folder / "replies.jsonl").read_text().count("\n") == len(second.samples)

    for sample in verify(QUERY, second.samples, given.thresholds.tolist()):
        assert sample.kept == (sample.rejected_because == "")
        assert not sample.kept or sample.is_active(0.0)


def test_an_example_of_several_chats_is_worth_its_strongest(world, synthesis_at, tmp_path):
    """Of a preference pair both conversations are measured; a reply that was cut off is measured as nothing."""
    _, extractor, _, interpretations = world
    features, model = list(interpretations), Echo(reply=pair)
    given, writer = synthesis_at(tmp_path / "writing", model, schema=PAIR)
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
    given, writer = synthesis_at(tmp_path, Echo())
    first = step_one(given, writer, features, range(2))
    second = step_two(given, writer, features, first)

    def fail():
        raise AssertionError("nothing is left to measure")

    _, again = synthesis_at(tmp_path, Echo(limit=0))
    again = replace(again, extractor=fail)
    found = step_one(given, again, features, range(2))
    assert found.samples == first.samples
    assert step_two(given, again, features, found).samples == second.samples
    higher = replace(given, thresholds=given.thresholds + np.float32(1e-9))
    assert step_two(higher, again, features, found).folder == second.folder  # the same pairs, so the same texts
    with pytest.raises(BreakdownError):  # anchor spans take their place, so there is more to write
        step_two(replace(given, thresholds=given.thresholds + np.inf), again, features, found)


def test_what_is_written_is_another_only_by_what_it_shows(world, synthesis_at, tmp_path):
    features = list(world[3])[:2]
    folders = {}
    for name, change in {
        "default": {},
        "pair": {"pair": "official"},
        "choice": {"filter": False, "ratio": 0.5, "top_up": 1},  # of features and samples: no matter of writing
    }.items():
        given, writer = synthesis_at(tmp_path, Echo(), replace(SETTINGS, **change))
        first = step_one(given, writer, features, range(2))
        folders[name] = first.folder, step_two(given, writer, features, first).folder
    assert folders["choice"] == folders["default"]
    assert folders["pair"][0] == folders["default"][0]
    assert folders["pair"][1] != folders["default"][1]
    with pytest.raises(FacError, match=r"synthesis.ratio=0 will not do"):
        replace(SETTINGS, ratio=0)
