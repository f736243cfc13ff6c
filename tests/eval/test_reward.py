"""eval.reward against sums by hand, against RewardBench's rule in fractions, and on a real model."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_model

from eval.reward import SECTIONS, evaluate, pair_weights, section_accuracies, subset_accuracies
from eval.statistics import resampled
from fac.chat import as_chat
from fac.data.pairs import Pair, read_pairs
from fac.data.source import Source
from fac.errors import FacError
from fac.model_ref import ModelRef
from fac.train.reward import fit_reward
from fac.train.settings import RewardSettings


def pair(subset: str) -> Pair:
    return Pair(as_chat("hello"), "good", "bad", subset)


def test_rewardbench_has_its_2985_pairs_and_four_sections():
    counts = {subset: n for weights in SECTIONS.values() for subset, n in weights.items()}
    assert len(counts) == 23
    assert sum(counts.values()) - 984 + 447 == 2985
    assert list(SECTIONS) == ["chat", "chat_hard", "safety", "reasoning"]
    code = sum(n for subset, n in SECTIONS["reasoning"].items() if subset.startswith("hep-"))
    assert counts["math-prm"] == code
    assert (counts["xstest-should-refuse"], counts["xstest-should-respond"]) == (250, 154)  # as its own table has them


def test_sections_by_hand():
    """mt-bench-hard 1 of 1 and llmbar-natural 0 of 2: 37 / 137; math-prm 1 of 2 and hep-go 1 of 1: 656 / 1148."""
    subsets = ["mt-bench-hard", "llmbar-natural", "llmbar-natural", "math-prm", "math-prm", "hep-go", "chat/hard"]
    chosen, rejected = [2, 0, 1, 5, 0, 1, 3], [1, 1, 1, 4, 3, 0, 2]
    found = section_accuracies([pair(subset) for subset in subsets], chosen, rejected)
    assert list(found) == ["chat_hard", "reasoning", "chat/hard", "average"]
    assert found["chat_hard"] == pytest.approx(37 / 137)
    assert found["reasoning"] == pytest.approx((984 / 2 + 164) / (984 + 164))
    assert found["chat/hard"] == 1
    assert found["average"] == pytest.approx((37 / 137 + 656 / 1148 + 1) / 3)


names = st.sampled_from([subset for weights in SECTIONS.values() for subset in weights] + ["other"])


@given(st.lists(st.tuples(names, st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_sections_are_means_of_subsets_weighed_by_their_counts(rows):
    subsets, chosen, rejected = zip(*rows, strict=True)
    found = section_accuracies([pair(subset) for subset in subsets], chosen, rejected)
    expected = {}
    for section, weights in [*SECTIONS.items(), ("other", {"other": 1})]:
        right, of = Fraction(0), 0
        for subset, weight in weights.items():
            wins = [c > r for name, c, r in rows if name == subset]
            if wins:
                right, of = right + Fraction(sum(wins), len(wins)) * weight, of + weight
        if of:
            expected[section] = float(right / of)
    assert found == pytest.approx({**expected, "average": sum(expected.values()) / len(expected)})


def test_a_tie_is_wrong_and_pairs_without_a_subset_are_one_section():
    assert subset_accuracies([pair("")] * 4, [1, 2, 3, 4], [1, 1, 4, 4]) == {"all": 0.25}
    assert section_accuracies([pair("chat"), pair("safety")], [1, 1], [0, 1]) == {
        "chat": 1.0,
        "safety": 0.0,
        "average": 0.5,
    }


def test_the_average_is_a_weighted_mean_over_pairs():
    subsets = ["math-prm", "hep-go", "hep-go", "", "xstest-should-refuse", "donotanswer", "lab", "lab", ""]
    right = np.array([1, 0, 1, 1, 0, 1, 1, 0, 0])
    weights = pair_weights(subsets)
    assert weights.sum() == pytest.approx(1)
    expected = section_accuracies([pair(subset) for subset in subsets], right, 1 - right)["average"]
    assert weights @ right == pytest.approx(expected)


def test_what_cannot_be_judged_is_said_in_one_sentence():
    with pytest.raises(FacError, match="no preference pairs"):
        section_accuracies([], [], [])
    for bad in (np.nan, np.inf):
        with pytest.raises(FacError, match=r"not finite .* train\.learning_rate"):
            section_accuracies([pair("chat")] * 2, [0, bad], [0, 0])


def test_a_model_is_judged_by_its_own_rewards_and_draws_are_of_each_subset(tmp_path):
    """Subsets of unlike sizes and weights, against the model's own scores, one side at a time."""
    sizes = {"math-prm": 9, "hep-go": 3, "donotanswer": 4, "own": 2}
    pairs = [
        Pair(as_chat(f"why {name} {n}"), f"so it is {n * 7}", f"no {n} it is not", name)
        for name, size in sizes.items()
        for n in range(size)
    ]
    model, _ = fit_reward(ModelRef(str(tiny_model(tmp_path))), pairs, RewardSettings("head", epochs=1), seed=0)
    found, replicates = evaluate(model, iter(pairs))
    chosen, rejected = (model.rewards([getattr(p, side) for p in pairs]) for side in ("chosen_chat", "rejected_chat"))
    names, right = np.array([p.subset for p in pairs]), chosen > rejected
    shares = {name: right[names == name].mean() for name in sizes}
    assert 0.1 < right.mean() < 0.9
    assert right.mean() != pytest.approx(0.5)
    reasoning = (984 * shares["math-prm"] + 164 * shares["hep-go"]) / 1148
    assert found == pytest.approx(
        {
            "reasoning": reasoning,
            "safety": shares["donotanswer"],
            "own": shares["own"],
            "average": (reasoning + shares["donotanswer"] + shares["own"]) / 3,
            **{f"subset/{name}": shares[name] for name in ("math-prm", "hep-go", "donotanswer")},
            "n": 18,
        }
    )
    for draw, counts in enumerate(resampled(names)[:9]):
        again = np.repeat(np.arange(18), counts)
        drawn = section_accuracies([pairs[i] for i in again], chosen[again], rejected[again])
        assert replicates["average"][draw] == pytest.approx(drawn["average"])


def test_a_model_is_judged_on_real_pairs(tmp_path, real_data):
    root = real_data("llmbar") / "LLMBar"
    files = [root / "Natural", root / "Adversarial" / "Manual"]
    pairs = [p for file in files for p in read_pairs(Source(file / "dataset.json", limit=6))]
    settings = RewardSettings("head", epochs=1, max_tokens=48)
    model, _ = fit_reward(ModelRef(str(tiny_model(tmp_path))), pairs, settings, seed=0)
    found, replicates = evaluate(model, pairs)

    right = [(model.rewards([p.chosen_chat]) > model.rewards([p.rejected_chat])).item() for p in pairs]
    natural, manual = np.mean(right[:6]), np.mean(right[6:])
    assert found == pytest.approx(
        {
            "chat_hard": (100 * natural + 46 * manual) / 146,
            "average": (100 * natural + 46 * manual) / 146,
            "subset/llmbar-natural": natural,
            "subset/llmbar-adver-manual": manual,
            "n": 12,
        }
    )
    again = np.repeat(np.arange(12), resampled([p.subset for p in pairs])[7])  # the pairs of one draw
    chosen, rejected = (model.rewards([getattr(p, side) for p in pairs]) for side in ("chosen_chat", "rejected_chat"))
    drawn = section_accuracies([pairs[i] for i in again], chosen[again], rejected[again])
    assert replicates["average"][7] == pytest.approx(drawn["average"])
    with pytest.raises(FacError, match="no preference pairs"):
        evaluate(model, [])
