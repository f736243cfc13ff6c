"""fac.noise: which interpretations are spoilt, how, and what that does to the missing set."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from fac.coverage import overlap, threshold_grid
from fac.errors import FacError
from fac.gap import InterpretSettings, MissingFeatures, judged_relevant
from fac.interpret import Interpretation, load_interpretations, with_analyses
from fac.noise import _spoil, spoilt
from fac.settings import SettingsError, typed

WIDTH, RELEVANT, SEEN = 700, 280, 66  # relevant features, of which the seed data know the first; 214 are missing


def interpretations() -> dict[int, Interpretation]:
    return {
        f: Interpretation(f, (f"span {f}",), f"one two three four five {f}", "Yes", "Maybe" if f < RELEVANT else "No")
        for f in range(WIDTH)
    }


def gap(told: dict[int, Interpretation]) -> MissingFeatures:
    """What is missing by these; the anchor activates all but the last 50, the seed the first ones and some others."""
    ones = np.ones((1, WIDTH), np.int64)
    anchor, seed = ones.copy(), 0 * ones
    anchor[:, -50:] = 0
    seed[:, :SEEN] = 1
    seed[:, RELEVANT : RELEVANT + 100] = 1
    maxima = np.ones(WIDTH, np.float32)
    relevant = judged_relevant(WIDTH, told, verified=True)
    return MissingFeatures(threshold_grid((0.0,), (), maxima), 0, anchor, seed, maxima, maxima.astype(float), relevant)


@pytest.mark.parametrize(("share", "jaccard"), [(0.1, 193 / 235), (0.2, 171 / 257)])  # 82.13 and 66.54 % in Table 6
def test_mislabelling_exchanges_missing_features_for_others_as_the_paper_s_indices_say(share: float, jaccard: float):
    before = gap(interpretations())
    assert before.missing().sum() == 214
    after = gap(spoilt(interpretations(), before, "mislabel", share, seed=1))
    assert after.missing().sum() == 214
    assert overlap(before.missing(), after.missing()).jaccard == pytest.approx(jaccard)


@pytest.mark.parametrize("kind", ["truncate", "mismatch"])
def test_poor_summaries_leave_the_missing_set_and_all_else_as_it_is(kind: str):
    told, before = interpretations(), gap(interpretations())
    found = spoilt(told, before, kind, 0.2, seed=1)
    changed = [f for f in told if found[f] != told[f]]
    assert len(changed) == 43
    assert all(before.missing()[changed])
    assert np.array_equal(gap(found).missing(), before.missing())
    assert all(found[f].spans == told[f].spans and found[f].relevance == told[f].relevance for f in changed)
    said = {found[f].explanation for f in changed}
    if kind == "truncate":
        assert said == {"one two three"}
    else:
        assert all(found[f].explanation != told[f].explanation for f in changed)
        assert said <= {told[f].explanation for f in np.flatnonzero(before.missing())}
    assert found == spoilt(told, before, kind, 0.2, seed=1)
    assert found != spoilt(told, before, kind, 0.2, seed=2)


def test_too_few_to_exchange_are_said():
    told = {f: said for f, said in interpretations().items() if f < RELEVANT}
    with pytest.raises(FacError, match="There are 0 irrelevant features that only the anchor activates, too few"):
        spoilt(told, gap(interpretations()), "mislabel", 0.1, seed=1)


def test_spoilt_interpretations_are_read_as_others_are_also_where_analyses_are_asked_for(tmp_path):
    (tmp_path / "told").mkdir()
    lines = [json.dumps(asdict(said)) for said in interpretations().values()]
    (tmp_path / "told/interpretations.jsonl").write_text("\n".join(lines))
    gap(interpretations()).save(tmp_path)
    (tmp_path / "out").mkdir()
    _spoil("truncate", 0.2, 1, tmp_path / "out", tmp_path / "told", tmp_path)
    found = load_interpretations(tmp_path / "out")
    assert found == spoilt(interpretations(), gap(interpretations()), "truncate", 0.2, seed=1)
    assert with_analyses(found, tmp_path / "out") == found


def test_noise_is_a_share():
    with pytest.raises(SettingsError, match="noise_share"):
        typed(InterpretSettings, {"noise_share": 1.5}, "interpret")
