"""How well a lab model does the harness's jobs: `python -m fac.lab.skills [FOLDER]` prints a table, `--out` keeps it.

Knows: what is right for every prompt of the pre-training writer, and how replies are read in the harness. It may read
texts with the ground truth's parser, since it is a diagnostic: nothing that it computes goes back into a method. Does
not know: features, corpora, how the model was trained. The prompts are drawn with a seed that no pre-training saw, so
queries, spans and examples are new; the concepts and wordings are those of the world.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from scipy.stats import binomtest
from tqdm import tqdm

import fac
from fac.errors import FacError
from fac.interpret import RELEVANT, parse_decision
from fac.jsonl import write_json_atomic
from fac.lab import shipped
from fac.lab.pretraining import CANNOT_TELL, MIX, Document, Topic, documents
from fac.lab.world.truth import mentions, parse
from fac.llm.base import ChatModel, Completion, Request, Sampling, request_seed
from fac.prompts import Prompts
from fac.synthesis.samples import parse_query

SEED = 10388  # of the prompts; never pre-train with it
DRAWN = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=40)  # the longest right reply has 38 tokens
GREEDY = Sampling(temperature=0.0, max_new_tokens=40)
SAMPLING = {kind: GREEDY if kind in ("explain", "judge", "verify") else DRAWN for kind in MIX}
BATCH = 64

SKILLS = {  # skill -> which replies have it; where none is said, all replies to prompts of that kind are counted
    "write.valid": "the grammar could have written the reply",
    "write.wording": "holds the wording that the summary names, among summaries that name one",
    "write.concept": "holds any wording of the concept that the summary names, among summaries that name one",
    "write.concept.harmful": "the same, harmful concepts",
    "write.concept.benign": "the same, benign concepts",
    "write.phrase": "holds the phrase that the summary names, among summaries that name one",
    "contrast.valid": "the grammar could have written the reply",
    "contrast.wording": "holds the active wording of the good example, where the summary names it",
    "contrast.wording.misled": "holds the active wording of the good example, where the summary names something else",
    "explain.exact": "says the right summary, word for word",
    "explain.concept": "names the right concept, among spans of one wording or one concept",
    "explain.cannot_tell": "is right to say 'cannot tell', among replies that do (precision)",
    "judge.exact": "gives the right verdict: Yes, Probably, Maybe or No",
    "judge.side": "gives a verdict on the right side: No, or not No",
    "judge.side.yes": "the same, where the right verdict is not No",
    "judge.side.no": "the same, where the right verdict is No",
    "verify.exact": "gives the right verdict: Yes, Probably, Maybe or No",
    "verify.side": "gives a verdict on the right side: No, or not No",
    "verify.side.yes": "the same, where the right verdict is not No",
    "verify.side.no": "the same, where the right verdict is No",
    "imitate.valid": "the grammar could have written the reply",
    "imitate.family": "asks for concepts of the examples' family, and nothing else",
    "evolve.valid": "the grammar could have written the reply",
    "evolve.requests": "makes the same requests as the query it rewrites, and no others",
    "chat.concepts": "names every concept that the user asks for",
    "repetition": "says the same three words in a row twice, among replies of every kind (right replies never do)",
}


class Skill(NamedTuple):
    """Share of `n` replies that show a skill, a fraction, with its Wilson 95 % interval."""

    share: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Skill:
        """The share of True among at least one hit or miss."""
        found = binomtest(sum(hits), len(hits))
        low, high = found.proportion_ci(0.95, method="wilson")
        return cls(float(found.statistic), len(hits), float(low), float(high))


def measure_skills(model: ChatModel, seed: int = SEED, per_job: int = 200) -> dict[str, Skill]:
    """Ask `model` to do every job of pre-training `per_job` times; skills in the order of SKILLS.

    A skill that no reply could show is left out: "explain.cannot_tell" if no reply says so, or a kind of topic that a
    handful of prompts did not ask for. Raises FacError if `seed` is the one that lab models are pre-trained with, or if
    `per_job` is below 1.
    """
    from fac.lab.build import Recipe

    if seed == Recipe.seed:
        raise FacError(f"The lab's models are pre-trained on the prompts of seed {seed}: choose another seed.")
    if per_job < 1:
        raise FacError(f"There is nothing to measure with {per_job} prompts per job: ask for at least 1.")
    hits: dict[str, list[bool]] = {}
    for document, reply in _replies(model, seed, per_job):
        for skill, hit in score(document, reply):
            hits.setdefault(skill, []).append(hit)
    return {skill: Skill.of(hits[skill]) for skill in SKILLS if skill in hits}


def score(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    """Every skill that the reply to this document could show, and whether it does."""
    yield "repetition", _repeats(reply)
    query = parse_query(reply)
    said, right = parse_decision(reply), parse_decision(document.reply)
    match document:
        case Document(kind="write", topic=Topic() as topic):
            yield "write.valid", parse(query) is not None
            yield from _asked(topic, query)
        case Document(kind="contrast", topic=Topic() as topic):
            yield "contrast.valid", parse(query) is not None
            yield f"contrast.wording{'.misled' if document.misled else ''}", _holds(query, topic.wording)
        case Document(kind="explain", topic=Topic() as topic):
            yield "explain.exact", reply == topic.summary
            if topic.concept:
                yield "explain.concept", reply.split(":")[0] == topic.concept.name
            if reply == CANNOT_TELL:
                yield "explain.cannot_tell", topic.summary == CANNOT_TELL
        case Document(kind="judge" | "verify" as kind):
            yield f"{kind}.exact", said == right
            same_side = said != "" and (said in RELEVANT) == (right in RELEVANT)
            yield f"{kind}.side", same_side
            yield f"{kind}.side.{'yes' if right in RELEVANT else 'no'}", same_side
        case Document(kind="imitate"):
            yield "imitate.valid", parse(query) is not None
            yield "imitate.family", _families(query) == _families(document.reply)
        case Document(kind="evolve"):
            yield "evolve.valid", parse(query) is not None
            yield "evolve.requests", set(mentions(query)) == set(mentions(document.reply))
        case Document(kind="chat"):
            yield "chat.concepts", all(_holds(reply, concept.name) for concept, _ in mentions(document.user))


def markdown(skills: Mapping[str, Skill]) -> str:
    """A table with one row per skill, in percent."""
    rows = [
        f"| {name} | {100 * s.share:.1f} | {100 * s.low:.1f}–{100 * s.high:.1f} | {s.n} | {SKILLS[name]} |"
        for name, s in skills.items()
    ]
    return "\n".join(["| skill | % | 95 % interval | n | the share of replies that |", "|---|---|---|---|---|", *rows])


def main(argv: Sequence[str] | None = None) -> None:
    import torch

    from fac.backbone import ModelRef
    from fac.llm.transformers import TransformersChat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a lab model (default: shipped llama)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table and its provenance as JSON")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--per-job", type=int, default=200)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        folder = (arguments.folder or shipped("llama")).resolve()
        model = TransformersChat(ModelRef(str(folder)))
        skills = measure_skills(model, arguments.seed, arguments.per_job)
    except FacError as error:
        parser.exit(1, f"{error}\n")
    print(markdown(skills))  # noqa: T201
    if arguments.out:
        prompts = Prompts("lab/toxicity")
        record = {
            "name": folder.name,
            "model": model.identity,
            "seed": arguments.seed,
            "per_job": arguments.per_job,
            "sampling": {kind: asdict(sampling) for kind, sampling in SAMPLING.items()},
            "prompts": {kind: prompts.digest(kind) for kind in MIX if kind != "chat"},
            "versions": {"fac": fac.__version__}
            | {library: importlib.metadata.version(library) for library in ("torch", "transformers", "tokenizers")},
            "skills": {name: skill._asdict() | {"meaning": SKILLS[name]} for name, skill in skills.items()},
        }
        write_json_atomic(arguments.out, record)


def _replies(model: ChatModel, seed: int, per_job: int) -> Iterator[tuple[Document, str]]:
    """`per_job` documents of every kind and what the model replies to each."""
    drawn = _draw(seed, per_job)
    with tqdm(total=per_job * len(MIX), desc="measuring skills", unit="reply", leave=False) as bar:
        for kind in MIX:
            jobs = [document for document in drawn if document.kind == kind]
            requests = [
                Request(f"{kind}-{n}", [document.messages[0]], request_seed(seed, kind, n))
                for n, document in enumerate(jobs)
            ]
            completions: list[Completion] = []
            for start in range(0, len(requests), BATCH):
                completions += model.chat(requests[start : start + BATCH], SAMPLING[kind])
                bar.update(len(completions) - start)
            yield from ((job, completion.text) for job, completion in zip(jobs, completions, strict=True))


def _draw(seed: int, per_job: int) -> list[Document]:
    """The first `per_job` documents of every kind in the stream of this seed."""
    drawn: list[Document] = []
    seen: Counter[str] = Counter()
    for document in documents(seed):
        if seen[document.kind] < per_job:
            seen[document.kind] += 1
            drawn.append(document)
            if seen.total() == per_job * len(MIX):
                break
    return drawn


def _asked(topic: Topic, query: str) -> Iterator[tuple[str, bool]]:
    """Whether the query holds what the summary of a "write" prompt names."""
    if topic.wording:
        yield "write.wording", _holds(query, topic.wording)
    if topic.concept:
        found = any(_holds(query, wording) for wording in topic.concept.wordings)
        yield "write.concept", found
        yield f"write.concept.{'harmful' if topic.concept.harmful else 'benign'}", found
    _, phrase = topic.phrase
    if phrase:
        yield "write.phrase", _holds(query, phrase.replace(" {}", ""))


def _holds(text: str, words: str) -> bool:
    return f" {words} " in f" {' '.join(text.split())} "


def _families(text: str) -> set[str]:
    return {concept.family for concept, _ in mentions(text)}


def _repeats(text: str) -> bool:
    words = text.split()
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(threes)) < len(threes)


if __name__ == "__main__":
    main()
