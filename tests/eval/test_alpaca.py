"""eval.alpaca against the published leaderboard, and alpaca_eval itself."""

import csv
import gzip
import json
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from alpaca_eval.metrics import get_winrate

from eval import alpaca
from eval.alpaca import (
    HUB_FILE,
    annotators,
    hub_calibration,
    length_controlled,
    minimal_length_control,
    read_annotations,
    win_rate,
)
from fac.data.held_out import exact_digest
from fac.errors import FacError

MODELS = ("alpaca-7b", "NullModel", "FuseChat-Llama-3.1-8B-Instruct")


def row(instruction="Say hi", preference=1.25, **other):
    texts = {"output_1": "Hello there", "generator_1": "ref", "output_2": "hi", "generator_2": "mine"}
    return {"instruction": instruction, **texts, "preference": preference, **other}


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture
def published(real_data):
    """`published(model)`: the annotations of a model, and its line of the leaderboard."""
    folder = real_data("alpaca_eval")
    with (folder / "leaderboard.csv").open() as stream:
        board = {line[""]: line for line in csv.DictReader(stream)}
    return lambda model: (read_annotations(folder / "annotations" / f"{model}.json.gz"), board[model])


# Win rates


@pytest.mark.parametrize("model", MODELS)
def test_the_published_leaderboard(published, model):
    annotations, line = published(model)
    rate = win_rate(annotations)
    assert rate.rate == pytest.approx(float(line["win_rate"]), abs=5e-4)
    assert rate.standard_error == pytest.approx(float(line["standard_error"]), abs=5e-4)
    assert (rate.wins, rate.losses, rate.draws, rate.n) == tuple(
        int(line[key]) for key in ("n_wins", "n_wins_base", "n_draws", "n_total")
    )


def test_a_win_rate_by_hand():
    rate = win_rate([row(preference=p) for p in (1, 2, 2, 1.5)])
    assert rate.rate == 62.5
    assert rate.standard_error == pytest.approx(100 * np.std([0, 1, 1, 0.5], ddof=1) / 2)
    assert (rate.wins, rate.losses, rate.draws, rate.n) == (2, 1, 1, 4)
    with pytest.raises(FacError, match="There is no annotation"):
        win_rate([])


# Length control


@pytest.fixture
def calibration(tmp_path):
    """A file of df_gamed.csv's form: two gamed versions of the reference on all 805 instructions."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=805)
    frames = [
        pd.DataFrame(
            {
                "model": model,
                "index": np.arange(805),
                "preference": rng.uniform(0.3, 0.7, size=805),
                "std_delta_len": rng.normal(shift, 1, size=805),
                "instruction_difficulty": difficulty,
                "not_gamed_baseline": False,
            }
        )
        for model, shift in (("gpt4_1106_preview_verbose", -1), ("gpt4_1106_preview_concise", 1))
    ]
    pd.concat(frames).to_csv(tmp_path / HUB_FILE, index=False)
    return tmp_path / HUB_FILE


@pytest.mark.parametrize("model", MODELS)
def test_length_control_is_alpaca_evals_own(published, calibration, model):
    from alpaca_eval.metrics import glm_winrate

    annotations, _ = published(model)
    with patch.object(glm_winrate, "hf_hub_download", lambda **_: str(calibration)):
        full, minimal = (
            glm_winrate.get_length_controlled_winrate(annotations, glm_name=name, save_weights_dir=None)
            for name in ("length_controlled_v1", "length_controlled_minimal")
        )
    ours = length_controlled(annotations, calibration)
    assert ours.rate == pytest.approx(full["length_controlled_winrate"], abs=1e-9)
    assert ours.standard_error == pytest.approx(full["lc_standard_error"], abs=1e-9)
    assert minimal_length_control(annotations) == pytest.approx(minimal["length_controlled_winrate"], abs=1e-9)


def test_an_instruction_keeps_its_difficulty_wherever_it_stands(published, calibration):
    """alpaca_eval goes by the row; published files are in its order, others need not be."""
    from alpaca_eval.metrics import glm_winrate

    annotations, _ = published("FuseChat-Llama-3.1-8B-Instruct")
    frame = pd.read_csv(calibration)
    frame["instruction_difficulty"] = np.tile([4 * a["preference"] - 6 for a in annotations], 2)
    frame.to_csv(calibration, index=False)
    here, there = (length_controlled(rows, calibration) for rows in (annotations, annotations[::-1]))
    assert there.rate == pytest.approx(here.rate, abs=0.1)  # the folds of its cross-validation differ
    assert there.standard_error == pytest.approx(here.standard_error, rel=0.02)
    with patch.object(glm_winrate, "hf_hub_download", lambda **_: str(calibration)):
        by_row = glm_winrate.get_length_controlled_winrate(annotations[::-1], save_weights_dir=None)
    assert by_row["lc_standard_error"] < 0.5 * here.standard_error


def test_minimal_length_control_is_the_logistic_regression(published):
    """Against Newton's method on the two coefficients, unpenalised."""
    annotations, line = published("NullModel")
    lengths = np.array([len(a["output_1"]) - len(a["output_2"]) for a in annotations], dtype=float)
    x = np.stack([np.tanh(lengths / lengths.std(ddof=1)), np.ones(len(lengths))], axis=1)
    y = np.array([a["preference"] for a in annotations]) - 1
    weights = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ weights))
        weights += np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]), x.T @ (y - p))
    minimal = minimal_length_control(annotations)
    assert minimal == pytest.approx(100 / (1 + np.exp(-weights[1])), abs=0.5)
    assert abs(minimal - float(line["length_controlled_winrate"])) > 1  # why it is never called LC


def test_scikit_learns_settings_are_left_alone(published):
    import sklearn

    before = sklearn.get_config()
    minimal_length_control(published("alpaca-7b")[0])
    assert sklearn.get_config() == before


def test_what_length_control_cannot_do_is_said(published, calibration, tmp_path):
    annotations, _ = published("alpaca-7b")
    with pytest.raises(FacError, match="cannot be told from 4 annotations: give all 805"):
        minimal_length_control(annotations[:4])
    alike = [row(str(n)) for n in range(9)]
    with pytest.raises(FacError, match="whose lengths all differ by the same"):
        minimal_length_control(alike)
    for n, annotation in enumerate(alike):
        annotation["output_2"] *= n + 1
    with pytest.raises(FacError, match="'0' is none of AlpacaEval's instructions"):
        length_controlled(alike, calibration)
    with pytest.raises(FacError, match="There is no file .*nowhere.csv: set experiment.calibration=FILE"):
        length_controlled(annotations, tmp_path / "nowhere.csv")
    frame = pd.read_csv(calibration)
    frame[frame["index"] != 3].to_csv(tmp_path / "short.csv")
    with pytest.raises(FacError, match="short.csv lacks the difficulty of instruction 3"):
        length_controlled(annotations, tmp_path / "short.csv")
    frame.assign(instruction_difficulty="hard").to_csv(tmp_path / "words.csv")
    with pytest.raises(FacError, match="words.csv has cells that are no numbers"):
        length_controlled(annotations, tmp_path / "words.csv")
    frame.drop(columns="std_delta_len").to_csv(tmp_path / "wrong.csv")
    with pytest.raises(FacError, match="wrong.csv has no column std_delta_len: set experiment.calibration=FILE to df"):
        length_controlled(annotations, tmp_path / "wrong.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FacError, match="binary.csv is no CSV file"):
        length_controlled(annotations, tmp_path / "binary.csv")


def test_an_unreachable_hub_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FacError, match="LC needs df_gamed.csv .* cannot be .*experiment.calibration=FILE.$") as said:
        hub_calibration()
    assert "\n" not in str(said.value)


# Annotations


def test_the_instructions_are_those_of_the_evaluation_set(real_data):
    reference = json.loads((real_data("alpaca_eval") / "model_outputs" / "gpt4_1106_preview.json").read_text())
    assert [alpaca._positions()[exact_digest(r["instruction"])] for r in reference] == list(range(805))
    assert len(alpaca._positions()) == 805


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"preference": None}, "there is no preference; annotate the row again, or leave it out"),
        ({"preference": 0.5}, "the preference 0.5 lies outside 1 .* to 2 .*write a draw as 1.5"),
        ({"preference": 2.5}, "the preference 2.5 lies outside"),
        ({"preference": "M"}, "the preference 'M' is no number"),
        ({"preference": True}, "the preference True is no number"),
        ({"output_2": None}, "there is no text 'output_2'"),
        ({"generator_1": "other"}, "generator_1 is other, but ref in the first row; give one file for each model"),
        ({"generator_2": "other"}, "generator_2 is other, but mine in the first row"),
        ({"instruction": "first"}, "the instruction was annotated before, at .*row 1; keep one of the two"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, change, reason):
    path = write(tmp_path / "a.json", [row("first"), {**row("second"), **change}])
    with pytest.raises(FacError, match=rf"a.json, row 2: {reason}.*\.$") as said:
        read_annotations(path, alpaca_eval_only=False)
    assert "\n" not in str(said.value)


def test_other_instructions_are_refused_unless_wanted(tmp_path):
    path = write(tmp_path / "a.json", [row("Say hi in " + "very " * 40 + "few words")])
    with pytest.raises(FacError, match="row 1: 'Say hi in very .*…' is none of AlpacaEval's 805 instructions.*=any"):
        read_annotations(path)
    assert len(read_annotations(path, alpaca_eval_only=False)) == 1


def test_files_that_are_none_are_said(tmp_path):
    with pytest.raises(FacError, match="There is no file .*nowhere.json: set experiment.annotations=FILE"):
        read_annotations(tmp_path / "nowhere.json")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(FacError, match="text.json is not valid JSON"):
        read_annotations(tmp_path / "text.json")
    with pytest.raises(FacError, match="empty.json holds no annotation"):
        read_annotations(write(tmp_path / "empty.json", []))
    with pytest.raises(FacError, match="row 1: the row is not a JSON object"):
        read_annotations(write(tmp_path / "numbers.json", [1]))
    cut = gzip.compress(json.dumps([row()] * 50).encode())[:-12]
    (tmp_path / "cut.json.gz").write_bytes(cut)
    with pytest.raises(FacError, match=r"cut.json.gz is not a whole gzip file"):
        read_annotations(tmp_path / "cut.json.gz", alpaca_eval_only=False)


def test_a_draw_of_alpaca_eval_1_is_a_draw(tmp_path):
    rows = [
        row(f"task {n}", preference, annotator="alpaca_eval_gpt4") for n, preference in enumerate((0.0, 0, 1, 2, 1.5))
    ]
    read = read_annotations(write(tmp_path / "old.json", rows), alpaca_eval_only=False)
    assert [a["preference"] for a in read] == [1.5, 1.5, 1.0, 2.0, 1.5]
    package = get_winrate([{"preference": r["preference"]} for r in rows])
    assert (win_rate(read).rate, win_rate(read).draws) == (package["win_rate"], package["n_draws"])
    assert annotators(read) == ["alpaca_eval_gpt4"]
    assert annotators([*read, row()]) == ["", "alpaca_eval_gpt4"]


def test_a_folder_stands_for_the_annotations_in_it(tmp_path):
    with pytest.raises(FacError, match=r"is a folder without annotations.json: set experiment.annotations=FILE"):
        read_annotations(tmp_path)
    packed = gzip.compress(json.dumps([row()]).encode())
    (tmp_path / "annotations.json.gz").write_bytes(packed)
    assert read_annotations(tmp_path, alpaca_eval_only=False)[0]["preference"] == 1.25
