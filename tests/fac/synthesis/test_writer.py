"""fac.synthesis.writer: samples are found again by their prompts, a killed run continues, texts are encoded as such."""

from dataclasses import replace

import numpy as np
import pytest
from support.writing import SETTINGS, BreakdownError, Echo, first_step, pair, step_one

from fac.chat import as_chat
from fac.data.schemas import PAIR
from fac.llm.base import request_seed
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.synthesis.writer import Prompt


def test_whatever_a_prompt_says_decides_which_samples_are_found_again(world, synthesis_at, tmp_path):
    """A value that a method puts into a prompt, and the template that shows it: neither can be forgotten."""
    (tmp_path / "prompts").mkdir()
    template = tmp_path / "prompts" / "own.jinja"
    template.write_text("like {{ texts }}")
    _, writer = synthesis_at(tmp_path / "writing", Echo())

    def place(texts, attempts=range(2)):
        own = replace(writer, prompts=Prompts(tmp_path / "prompts"))
        return own.write("imitating", [Prompt("own", {"texts": texts}, None, n) for n in attempts]).folder

    places = [place("a"), place("b"), place("a", range(2, 4)), place("a", range(3))]
    other = replace(writer, seed=43).write("imitating", [Prompt("write", {"summary": "a", "spans": []}, 1, 0)]).folder
    same = writer.write("imitating", [Prompt("write", {"summary": "a", "spans": []}, 1, 0)]).folder
    assert other != same
    template.write_text("more like {{ texts }}")
    assert len({*places, place("a")}) == 5
    template.write_text("{# a comment #}like {{ texts }}")
    assert place("a") == places[0]


def test_what_is_written_for_no_feature_has_its_texts_encoded_and_no_activation_of_one(world, synthesis_at, tmp_path):
    _, extractor, _, _ = world
    given, writer = synthesis_at(tmp_path / "writing", Echo(reply=pair), schema=PAIR)
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


def test_a_broken_run_continues_where_it_stopped(world, synthesis_at, tmp_path):
    features, attempts = list(world[3]), range(25)  # 150 requests, asked in batches of 64
    unbroken, resumed = Echo(), Echo()
    expected = first_step(synthesis_at(tmp_path / "whole", unbroken), features, attempts)
    assert len(unbroken.asked) == 150
    given, writer = synthesis_at(tmp_path / "broken", Echo(limit=2))
    with pytest.raises(BreakdownError):
        step_one(given, writer, features, attempts)
    assert not list((tmp_path / "broken").glob("*/samples.jsonl"))
    given, writer = synthesis_at(tmp_path / "broken", resumed)
    written = step_one(given, writer, features, attempts)
    assert [r.id for r in resumed.asked] == [r.id for r in unbroken.asked[128:]]
    assert written.samples == expected.samples
    assert written.folder.name == expected.folder.name


def test_a_query_may_be_measured_with_its_label(world, synthesis_at, tmp_path):
    _, extractor, _, interpretations = world
    features = list(interpretations)[:3]
    written = {
        on: first_step(synthesis_at(tmp_path / str(on), Echo(), replace(SETTINGS, label_scored=on)), features, range(4))
        for on in (False, True)
    }
    assert [s.example for s in written[True].samples] == [s.example for s in written[False].samples]
    for row, sample in enumerate(written[True].samples):
        assert sample.text == sample.example.text  # the label is not shown
        extractor.extract([as_chat(f"{sample.text}\t1")], tmp_path)
        np.testing.assert_allclose(written[True].pooled.row(row), Pooled.load(tmp_path).row(0), atol=1e-4)
