"""Instruction following by pairwise judgement: AlpacaEval 2 (paper Table 1: LC, WR, SD).

Annotations are in alpaca_eval's format, its 805 instructions known by their hashes; the alpaca_eval package (0.6.6)
turns preferences into win rates. `eval.judging` makes annotations with a judge of one's own.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fac.data.files import read_rows
from fac.data.held_out import exact_digest
from fac.data.source import Malformed, Source
from fac.errors import FacError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

REFERENCE_WINS, MODEL_WINS, DRAW = 1.0, 2.0, 1.5
OLD_DRAW = 0.0  # as AlpacaEval 1 wrote one
INSTRUCTIONS = Path(__file__).with_name("alpaca_instructions.json")  # SHA-256 of each, 12 digits, in AlpacaEval's order
TEXTS = ("instruction", "output_1", "generator_1", "output_2", "generator_2")  # 1 is the reference, 2 the model
HUB_REPOSITORY, HUB_FILE = "tatsu-lab/alpaca_eval", "df_gamed.csv"
CALIBRATION_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
FOLDS = 5  # of the cross-validation in alpaca_eval's GLM
ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"  # AlpacaEval 2's own: the only one that LC is fitted to

Annotation = dict[str, Any]  # TEXTS, "preference" from 1 (the reference wins) to 2 (the model wins), and "annotator"


@dataclass(frozen=True)
class WinRate:
    """How often a model wins against the reference, draws counting half. Percent."""

    rate: float
    standard_error: float  # of the mean preference; the column SD of the paper's Table 1
    n: int
    wins: int
    losses: int
    draws: int


@dataclass(frozen=True)
class ControlledRate:
    """AlpacaEval's LC: the win rate that a GLM predicts for outputs as long as the reference's. Percent."""

    rate: float
    standard_error: float


# Annotations


def annotation_file(path: Path) -> Path:
    """The file of annotations at `path`, which may be a folder. Raises FacError if there is none."""
    return file_in(path, "annotations", "annotations.json", "annotations that alpaca_eval wrote")


def read_annotations(path: Path, *, alpaca_eval_only: bool = True) -> list[Annotation]:
    """The annotations of one model against one reference, from .json, .jsonl or either with .gz, or a folder with one.

    Raises FacError, naming the row, unless every row has the texts and a preference from 1 to 2, none repeats an
    instruction, all are of the same two models, and (unless `alpaca_eval_only` is False) all instructions are
    AlpacaEval's.
    """
    path = annotation_file(path)
    annotations: list[Annotation] = []
    places: dict[str, str] = {}
    for row in read_rows(Source(path, name="annotations")):
        try:
            annotation = _checked(row.values)
            instruction = annotation["instruction"]
            if instruction in places:
                raise Malformed(f"the instruction was annotated before, at {places[instruction]}; keep one of the two")
            if alpaca_eval_only and exact_digest(instruction) not in _positions():
                raise Malformed(not_alpaca_eval(instruction))
            for side in ("generator_1", "generator_2"):
                if annotations and annotation[side] != annotations[0][side]:
                    raise Malformed(
                        f"{side} is {annotation[side]}, but {annotations[0][side]} in the first row; "
                        f"give one file for each model"
                    )
        except Malformed as reason:
            raise FacError(f"{row.place}: {reason}.") from None
        places[instruction] = row.place
        annotations.append(annotation)
    if not annotations:
        raise FacError(
            f"{path} holds no annotation: set experiment.annotations=FILE to annotations that alpaca_eval wrote."
        )
    return annotations


def _checked(values: dict[str, Any] | Malformed) -> Annotation:
    if isinstance(values, Malformed):
        raise values
    for name in TEXTS:
        if not isinstance(values.get(name), str):
            raise Malformed(f"there is no text {name!r}; annotations need {', '.join(TEXTS)} and preference")
    preference = values.get("preference")
    if preference is None:
        raise Malformed("there is no preference; annotate the row again, or leave it out")
    preference = DRAW if preference == OLD_DRAW and not isinstance(preference, bool) else preference
    if not isinstance(preference, int | float) or isinstance(preference, bool):
        raise Malformed(
            f"the preference {preference!r} is no number; it goes from 1 (reference wins) to 2 (model wins)"
        )
    if not REFERENCE_WINS <= preference <= MODEL_WINS:
        raise Malformed(
            f"the preference {preference} lies outside 1 (reference wins) to 2 (model wins); write a draw as 1.5"
        )
    texts = {name: values[name] for name in TEXTS}
    return {**texts, "preference": float(preference), "annotator": str(values.get("annotator") or "")}


def file_in(path: Path, name: str, usual: str, what: str) -> Path:
    """`path`, or the file `usual` in it, plain or gzipped, if it is a folder. Raises FacError if there is none."""
    if path.is_dir():
        found = next((file for file in (path / usual, path / f"{usual}.gz") if file.is_file()), None)
        if found is None:
            raise FacError(f"{path} is a folder without {usual}: set experiment.{name}=FILE to {what}.")
        return found
    if not path.is_file():
        raise FacError(f"There is no file {path}: set experiment.{name}=FILE to {what}.")
    return path


def annotators(annotations: Sequence[Annotation]) -> list[str]:
    """Who gave the preferences, by name, as the annotations say it; "" where they do not."""
    return sorted({annotation.get("annotator", "") for annotation in annotations})


def alpaca_eval_digests() -> frozenset[str]:
    """The 805 instructions, by `fac.data.held_out.exact_digest`."""
    return frozenset(_positions())


def is_in_alpaca_eval(instruction: str) -> bool:
    """Whether an instruction is one of the 805, letter by letter: nothing may be trained on those."""
    return exact_digest(instruction) in _positions()


@cache
def _positions() -> dict[str, int]:
    """Place of each instruction, by its key, in AlpacaEval's evaluation set."""
    return {key: place for place, key in enumerate(json.loads(INSTRUCTIONS.read_text()))}


def not_alpaca_eval(instruction: str) -> str:
    return (
        f"{short(instruction)} is none of AlpacaEval's 805 instructions; annotate those, or set "
        f"experiment.instructions=any"
    )


def short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


# Win rates


def win_rate(annotations: Sequence[Annotation]) -> WinRate:
    """Win rate and its standard error, by alpaca_eval's `get_winrate`: WR and SD of the paper's Table 1.

    Raises FacError if there is no annotation.
    """
    if not annotations:
        raise FacError("There is no annotation, so there is no win rate: give annotations of at least one instruction.")
    told = _alpaca_eval("winrate").get_winrate([{"preference": a["preference"]} for a in annotations])
    return WinRate(
        rate=float(told["win_rate"]),
        standard_error=float(told["standard_error"]),
        n=int(told["n_total"]),
        wins=int(told["n_wins"]),
        losses=int(told["n_wins_base"]),
        draws=int(told["n_draws"]),
    )


def length_controlled(annotations: Sequence[Annotation], calibration: Path) -> ControlledRate:
    """AlpacaEval 2's length-controlled win rate: LC of the paper's Table 1 (GLM `length_controlled_v1`).

    `calibration` is df_gamed.csv (`hub_calibration`): the difficulty of every instruction, and the annotations of
    verbose and concise versions of the reference that regularise the GLM. Equal to alpaca_eval's
    `get_length_controlled_winrate` where the rows stand in AlpacaEval's order; in any other order, or with rows left
    out, each instruction keeps its own difficulty. Raises FacError if an instruction is not AlpacaEval's, if the file
    is no calibration, or if there is nothing to tell the effect of length from.
    """
    import pandas as pd

    gamed = _read_calibration(calibration)
    difficulty = dict(zip(gamed["index"], gamed["instruction_difficulty"], strict=True))
    rows = _glm_rows(annotations)
    places = []
    for annotation in annotations:
        place = _positions().get(exact_digest(annotation["instruction"]))
        if place is None:
            told = short(annotation["instruction"])
            raise FacError(f"{told} is none of AlpacaEval's instructions: LC is defined for those only.")
        if place not in difficulty:
            raise FacError(f"{calibration} lacks the difficulty of instruction {place}: fetch {HUB_FILE} again.")
        places.append(place)
    rows["index"], rows["instruction_difficulty"] = places, [difficulty[place] for place in places]
    predicted = _predict(rows, "length_controlled_v1", pd.concat([gamed, rows]))
    return ControlledRate(100 * float(predicted.mean()), 100 * float(predicted.std(ddof=1) / len(predicted) ** 0.5))


def minimal_length_control(annotations: Sequence[Annotation]) -> float:
    """The win rate, in percent, of a GLM on the length difference alone (alpaca_eval's `length_controlled_minimal`).

    It needs no calibration and is not LC: on three published models it is 0.4, 1.7 and 13.7 points away from it. It
    has no standard error, as it predicts one number for all instructions. Raises FacError if there is nothing to tell
    the effect of length from.
    """
    rows = _glm_rows(annotations)
    return 100 * float(_predict(rows, "length_controlled_minimal", rows).mean())


def hub_calibration() -> Path:
    """df_gamed.csv from the cache of the Hugging Face hub or from the hub. Raises FacError if neither has it."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import get_session

    def fetch(cached: bool) -> Path:
        return Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE, repo_type="dataset", local_files_only=cached))

    try:
        return fetch(cached=True)
    except LocalEntryNotFoundError:
        pass
    try:  # one short question first, since hf_hub_download asks for half a minute
        get_session().head(hf_hub_url(HUB_REPOSITORY, HUB_FILE, repo_type="dataset"), timeout=5)
        return fetch(cached=False)
    except Exception as error:  # httpx's, the hub's and the system's errors have no ancestor in common
        raise FacError(
            f"LC needs {HUB_FILE} of the hub data set {HUB_REPOSITORY}, which cannot be reached "
            f"({type(error).__name__}): fetch it elsewhere and set experiment.calibration=FILE."
        ) from None


def check_calibration(path: Path) -> None:
    """Raise FacError if there is no such file."""
    if not path.is_file():
        raise FacError(f"There is no file {path}: set experiment.calibration=FILE to {HUB_FILE} of {HUB_REPOSITORY}.")


def _read_calibration(path: Path) -> pd.DataFrame:
    import pandas as pd

    check_calibration(path)
    try:
        frame: Any = pd.read_csv(path)
    except ValueError as error:  # of pandas' parser and of the encoding
        reason = " ".join(str(error).split())[:100]
        raise FacError(f"{path} is no CSV file ({reason}): set experiment.calibration=FILE to {HUB_FILE}.") from None
    missing = [name for name in CALIBRATION_COLUMNS if name not in frame]
    if missing:
        raise FacError(
            f"{path} has no column {missing[0]}: set experiment.calibration=FILE to {HUB_FILE} of the hub data set "
            f"{HUB_REPOSITORY}."
        )
    numbers = frame[list(CALIBRATION_COLUMNS[:-1])].apply(pd.to_numeric, errors="coerce")
    if numbers.drop(columns="preference").isna().any(axis=None):
        raise FacError(f"{path} has cells that are no numbers: fetch {HUB_FILE} of {HUB_REPOSITORY} again.")
    return numbers.assign(not_gamed_baseline=frame["not_gamed_baseline"].astype(bool))


def _glm_rows(annotations: Sequence[Annotation]) -> pd.DataFrame:
    """One row per annotation: preference in 0..1, standardised length difference (characters, reference - model)."""
    import pandas as pd

    lengths = pd.Series([len(a["output_1"]) - len(a["output_2"]) for a in annotations], dtype=float)
    spread = float(lengths.std())  # type: ignore[arg-type]
    if len(annotations) < FOLDS or not spread > 0:
        raise FacError(
            f"The effect of length cannot be told from {len(annotations)} annotations"
            f"{'' if len(annotations) < FOLDS else ' whose lengths all differ by the same'}: give all 805."
        )
    preference = [a["preference"] - 1 for a in annotations]
    return pd.DataFrame({"preference": preference, "std_delta_len": lengths / spread, "not_gamed_baseline": True})


def _predict(rows: pd.DataFrame, name: str, training: pd.DataFrame) -> NDArray[np.float64]:
    """Fit alpaca_eval's GLM `name` to `training`, predict the preference of `rows` (0..1) at length difference 0."""
    import sklearn

    glm = _alpaca_eval("glm_winrate")
    told = glm.GLM_INFO[name]
    weights = None
    if told["regularize_to_baseline_lambda"]:  # two gamed versions of the reference share the weight
        ours = training["not_gamed_baseline"]
        weights = ours.astype(float) + told["regularize_to_baseline_lambda"] * (~ours).astype(float) / 2
    train, test = glm.make_dmatrix_for_model(training, rows.assign(std_delta_len=0), formula=told["formula"])
    known = train["preference"].notna()
    with sklearn.config_context(), warnings.catch_warnings():  # alpaca_eval changes scikit-learn's global settings
        warnings.simplefilter("ignore")
        model = glm.fit_LogisticRegressionCV(
            train[known],
            "preference",
            is_ytrue_proba=True,
            sample_weight=None if weights is None else weights[known],
            **told["kwargs"],
        )
        return model.predict_proba(test)[:, 1]


def _alpaca_eval(module: str) -> Any:
    """A module of alpaca_eval.metrics. Raises FacError if the package is not there."""
    return package(f"metrics.{module}")


def package(module: str) -> Any:
    """A module of alpaca_eval, which sets the log level of the whole process when it comes. Raises FacError if it is
    not there."""
    import importlib

    level = logging.root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(f"alpaca_eval.{module}")
    except ModuleNotFoundError as error:
        raise FacError(
            f"The package {error.name} is missing: run `pip install alpaca_eval==0.6.6 'setuptools<81'`."
        ) from None
    finally:
        logging.root.setLevel(level)
