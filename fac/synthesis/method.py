"""What a method is: a row of the tables that turns a `SynthesisInput` into training examples, with a `Writer`.

`SynthesisInput` is all that a method may see: of test data only digests, no ground truth. See `fac.synthesis.methods`
for how to add one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fac.data.held_out import HeldOut
from fac.interpret import Interpretation
from fac.pooled import Pooled
from fac.synthesis.replies import ParsedReply
from fac.synthesis.samples import CUT_OFF, REFUSAL, UNREADABLE, Counts, Sample, choose, count, draw, verify
from fac.synthesis.settings import Settings
from fac.synthesis.writer import Prompt, Writer, Written

Need = Literal["missing", "pool", "embeddings", "clusters", "gradients", "directions"]
"""What a method may need beyond what all are given, by the field of `SynthesisInput` that holds it: F_miss, F(P) and
thresholds, which methods that nobody writes for do without; `pool`; `embed`; `clusters`;
`gradients`; `directions`."""


@dataclass(frozen=True)
class Pool:
    """What people wrote about everything, to choose from."""

    examples: Sequence[Any]
    owners: NDArray[np.int64]  # [chats]: index of the example that each chat belongs to, increasing
    activations: Pooled  # [chats, n_features]
    lengths: NDArray[np.int32]  # [chats]: content tokens that were measured


@dataclass(frozen=True)
class MissingClusters:
    """What clusters of embeddings say the seed data miss (`fac.clusters`)."""

    missing: Sequence[int]
    relevant: Sequence[int]
    interpretations: Mapping[int, Interpretation]  # by cluster
    scorer: Any  # scores texts for clusters, as a `fac.features.Extractor` does for features
    cut: float  # a text that scores above it is in the cluster
    most: float  # the highest score
    count: int  # clusters


@dataclass(frozen=True)
class Directions:
    """What features add to the residual stream, in the SAE's reconstruction."""

    layer: int  # where the SAE reads, as the paper counts
    vectors: NDArray[np.float32]  # [features, d_model], for one unit of activation


def undeclared(*_: Any) -> Any:
    """What stands in the place of a need that a method has not named. Raises ValueError."""
    raise ValueError("a method names in Method.needs what it uses beyond what all are given")


@dataclass(frozen=True)
class SynthesisInput:
    """What every method is given. Examples are of the task's schema (`fac.data.schemas`)."""

    seed_examples: Sequence[Any]  # what training starts from (toxicity: its positives)
    human_examples: Sequence[Any]  # what people wrote about everything; only `full` may use it
    missing: Sequence[int]  # F_miss
    relevant: Sequence[int]  # F(P): task-relevant features that the anchor activates
    interpretations: Mapping[int, Interpretation]  # by feature
    thresholds: NDArray[np.float32]  # [n_features]: δ of each feature
    anchor_max: NDArray[np.float32]  # [n_features]: largest g_i on the anchor
    budget: int  # examples that a method adds at most
    settings: Settings
    held_out: HeldOut = field(default_factory=HeldOut)  # what is tested on: nothing of it is kept, nor can it be read
    pool: Callable[[], Pool] = undeclared  # with need "pool"
    directions: Callable[[Sequence[int]], Directions] = undeclared  # with need "directions"
    # With need "gradients": unit vectors [examples, 1024], sketches of a proxy's gradients (`fac.gradients`).
    gradients: Callable[[Sequence[Any]], NDArray[np.float32]] = undeclared
    clusters: Callable[[], MissingClusters] = undeclared  # with need "clusters"
    # With need "embeddings": unit vectors [examples, d], mean residuals of the content tokens at the SAE's layer.
    embed: Callable[[Sequence[Any]], NDArray[np.float32]] = undeclared

    @property
    def seed(self) -> int:
        """Of everything that a method draws."""
        return self.settings.seed


@dataclass(frozen=True)
class Outcome:
    """What a method adds to the training set, and all it wrote on the way."""

    examples: list[Any]
    samples: list[Sample] = field(default_factory=list)  # everything written in the last step, kept or not
    chosen: list[Sample] = field(default_factory=list)  # the samples behind `examples`
    written: Written | None = None  # first round of the last step: as many requests for each method
    counts: Counts = field(default_factory=Counts)


def _none(settings: Settings, features: int, budget: int) -> int:
    return 0


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    title: str  # the row's name in tables
    run: Callable[[SynthesisInput, Writer], Outcome]
    prompts: tuple[str, ...] = ()  # roles that it needs of a prompt set; none: no LLM writes for it
    requests: Callable[[Settings, int, int], int] = _none  # (settings, missing features, budget) -> the fewest it makes
    adds: bool = True  # False: it trains on the seed data alone
    drawn: bool = False  # another seed of generation draws other examples that are there
    beside_seed: bool = False  # True: it means something only where the seed's own examples are trained on, too
    needs: tuple[Need, ...] = ()  # what it uses beyond what all are given; only then its step hangs on it
    settings: tuple[str, ...] = ()  # those of `settings.OF_SOME_METHODS` that it reads
    engines: tuple[str, ...] = ()  # that can write for it, as `llm=` names them; none: all can
    note: str = ""  # what tables say of it: its source, and what is simplified


def existing(given: SynthesisInput, examples: Sequence[Any]) -> Outcome:
    """As many of the examples as the budget, drawn by the seed, in their own order."""
    size = min(given.budget, len(examples))
    drawn = sorted(random.Random(given.seed).sample(range(len(examples)), size))
    return Outcome([examples[i] for i in drawn], counts=Counts(added=size, budget=given.budget))


def fill(
    given: SynthesisInput,
    writer: Writer,
    what: str,
    prompts: Callable[[range], Sequence[Prompt]],
    first: int,
    more: int,
) -> Outcome:
    """Write until the budget is reached: `prompts(attempts)` for `first` attempts, then for `more` at a time.

    At most `Settings.top_up` rounds follow the first. Kept is what can be read, asks nothing of the test, activates the
    feature that it was written for and repeats nothing; with `Settings.filter` off, it need not activate, and is drawn
    rather than ranked.
    """
    settings, budget = given.settings, given.budget
    thresholds = given.thresholds if settings.filter else np.full_like(given.thresholds, -np.inf)

    def judged(rounds: Sequence[Written]) -> list[Sample]:
        samples = [sample for written in rounds for sample in written.samples]
        return verify(writer.schema, samples, thresholds.tolist(), given.held_out)

    rounds = [writer.write(what, prompts(range(first)))]
    samples = judged(rounds)
    while samples and sum(s.kept for s in samples) < budget and len(rounds) <= settings.top_up:
        start = first + more * (len(rounds) - 1)
        rounds.append(writer.write(what, prompts(range(start, start + more))))
        samples = judged(rounds)
    chosen = choose(samples, budget) if settings.filter else draw(samples, budget, given.seed)
    counts = replace(count(samples), added=len(chosen), budget=budget, rounds=len(rounds) - 1)
    return Outcome([s.example for s in chosen], samples, chosen, rounds[0], counts)


def finished(outcome: Outcome, replies: Sequence[ParsedReply]) -> Outcome:
    """The outcome with its examples as they were finished, without those that could not be; `replies` are in order."""
    reasons = [reply.rejected_because for reply in replies]
    counts = replace(
        outcome.counts,
        added=reasons.count(""),
        answers_refused=reasons.count(REFUSAL),
        answers_cut_off=reasons.count(CUT_OFF),
        answers_empty=reasons.count(UNREADABLE),
    )
    chosen = outcome.chosen and [s for s, reason in zip(outcome.chosen, reasons, strict=True) if not reason]
    examples = [reply.example for reply in replies if reply.example is not None]
    return replace(outcome, examples=examples, chosen=chosen, counts=counts)
