"""Annotations of AlpacaEval's kind: those of a file, or what a judge says of two files of outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from eval.alpaca import annotation_file, read_annotations
from eval.alpaca_annotator import annotate_weighted, annotator_identity
from eval.judging import Answers, Judged, annotate, output_file, paired_outputs
from fac.data.files import content_digest
from fac.jsonl import write_json_atomic
from fac.llm.base import ChatModel, Sampling
from fac.llm.logprobs import with_logprobs
from fac.prompts import Prompts
from fac.store import Step

ANNOTATIONS, ANSWERS = "annotations.json", "answers.json"
Instructions = Literal["alpaca_eval", "any"]  # alpaca_eval: its 805 only
By = Literal["weighted", "compare"]  # AlpacaEval's own annotator | this project's prompt and its verdict


@dataclass(frozen=True)
class Judging:
    """How outputs are compared; all but the first are of `compare`."""

    annotator: By = "weighted"  # weighted: AlpacaEval's prompt, and how likely the judge names either output
    prompts: str = "paper/instruction"  # its compare.jinja
    both_orders: bool = False  # True: ask about every pair in both orders; the preference is the mean
    temperature: float = 0.0
    max_new_tokens: PositiveInt = 512
    seed: int = 0  # of the order in which the two are shown

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens)


def annotations_step(file: Path, instructions: Instructions) -> Step:
    """The annotations of a file, or of the folder that holds it, as alpaca_eval writes them."""
    params = {"file": partial(_digest, file), "instructions": instructions}
    return Step("annotations", partial(_annotations, file, instructions), params)


def _digest(file: Path) -> str:
    return content_digest(annotation_file(file))


def _annotations(file: Path, instructions: Instructions, folder: Path) -> None:
    write_json_atomic(folder / ANNOTATIONS, read_annotations(file, alpaca_eval_only=instructions == "alpaca_eval"))


def judged_step(files: Mapping[str, Path], instructions: Instructions, how: Judging, judge: ChatModel) -> Step:
    """What the judge says of every pair of outputs, as alpaca_eval writes it, and how many answers held no verdict.

    `files` are those of "outputs" and of "reference". Raises FacError if AlpacaEval's annotator is to judge and the
    judge is no server that could tell log-probabilities.
    """
    if how.annotator == "weighted":
        return _weighted_step(files, instructions, judge)
    prompts = Prompts(how.prompts)
    params = {
        "outputs": {name: partial(_output_digest, file, name) for name, file in files.items()},
        "instructions": instructions,
        "judge": judge,
        "prompt": partial(prompts.digest, "compare"),
        "sampling": how.sampling,
        "both_orders": how.both_orders,
        "seed": how.seed,
    }
    return Step("judged", partial(_judged, files, instructions, how, judge, prompts), params, resumable=True)


def _weighted_step(files: Mapping[str, Path], instructions: Instructions, judge: ChatModel) -> Step:
    asked = with_logprobs(judge)
    params = {
        "outputs": {name: partial(_output_digest, file, name) for name, file in files.items()},
        "instructions": instructions,
        "judge": asked,
        "annotator": annotator_identity,
    }
    return Step("judged", partial(_weighted, files, instructions, asked), params, resumable=True)


def _weighted(files: Mapping[str, Path], instructions: Instructions, judge: ChatModel, folder: Path) -> None:
    only = instructions == "alpaca_eval"
    pairs = paired_outputs(files["outputs"], files["reference"], alpaca_eval_only=only)
    _write(annotate_weighted(judge, pairs, folder / "replies.jsonl"), folder)


def _write(judged: Judged, folder: Path) -> None:
    write_json_atomic(folder / ANNOTATIONS, judged.annotations)
    write_json_atomic(folder / ANSWERS, asdict(judged.answers))


def _output_digest(file: Path, name: str) -> str:
    return content_digest(output_file(file, name))


def _judged(
    files: Mapping[str, Path],
    instructions: Instructions,
    how: Judging,
    judge: ChatModel,
    prompts: Prompts,
    folder: Path,
) -> None:
    only = instructions == "alpaca_eval"
    pairs = paired_outputs(files["outputs"], files["reference"], alpaca_eval_only=only)
    judged = annotate(
        judge, pairs, prompts, seed=how.seed, log=folder / "replies.jsonl", sampling=how.sampling,
        both_orders=how.both_orders,
    )  # fmt: skip
    _write(judged, folder)


def load_answers(folder: Path) -> Answers:
    """How many answers `judged_step` got, and how many of them held no verdict."""
    return Answers(**json.loads((folder / ANSWERS).read_text("utf-8")))
