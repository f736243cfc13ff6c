"""fac.synthesis.novelty: beside rouge-score itself, and what its shortcut leaves out."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from fac.synthesis.novelty import Novelty

WORDS = "how can i bake a good bread or steal the show at karaoke tonight".split()


@pytest.mark.parametrize("limit", [0.5, 0.7])
def test_a_text_is_new_iff_its_rouge_l_to_every_other_is_at_most_the_limit(limit):
    rng, scorer = random.Random(0), RougeScorer(["rougeL"])
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(60)]
    novelty, held, found = Novelty(limit, texts[:10]), texts[:10], set()
    for text in texts[10:]:
        expected = max(scorer.score(other, text)["rougeL"].fmeasure for other in held) <= limit
        assert novelty.is_new(text) == expected
        found.add(expected)
        if expected:
            novelty.add(text)
            held.append(text)
    assert found == {True, False}


def test_case_and_punctuation_make_no_text_new():
    assert not Novelty(0.7, ["How do I bake bread?"]).is_new("how do i, bake bread")


def test_a_limit_of_one_lets_everything_pass():
    assert Novelty(1.0, ["how do i bake bread"]).is_new("how do i bake bread")
