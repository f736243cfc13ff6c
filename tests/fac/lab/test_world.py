"""The lab's world: what the grammar writes the ground truth reads, and nothing but the request tells harm."""

import random
import shutil
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fac.lab.world import corpora
from fac.lab.world.corpora import ROLES, Sizes, draw_corpus, known_concepts, sae_chats, world_digest
from fac.lab.world.grammar import (
    TWO_REQUESTS,
    Query,
    benign_concepts,
    concepts,
    draw_query,
    dress,
    harmful_concepts,
    names_in,
    phrases,
    zipf,
)
from fac.lab.world.truth import mentions, parse, parse_instruction, parse_item, parse_reply, subjects

SMALL = Sizes(anchor=600, safe=200, seed=100, human=100, labelled=300, validation=300, test=600, known=8)


@cache
def corpus(role, seed=1, sizes=SMALL):
    return draw_corpus(role, seed, sizes)


def parsed(role, seed=1, sizes=SMALL):
    queries = [parse(example.text) for example in corpus(role, seed, sizes)]
    assert None not in queries
    return [query for query in queries if query]


# --- the grammar and its parser ---------------------------------------------------------------------------------------


def test_the_concepts_are_those_that_the_lab_counts_on():
    assert (len(harmful_concepts()), len(benign_concepts())) == (28, 32)
    wordings = [wording for concept in concepts() for wording in concept.wordings]
    assert all(len(concept.wordings) == 5 for concept in concepts())
    assert len(set(wordings)) == len(wordings)
    assert {c.verdict for c in concepts()} == {"Yes", "Probably", "Maybe", "No"}


def test_every_wording_in_every_frame_is_read_back():
    rng = random.Random(0)
    for concept in concepts():
        for wording in concept.wordings:
            for frame in phrases().frames:
                query = dress(rng, [(concept, wording)])
                query = Query(frame, query.requests, query.opening, query.fillers, query.ending)
                assert parse(query.text) == query


@settings(deadline=None, max_examples=500)
@given(seed=st.integers(0, 2**32), pool=st.sets(st.sampled_from(concepts()), min_size=1))
def test_every_query_is_read_back_to_its_parts(seed, pool):
    query = draw_query(random.Random(seed), sorted(pool, key=lambda c: c.name))
    assert parse(query.text) == query
    assert parse("  " + query.text.replace(" ", "  ") + "\n") == query  # blanks do not matter
    assert query.harmful == any(c.verdict != "No" for c, _ in query.requests)
    assert set(query.requests) <= set(mentions(query.text))
    assert {c for c, _ in query.requests} <= pool


KNOWN = phrases()
WORDINGS = [wording for concept in concepts() for wording in concept.wordings]
PIECES = st.sampled_from(
    [*KNOWN.openings, *(f.replace(" {}", "") for f in KNOWN.frames), "and", *KNOWN.all_fillers, *KNOWN.endings, "xyz"]
)


@settings(deadline=None, max_examples=500)
@given(
    before=st.lists(PIECES, max_size=2),
    frame=st.sampled_from(KNOWN.frames),
    asked=st.lists(st.sampled_from(WORDINGS[:12]), min_size=1, max_size=3),
    after=st.lists(PIECES, max_size=4),
)
def test_only_what_the_grammar_can_write_is_read(before, frame, asked, after):
    text = " ".join([*before, frame.replace("{}", " and ".join(asked)), *after])
    query = parse(text)
    kind = {filler: kind for kind, fillers in KNOWN.fillers.items() for filler in fillers}
    fillers, endings = [p for p in after if p in kind], [p for p in after if p in KNOWN.endings]
    valid = (
        before in ([], *([o] for o in KNOWN.openings))
        and (len(asked) == 1 or (len(asked) == 2 and asked[0] != asked[1]))
        and after == fillers + endings
        and len(endings) <= 1
        and len({kind[f] for f in fillers}) == len(fillers) <= 2
    )
    assert (query is not None) == valid
    if query:
        assert query.text == text
        assert [wording for _, wording in query.requests] == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bake sourdough bread",
        "how do i",
        "how do i bake bread",
        "how do i bake sourdough bread tonight tonight",
        "how do i bake sourdough bread tonight on sunday",
        "how do i bake sourdough bread tonight at school with a friend",
        "how do i bake sourdough bread and bake sourdough bread",
        "how do i bake sourdough bread thanks tonight",
        "hi hi how do i bake sourdough bread",
        "how do i bake sourdough bread and",
        "How do i bake sourdough bread",
        "how do i bake sourdough bread how do i bake sourdough bread",
    ],
)
def test_loops_debris_and_disorder_are_no_queries(text):
    assert parse(text) is None


def test_mentions_are_found_in_any_text_by_whole_words():
    names = {concept.name for concept, _ in mentions("well, i steal a bike and bake sourdough bread today")}
    assert names == {"bike theft", "baking"}
    assert mentions("steal a biker") == []


def test_zipf_weights():
    assert zipf(4, 0.0) == pytest.approx([0.25] * 4)
    weights = zipf(28, 0.7)
    assert sum(weights) == pytest.approx(1)
    assert weights[0] / weights[9] == pytest.approx(10**0.7)


# --- the corpora ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_labels_are_the_truth(role):
    examples = corpus(role)
    assert len(examples) == getattr(SMALL, role)
    for example, query in zip(examples, parsed(role), strict=True):
        assert example.label == int(query.harmful)
    shares = {
        "anchor": 0.4,
        "labelled": 0.4,
        "safe": 0.0,
        "seed": 1.0,
        "human": 1.0,
        "validation": 0.125,
        "test": 0.125,
    }
    harmful, share = sum(int(e.label or 0) for e in examples), shares[role]
    assert stats.binomtest(harmful, len(examples), share).pvalue > 0.001


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("role", ["validation", "test"])
def test_no_held_out_text_stands_in_another_role(role, seed):
    texts = {example.text for example in corpus(role, seed)}
    for other in ROLES:
        if other != role:
            assert not texts & {example.text for example in corpus(other, seed)}


def test_only_known_concepts_are_in_the_seed_data():
    for seed in (1, 2, 3):
        known = known_concepts(seed, SMALL)
        assert len(set(known)) == SMALL.known
        assert all(concept.harmful for concept in known)
        assert {concept for query in parsed("seed", seed) for concept, _ in query.requests} <= set(known)
    everyone = {c for query in parsed("test", 1, Sizes()) for c, _ in query.requests}
    assert everyone == set(concepts())


def test_popular_concepts_are_more_often_known_and_asked_for():
    worlds = [known_concepts(seed, SMALL) for seed in range(300)]
    counts = Counter(concept for known in worlds for concept in known)
    often = [counts[concept] for concept in harmful_concepts()]
    assert sum(often[:7]) > 1.5 * sum(often[-7:])
    asked = Counter(c for query in parsed("anchor", 1, Sizes()) for c, _ in query.requests if c.harmful)
    expected = np.array(zipf(28, 0.7)) * asked.total()
    assert stats.chisquare([asked[c] for c in harmful_concepts()], expected).pvalue > 0.001
    tested = Counter(c for query in parsed("test", 1, Sizes()) for c, _ in query.requests if c.harmful)
    assert stats.chisquare([tested[c] for c in harmful_concepts()]).pvalue > 0.001


ASPECTS = {
    "two requests": lambda q: len(q.requests) == 2,
    "opening": lambda q: q.opening,
    "frame": lambda q: q.frame,
    "fillers": lambda q: len(q.fillers),
    "first filler": lambda q: q.fillers[:1],
    "ending": lambda q: q.ending,
    "words around": lambda q: min(len(q.text.split()) - sum(len(w.split()) for _, w in q.requests), 16),
}


@pytest.mark.parametrize("aspect", ASPECTS)
def test_what_stands_around_a_request_does_not_tell_harm(aspect):
    """In the anchor, whose texts are of both kinds, and between the safe and the seed training texts."""
    queries = parsed("anchor", 1, Sizes())
    training = [*parsed("safe", 1, Sizes()), *parsed("seed", 1, Sizes())]
    for group in (queries, training):
        values = sorted({ASPECTS[aspect](q) for q in group}, key=repr)
        table = np.zeros((2, len(values)))
        for query in group:
            table[int(query.harmful), values.index(ASPECTS[aspect](query))] += 1
        table = table[:, table.sum(axis=0) >= 25]
        result: Any = stats.chi2_contingency(table)
        assert result.pvalue > 0.001


@pytest.mark.parametrize("role", ROLES)
def test_two_requests_are_equally_frequent_in_every_role(role):
    queries = parsed(role, 1, Sizes())
    two = sum(len(query.requests) == 2 for query in queries)
    assert stats.binomtest(two, len(queries), TWO_REQUESTS).pvalue > 0.001


def test_length_alone_is_a_weak_cue():
    """Harmful wordings are a word longer on average, so length does tell a little: a ranking by it must stay poor."""
    queries = parsed("test", 1, Sizes())
    assert roc_auc_score([q.harmful for q in queries], [len(q.text.split()) for q in queries]) < 0.62


def test_a_world_is_decided_by_its_seed():
    assert draw_corpus("anchor", 1, SMALL) == corpus("anchor")
    assert corpus("anchor", 2) != corpus("anchor")
    assert known_concepts(1, SMALL) != known_concepts(2, SMALL)
    assert len({corpus(role)[0].text for role in ROLES}) > 1


def test_the_digest_of_a_world_is_of_all_that_tasks_draw_from_it(tmp_path, monkeypatch):
    folder = tmp_path / "world"
    shutil.copytree(Path(corpora.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = world_digest()
    monkeypatch.setattr(corpora.resources, "files", lambda _: folder)
    assert world_digest() == before
    for file in folder.iterdir():
        kept = file.read_bytes()
        file.write_bytes(kept + b"\n")
        assert (world_digest() == before) == (file.suffix == ".py"), file.name  # code has versions (test_steps)
        file.write_bytes(kept)


def test_saes_are_trained_on_chats_of_all_tasks():
    kinds: Counter[str] = Counter()
    better: Counter[bool] = Counter()
    for user, *replies in islice(sae_chats(1), 2000):
        said, reply = user["content"], " ".join(message["content"] for message in replies)
        assert [message["role"] for message in (user, *replies)] == ["user", "assistant"][: 1 + len(replies)]
        query, instruction, found = parse(said), parse_instruction(said), parse_reply(reply)
        if query and not replies:
            kinds["query"] += 1
        elif query and found:
            kinds["reply"] += 1
            better[found.side == "better"] += 1
            assert found.subjects == subjects(query)
        elif parse_item(said) and not replies:
            kinds["question"] += 1
        elif instruction and instruction.is_followed(reply):
            kinds["instruction"] += 1
    assert kinds.total() == 2000
    shares = {"query": 0.45, "reply": 0.25, "question": 0.12, "instruction": 0.18}
    assert stats.chisquare([kinds[k] for k in shares], [2000 * share for share in shares.values()]).pvalue > 0.001
    assert stats.binomtest(better[True], better.total()).pvalue > 0.001
    assert list(islice(sae_chats(1), 20)) == list(islice(sae_chats(1), 20)) != list(islice(sae_chats(2), 20))


def test_a_name_within_a_longer_one_is_not_named() -> None:
    assert names_in("here is bullying help .") == {"bullying help"}
    assert names_in("bullying and  bullying help") == {"bullying", "bullying help"}
    assert names_in("bullyings") == set()
