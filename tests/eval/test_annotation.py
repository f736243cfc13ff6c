"""eval.annotation: which features are drawn, what a rater's file must hold, and how agreement is counted."""

import csv
import io

import pytest
from sklearn.metrics import cohen_kappa_score

from eval.annotation import Item, agreement, drawn, read_ratings, sheet_csv
from fac.errors import FacError
from fac.interpret import Interpretation

TOLD = {
    f: Interpretation(f, (f"span {f}", "other"), f"about {f}", "", ("Yes", "Maybe", "No", "", "Probably")[f % 5])
    for f in range(50)
}
ITEMS = [
    Item("toxicity", 7, 'says "=1+1", twice', ("a, b\nc", "d"), "Yes"),
    Item("reward", 7, "thanks", ("thank you",), "No"),
]
HEAD = "task,feature,label\n"


def test_a_draw_is_of_features_with_a_verdict_and_is_the_same_again():
    relevant, judged = (drawn("toxicity", TOLD, 12, of, seed=1) for of in ("relevant", "judged"))
    assert {item.verdict for item in relevant} <= {"Yes", "Maybe", "Probably"}
    assert "No" in {item.verdict for item in judged}
    assert "" not in {item.verdict for item in judged}
    assert relevant == drawn("toxicity", dict(reversed(TOLD.items())), 12, "relevant", seed=1)
    places = {item.place for item in relevant}
    assert len(places) == 12
    assert places != {item.place for item in drawn("toxicity", TOLD, 12, "relevant", seed=2)}
    assert [i.feature for i in relevant] != [i.feature for i in drawn("reward", TOLD, 12, "relevant", seed=1)]
    assert len(drawn("toxicity", TOLD, 200, "judged", seed=1)) == 40


def test_a_sheet_keeps_the_verdict_from_the_rater_and_is_read_back_when_it_is_filled_in(tmp_path):
    rows = list(csv.DictReader(io.StringIO(sheet_csv(ITEMS))))
    assert [row["spans"] for row in rows] == ["a, b\nc\nd", "thank you"]
    assert not any("Yes" in row.values() for row in rows)
    file = tmp_path / "anna.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": label} for row, label in zip(rows, (" Relevant", "unclear"), strict=True))
    assert read_ratings(file, ITEMS) == {("toxicity", 7): "relevant", ("reward", 7): "unclear"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "toxicity,7,relevant\nreward,7,maybe\n",
            "anna.csv, line 3: the label 'maybe' is none of relevant, irrelevant",
        ),
        ("toxicity,7,relevant\nreward,7,\n", "anna.csv, line 3: there is no label; a rated sheet has"),
        ("toxicity,8,relevant\n", "anna.csv, line 2: feature 8 of toxicity is not on this sheet"),
        ("toxicity,7,relevant\ntoxicity,7,unclear\n", "anna.csv, line 3: feature 7 of toxicity was rated before"),
        ("toxicity,x,relevant\n", "anna.csv, line 2: the feature 'x' is no number"),
        ("toxicity,7,relevant\n", "anna.csv rates 1 of 2 features; rate also reward 7."),
    ],
)
def test_what_a_rater_left_out_or_wrote_wrongly_is_named(rows, said, tmp_path):
    file = tmp_path / "anna.csv"
    file.write_text(HEAD + rows)
    with pytest.raises(FacError) as failure:
        read_ratings(file, ITEMS)
    assert said in str(failure.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FacError, match=r"experiment.raters names .*ben.csv, which is no CSV file"):
        read_ratings(tmp_path / "ben.csv", ITEMS)


def test_a_share_counts_only_where_both_agree_and_the_rest_is_unclear():
    first = ["relevant"] * 6 + ["irrelevant"] * 2 + ["unclear", "relevant"]
    second = ["relevant"] * 6 + ["irrelevant", "relevant"] + ["unclear", "unclear"]
    found = agreement(first, second)
    assert (found.n, found.relevant, found.irrelevant) == (10, 0.6, 0.1)
    assert found.unclear == pytest.approx(0.3)
    assert found.differing == pytest.approx(0.2)
    assert found.kappa is not None
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    assert found.kappa_interval is not None
    assert found.kappa_interval.low < found.kappa < found.kappa_interval.high < 1.0001


def test_raters_who_never_differ_agree_wholly_and_one_label_alone_has_no_kappa():
    assert agreement(["relevant", "unclear"] * 9, ["relevant", "unclear"] * 9).kappa == pytest.approx(1)
    alike = agreement(["relevant"] * 9, ["relevant"] * 9)
    assert (alike.relevant, alike.kappa, alike.kappa_interval) == (1, None, None)
