"""fac.synthesis.writer: samples are found again by their prompts, a killed run continues, texts are encoded as such."""

from dataclasses import replace

import numpy as np
import pytest
from support.writing import SETTINGS, BreakdownError, Echo, first_step, pair, step_one

from fac.chat import as_chat
from fac.data.schemas import PAIR
from fac.llm.base import Sampling, request_seed
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.synthesis.samples import REFUSAL, UNREADABLE
from fac.synthesis.writer import Prompt, Spent


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


# Requests that are no samples


def votes(count, about="a", role="judge"):
    return [Prompt(role, {"summary": about}, None, n) for n in range(count)]


def test_further_requests_are_kept_and_continue_where_they_stopped(world, synthesis_at, tmp_path):
    unbroken, resumed = Echo(), Echo()
    _, writer = synthesis_at(tmp_path / "whole", unbroken)
    expected = writer.ask("voting", votes(150))
    _, broken = synthesis_at(tmp_path / "broken", Echo(limit=2))  # batches of 64
    with pytest.raises(BreakdownError):
        broken.ask("voting", votes(150))
    _, again = synthesis_at(tmp_path / "broken", resumed)
    assert again.ask("voting", votes(150)) == expected
    assert [r.id for r in resumed.asked] == [r.id for r in unbroken.asked[128:]]
    _, idle = synthesis_at(tmp_path / "broken", Echo(limit=0))
    assert idle.ask("again", votes(150)) == expected
    assert idle.spent() == again.spent() == writer.spent() == Spent(150, 150, 150, 0)
    assert writer.ask("nothing", []) == []


def test_what_decides_a_reply_decides_whether_it_is_asked_for_again(world, synthesis_at, tmp_path):
    """Prompt, attempt, role, turn, sampling and the run's seed; and each role draws its own."""
    model = Echo()
    _, writer = synthesis_at(tmp_path, model)
    (first,) = writer.ask("voting", votes(1))
    assert (first.seed, first.asked) == (request_seed(SETTINGS.seed, "judge", None, 1, 0), votes(1)[0])
    for change in (
        lambda: writer.ask("voting", votes(1, about="b")),
        lambda: writer.ask("voting", votes(2)[1:]),
        lambda: writer.ask("voting", [Prompt("evolve", {"text": "a"}, None, 0)]),
        lambda: writer.ask("voting", [replace(votes(1)[0], opens="bare user")]),
        lambda: writer.ask("voting", votes(1), Sampling(temperature=0.0)),
        lambda: replace(writer, seed=43).ask("voting", votes(1)),
    ):
        before = len(model.asked)
        change()
        assert len(model.asked) == before + 1
        change()
        assert len(model.asked) == before + 1
    assert [r.opens for r in model.asked].count("bare user") == 1
    with pytest.raises(ValueError, match="two prompts have the same role"):
        writer.ask("voting", [*votes(1), *votes(1)])


def test_what_was_spent_counts_samples_and_refusals_too(world, synthesis_at, tmp_path):
    _, writer = synthesis_at(tmp_path, Echo(reply=lambda seed: "I cannot help with that." if seed % 2 else "yes"))
    replies = writer.ask("voting", votes(20))
    writer.write("imitating", [Prompt("write", {"summary": "s", "spans": []}, None, n) for n in range(5)])
    refused = sum(reply.refused for reply in replies)
    assert 0 < refused < 20
    assert writer.spent() == Spent(25, 25, 25, refused)


def test_a_reply_can_be_made_a_sample_that_says_where_it_came_from(world, synthesis_at, tmp_path):
    said = iter(["how do i bake bread", "I cannot help with that.", ""])
    _, writer = synthesis_at(tmp_path, Echo(reply=lambda _: next(said)))
    replies = writer.ask("imitating", votes(3))
    samples = [writer.sample(reply) for reply in replies]
    assert [s.rejected_because for s in samples] == ["", REFUSAL, UNREADABLE]
    assert [s.text for s in samples] == ["how do i bake bread", "", ""]
    assert [(s.feature, s.activation, s.attempt, s.chats) for s in samples] == [(None, None, n, 1) for n in range(3)]
    assert [(s.prompt, s.seed, s.reply) for s in samples] == [(r.prompt, r.seed, r.text) for r in replies]


def test_a_users_turn_opens_behind_a_system_turn_only_if_the_template_says_something(world, synthesis_at, tmp_path):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "open.jinja").write_text("{# nothing #}{{ about }}")
    model = Echo()
    _, writer = synthesis_at(tmp_path / "writing", model)
    own = replace(writer, prompts=Prompts(tmp_path / "prompts"))
    own.ask("as a user", [Prompt("open", {"about": about}, None, n, opens="user") for n, about in enumerate(["", "x"])])
    assert [r.messages for r in model.asked] == [[], [{"role": "system", "content": "x"}]]
