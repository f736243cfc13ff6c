"""fac.synthesis.writer: what decides a sample is in its key, a killed run continues, texts are encoded as they are."""

from dataclasses import replace

import numpy as np
import pytest
from support.writing import ENCODER, SETTINGS, BreakdownError, Echo, first_step, pair, step_one

from fac.chat import as_chat
from fac.data.schemas import PAIR
from fac.llm.base import request_seed
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.synthesis.writer import Prompt


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
