"""A judge of two outputs: what models answered, paired, compared by an LLM and written as alpaca_eval's annotations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.alpaca import (
    DRAW,
    MODEL_WINS,
    REFERENCE_WINS,
    TEXTS,
    Annotation,
    file_in,
    is_in_alpaca_eval,
    not_alpaca_eval,
    short,
)
from fac.chat import as_chat
from fac.data.files import read_rows
from fac.data.source import Malformed, Source
from fac.errors import FacError
from fac.llm.base import ChatModel, Completion, Request, Sampling, ask, request_seed
from fac.prompts import Prompts

JUDGING = Sampling(temperature=0.0, max_new_tokens=512)
_VERDICT = re.compile(r"\[\[\s*(first|second|tie)\s*\]\]", re.IGNORECASE)


def paired_outputs(outputs: Path, reference: Path, *, alpaca_eval_only: bool = True) -> list[dict[str, str]]:
    """A model's outputs beside the reference's (TEXTS), in the order of `outputs`, for `annotate`.

    Both are files as alpaca_eval keeps them: rows with instruction, output and generator. Raises FacError, naming the
    row, for a text that is missing, an instruction that comes twice or that the reference lacks, and (unless
    `alpaca_eval_only` is False) one that is not AlpacaEval's.
    """
    ours, theirs = _read_outputs(outputs, "outputs", alpaca_eval_only), _read_outputs(reference, "reference", False)
    lacking = next((instruction for instruction in ours if instruction not in theirs), None)
    if lacking is not None:
        raise FacError(f"{reference} has no output for {short(lacking)}: give a reference that answers all of them.")
    return [
        {"instruction": instruction, "output_1": theirs[instruction]["output"], "output_2": row["output"],
         "generator_1": theirs[instruction]["generator"], "generator_2": row["generator"]}
        for instruction, row in ours.items()
    ]  # fmt: skip


def output_file(path: Path, name: str) -> Path:
    """The file of outputs at `path`, which may be a folder. Raises FacError, naming the option, if there is none."""
    return file_in(path, name, "model_outputs.json", "outputs as alpaca_eval keeps them")


def _read_outputs(path: Path, name: str, alpaca_eval_only: bool) -> dict[str, dict[str, str]]:
    path = output_file(path, name)
    found: dict[str, dict[str, str]] = {}
    for row in read_rows(Source(path, name=name)):
        try:
            if isinstance(row.values, Malformed):
                raise row.values
            for key in ("instruction", "output", "generator"):
                if not isinstance(row.values.get(key), str):
                    raise Malformed(f"there is no text {key!r}; outputs need instruction, output and generator")
            instruction = row.values["instruction"]
            if instruction in found:
                raise Malformed("the instruction was answered before; keep one of the two")
            if alpaca_eval_only and not is_in_alpaca_eval(instruction):
                raise Malformed(not_alpaca_eval(instruction))
        except Malformed as reason:
            raise FacError(f"{row.place}: {reason}.") from None
        found[instruction] = row.values
    if not found:
        raise FacError(f"{path} holds no output: set experiment.{name}=FILE to outputs as alpaca_eval keeps them.")
    return found


@dataclass(frozen=True)
class Answers:
    """How many answers a judge gave, and how many of them are no verdict."""

    total: int
    unreadable: int  # without a verdict
    cut: int  # of those: cut off at the limit of tokens
    refused: int  # of those: refused by the server
    left_out: bool = False  # what is without a verdict has no annotation; else it counts as a draw

    @property
    def note(self) -> str:
        """For a table."""
        why = [f"{count} {reason}" for count, reason in ((self.cut, "cut off"), (self.refused, "refused")) if count]
        told = f" ({', '.join(why)})" if why else ""
        become = "are left out, as alpaca_eval leaves them out" if self.left_out else "count as draws"
        return f"{self.unreadable} of {self.total} answers held no verdict{told} and {become}"


@dataclass(frozen=True)
class Judged:
    """What a judge said of every pair, as alpaca_eval writes it."""

    annotations: list[Annotation]
    answers: Answers


def annotate(
    judge: ChatModel,
    pairs: Sequence[Mapping[str, str]],
    prompts: Prompts,
    *,
    seed: int,
    log: Path,
    sampling: Sampling = JUDGING,
    both_orders: bool = False,
    limit: str = "experiment.judging.max_new_tokens",
) -> Judged:
    """Have `judge` compare the two outputs of every pair (TEXTS: instruction, two outputs, two generators).

    The role `compare` of `prompts` asks; an answer is read as its last [[first]], [[second]] or [[tie]], one that was
    cut off as none. Which output is shown first is drawn by `seed` and instruction; with `both_orders` every pair is
    also asked about the other way round and the preference is the mean of both, so that a judge's liking for a place
    makes draws, not wins. Replies go to `log`, where a killed run continues. The annotations are in alpaca_eval's
    format (written as JSON, `read_annotations` reads them), with the answer, whether it was readable and which output
    stood first beside. Raises FacError, naming the setting `limit`, if no answer holds a verdict.
    """
    swapped = [request_seed(seed, "order", pair["instruction"]) % 2 == 1 for pair in pairs]
    orders = [False, True] if both_orders else [False]
    requests = []
    for number, (pair, swap) in enumerate(zip(pairs, swapped, strict=True)):
        for turned in orders:
            shown = (pair["output_2"], pair["output_1"]) if swap != turned else (pair["output_1"], pair["output_2"])
            asked = prompts.render("compare", instruction=pair["instruction"], output_1=shown[0], output_2=shown[1])
            parts = ("compare", number, "turned") if turned else ("compare", number)
            requests.append(Request("-".join(map(str, parts[1:])), as_chat(asked), request_seed(seed, *parts)))
    replies = ask(judge, requests, sampling, log, "compare")
    verdicts = {name: verdict_of(reply) for name, reply in replies.items()}
    annotations = []
    for number, (pair, swap) in enumerate(zip(pairs, swapped, strict=True)):
        names = [f"{number}-turned" if turned else str(number) for turned in orders]
        said = zip(names, orders, strict=True)
        preferences = [_preference(verdicts[name], swap != turned) for name, turned in said]
        annotations.append(
            {name: pair[name] for name in TEXTS}
            | {"annotator": judge.identity, "preference": sum(preferences) / len(preferences)}
            | {"raw_completion": "\n".join(replies[name].raw for name in names)}
            | {"readable": all(verdicts[name] for name in names), "model_first": swap}
        )
    unreadable = [replies[name] for name, verdict in verdicts.items() if not verdict]
    cut, refused = sum(not reply.finished for reply in unreadable), sum(reply.refused for reply in unreadable)
    if unreadable and len(unreadable) == len(replies):
        told = f", and {refused} were refused or filtered" if refused else ""
        raise FacError(
            f"None of the {len(replies)} answers of {judge.identity} holds a verdict{told}, and {cut} were cut off at "
            f"{sampling.max_new_tokens} tokens: raise {limit} if it is those, or choose a judge that ends its answers "
            f"in [[first]], [[second]] or [[tie]], as compare.jinja asks."
        )
    return Judged(annotations, Answers(len(replies), len(unreadable), cut, refused))


def verdict_of(reply: Completion) -> str:
    """The verdict of a whole reply; one that was cut may have been about to change it."""
    return parse_verdict(reply.text) if reply.finished else ""


def _preference(verdict: str, model_first: bool) -> float:
    if verdict in ("", "tie"):
        return DRAW
    return MODEL_WINS if (verdict == "first") == model_first else REFERENCE_WINS


def parse_verdict(answer: str) -> str:
    """The last [[first]], [[second]] or [[tie]] of an answer, or "" if there is none."""
    found = _VERDICT.findall(answer)
    return found[-1].lower() if found else ""
