"""FAC Synthesis proper (paper §2.4, Alg. 1 and 2): write for each feature, measure, pair best with worst, write again.

Which features are written for, and what becomes of the samples, is for `fac.synthesis.methods` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fac.errors import FacError
from fac.features import Extractor
from fac.interpret import Reading
from fac.llm.base import ChatModel, Request, Sampling, ask, request_seed
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.store import Artifact, Store
from fac.synthesis.forms import QUERY, Form, plain
from fac.synthesis.replies import read_reply
from fac.synthesis.samples import Sample, load_samples, write_samples

OFFICIAL_SCORE = 5.0  # that the released code gives an anchor span
LABEL = "\t1"  # that the released prompts ask for behind a toxic query


@dataclass(frozen=True)
class Settings:
    """Counts of the paper's Alg. 1 and 2; the paper leaves n and m open, its code has 2 and 2."""

    n: int = 2  # candidates per feature in step 1
    m: int = 2  # candidates per feature in step 2
    spans: int = 3  # corpus spans shown in the step-1 prompt (App. C)
    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 900
    answers: Literal["greedy", "drawn"] = "greedy"  # to written instructions; or drawn as these were
    span_tokens: int = 32
    seed: int = 42
    top_up: int = 3  # rounds of m more requests per feature, while a method has fewer samples than its budget
    # Ways of the released code (conf/parity says where they are found):
    pair: Literal["paper", "official"] = "paper"  # see `contrastive_pair`
    summary: Literal["explanation", "analysis"] = "explanation"  # what the writer is told of a feature
    filter: bool = True  # keep what activates its feature, best first; False: keep all, in random order
    label_scored: bool = False  # queries are measured with the label that the writer put behind them
    ratio: float = 1.0  # share of the missing features that are written for, drawn by the seed

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise FacError(f"synthesis.ratio={self.ratio} will not do: it is a share, above 0 and at most 1.")
        if self.top_up < 0:
            raise FacError(f"synthesis.top_up={self.top_up} will not do: it is a number of rounds, 0 or more.")


@dataclass(frozen=True)
class Desk:
    """What the writer has before it. `extractor` is called only when something must be measured."""

    store: Store
    writer: ChatModel
    prompts: Prompts
    form: Form
    readings: Mapping[int, Reading]
    source: Artifact  # the stage the readings came from
    extractor: Callable[[], Extractor]
    encoder: Mapping[str, object]  # what decides activations: model, SAE, layer, rule, anchor
    anchor_max: np.ndarray  # [n_features]
    settings: Settings


@dataclass(frozen=True)
class Written:
    """Samples of one writing stage and their activations; rows of `pooled` are the samples' chats, in order."""

    samples: list[Sample]
    pooled: Pooled
    artifact: Artifact

    @property
    def written_for(self) -> np.ndarray:
        """The feature that each row of `pooled` was written for."""
        return written_for(self.samples)


def written_for(samples: Sequence[Sample]) -> np.ndarray:
    """The feature of each chat of the samples, in order."""
    return np.repeat([s.feature for s in samples], [s.chats for s in samples])


def step_one(desk: Desk, features: Sequence[int], attempts: range) -> Written:
    """Candidates from the description and the spans of each feature: x ~ M(. | T(Desc_i))."""

    def prompt(feature: int) -> str:
        reading = desk.readings[feature]
        return desk.prompts.render("write", summary=reading.explanation, spans=reading.spans[: desk.settings.spans])

    return _write(desk, 1, "write", features, attempts, prompt, [desk.source])


def step_two(
    desk: Desk, features: Sequence[int], first: Written, cut: np.ndarray, attempts: range | None = None
) -> Written:
    """Candidates from each feature's contrastive pair (eq. 9); `attempts` None: the first m."""
    pairs = {feature: contrastive_pair(desk, feature, first.samples, cut) for feature in features}

    def prompt(feature: int) -> str:
        good, bad = pairs[feature]
        summary = desk.readings[feature].explanation
        told = {"good": _shown(good, desk.settings), "bad": bad and _shown(bad, desk.settings)}
        return desk.prompts.render("contrast", summary=summary, **told)

    shown = {str(f): [good.text, good.span, bad and bad.text] for f, (good, bad) in pairs.items()}
    attempts = range(desk.settings.m) if attempts is None else attempts
    return _write(desk, 2, "contrast", features, attempts, prompt, [desk.source, first.artifact], shown)


def contrastive_pair(
    desk: Desk, feature: int, samples: Sequence[Sample], cut: np.ndarray
) -> tuple[Sample, Sample | None]:
    """(x+, x-): the candidates with the largest and the smallest g_i (Alg. 1).

    x+ must be active. Where no candidate is, the feature's strongest anchor span takes its place, as in the released
    code, and `step` 0 marks it. x- is another text than x+, and weaker; where no candidate is, there is None, and the
    prompt shows the good example alone. With `pair` "official" the rest is as in the released code, too: of two active
    candidates or more, the best and the SECOND best; else the anchor span, with a g of 5, and the weakest candidate.
    """
    own = sorted((s for s in samples if s.feature == feature and s.row), key=lambda s: (-s.g, s.attempt))
    active = [s for s in own if s.g > cut[feature]]
    if desk.settings.pair == "official":
        second = next((s for s in active if _differ(s, active[0])), None)
        if second:
            return active[0], second
        anchor = _anchor(desk, feature, OFFICIAL_SCORE)
        return anchor, next((s for s in reversed(own) if _differ(s, anchor)), None)
    best = active[0] if active else _anchor(desk, feature, float(desk.anchor_max[feature]))
    return best, next((s for s in reversed(own) if _differ(s, best) and s.g < best.g), None)


def one_sided(desk: Desk, features: Sequence[int], first: Written, cut: np.ndarray) -> int:
    """How many features have no second text to contrast with."""
    return sum(contrastive_pair(desk, feature, first.samples, cut)[1] is None for feature in features)


def _anchor(desk: Desk, feature: int, g: float) -> Sample:
    span = desk.readings[feature].spans[0]
    return Sample(feature, 0, 0, "", "", "", "", 0, g=g, share=1.0, span=span, text=span)


def _differ(one: Sample, other: Sample) -> bool:
    return plain(one.text) != plain(other.text)


def _shown(sample: Sample, settings: Settings) -> dict[str, object]:
    """What a prompt may show of an example; its score is out of 10, or g_i itself as in the released code."""
    score = sample.g if settings.pair == "official" else sample.share * 10
    return {"text": sample.text, "span": sample.span, "score": round(score, 1)}


def _write(
    desk: Desk,
    step: int,
    role: str,
    features: Sequence[int],
    attempts: range,
    prompt: Callable[[int], str],
    inputs: Sequence[Artifact],
    pairs: Mapping[str, Sequence[str | None]] | None = None,
) -> Written:
    settings = desk.settings
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)

    def build(folder: Path) -> None:
        requests = [
            Request(f"{f}-{a}", [{"role": "user", "content": prompt(f)}], request_seed(settings.seed, f, step, a))
            for f in features
            for a in attempts
        ]
        replies = ask(desk.writer, requests, sampling, folder / "replies.jsonl", f"writing, step {step}")
        samples = []
        for request in requests:
            feature, attempt = map(int, request.id.split("-"))
            reply = replies[request.id]
            row, why = read_reply(desk.form, reply, desk.prompts.rules, request.messages[0]["content"])
            samples.append(
                Sample(feature, step, attempt, row, reply.raw, desk.prompts.digest(role), desk.writer.identity,
                       request.seed, why=why)
            )  # fmt: skip
        samples = _measured(desk, samples, folder)
        write_samples(samples, folder / "samples.jsonl")

    artifact = desk.store.stage(
        "write",
        build,
        params={
            "step": step,
            "features": [int(f) for f in features],
            "attempts": [attempts.start, attempts.stop],
            "prompt": desk.prompts.digest(role),
            "rules": desk.prompts.rules.digest,
            "form": desk.form.name,
            "writer": desk.writer.identity,
            "encoder": desk.encoder,
            "sampling": sampling,
            "spans": settings.spans,
            "span_tokens": settings.span_tokens,
            "seed": settings.seed,
            "summary": settings.summary,
            "label_scored": settings.label_scored,
            "pair": settings.pair if pairs else None,
            "pairs": pairs,
        },
        inputs=inputs,
        resumable=True,
    )
    return Written(load_samples(artifact.path / "samples.jsonl"), Pooled.load(artifact.path), artifact)


def _measured(desk: Desk, samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """The samples with their own g_i; the whole matrix of their activations is written to `folder`."""
    extractor = desk.extractor()
    # An unreadable reply is measured as an empty chat, so that rows and samples stay aligned.
    label = LABEL if desk.settings.label_scored and desk.form is QUERY else ""
    chats = [desk.form.chats(sample.row + label) if sample.row else [[]] for sample in samples]
    flat = [chat for group in chats for chat in group]
    owners = [sample.feature for sample, group in zip(samples, chats, strict=True) for _ in group]
    own = extractor.extract(flat, folder, len(flat), watch=owners)
    found, start = [], 0
    for sample, group in zip(samples, chats, strict=True):
        best = max(range(start, start + len(group)), key=lambda i: own.values[i])
        chat, g, token = flat[best], own.values[best], own.tokens[best]
        start += len(group)
        text = " ".join(message["content"] for message in chat).removesuffix(label)
        sample = replace(sample, chats=len(group), text=text)
        if g > 0:
            share = g / top if (top := float(desk.anchor_max[sample.feature])) else 0.0
            span = extractor.span(chat, token, desk.settings.span_tokens).text
            sample = replace(sample, g=g, share=share, span=span)
        found.append(sample)
    return found
