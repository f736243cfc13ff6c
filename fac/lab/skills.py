"""How well a lab model does the harness's jobs: `python -m fac.lab.skills [FOLDER]` prints a table, `--out` keeps it.

It may read texts with the ground truth's parser, since it is a diagnostic: nothing that it computes goes back into a
method (tests/test_imports.py). The prompts are drawn with a seed that no pre-training saw, so queries, spans and
examples are new; the concepts and wordings are those of the world.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from scipy.stats import binomtest
from tqdm import tqdm

import fac
from fac.data.reply_text import query_in
from fac.data.schemas import parse_choice, parse_pair
from fac.errors import FacError
from fac.interpret import RELEVANT, parse_decision
from fac.jsonl import write_json_atomic
from fac.lab import shipped
from fac.lab.pretraining import MIX, Document, documents
from fac.lab.topics import CANNOT_TELL, TASKS, OpinionTopic, QualityTopic, QueryTopic, WishTopic
from fac.lab.world import truth
from fac.lab.world.opinions import behaviors
from fac.llm.base import ChatModel, Completion, Request, Sampling, request_seed
from fac.prompts import ROOT, Prompts

SEED = 10388  # of the prompts; never pre-train with it
DRAWN = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=48)  # the longest right reply has 40 tokens
DRAWN_JSON = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=110)  # ... 84 tokens
GREEDY = Sampling(temperature=0.0, max_new_tokens=48)
JSON_KINDS = ("reward.write", "reward.contrast", "steering.write", "steering.contrast")
GREEDY_KINDS = ("explain", "judge", "verify", "steering.answer", "instruction.answer", "instruction.compare")
SAMPLING = {kind: GREEDY if kind in GREEDY_KINDS else DRAWN_JSON if kind in JSON_KINDS else DRAWN for kind in MIX}
BATCH = 64

_WROTE = "the grammar could have written the reply"
_PAIR = {
    "readable": "the harness reads a preference pair from the reply",
    "valid": "the pair is a query of the grammar and two neutral answers to it, each with a phrase of the world",
    "sides": "the chosen answer's phrase is a better wording and the rejected one's a worse wording of one aspect",
}
_ITEM = {
    "readable": "the harness reads a two-answer question from the reply",
    "valid": "the grammar could have written the question",
    "answer": "the answer called matching is the one that matches, for the question and its choices",
}
_GOOD = {  # of the prompts with a good and a bad example
    "wording": "holds the active wording of the good example, where the summary names it",
    "wording.misled": "holds the active wording of the good example, where the summary names something else",
}


def _of(kind: str, *meanings: Mapping[str, str]) -> dict[str, str]:
    return {f"{kind}.{skill}": meaning for part in meanings for skill, meaning in part.items()}


SKILLS = {  # skill -> which replies have it; where none is said, all replies to prompts of that kind are counted
    "write.valid": _WROTE,
    "write.wording": "holds the wording that the summary names, among summaries that name one",
    "write.concept": "holds any wording of the concept that the summary names, among summaries that name one",
    "write.concept.harmful": "the same, harmful concepts",
    "write.concept.benign": "the same, benign concepts",
    "write.phrase": "holds the phrase that the summary names, among summaries that name one",
    **_of("contrast", {"valid": _WROTE}, _GOOD),
    "explain.exact": "says the right summary, word for word",
    "explain.concept": "names the right concept, aspect, theme or constraint, among spans of one",
    **{f"explain.concept.{task}": f"the same, spans of {task}" for task in TASKS},
    "explain.cannot_tell": "is right to say 'cannot tell', among replies that do (precision)",
    "judge.exact": "gives the right verdict: Yes, Probably, Maybe or No",
    "judge.side": "gives a verdict on the right side: No, or not No",
    "judge.side.yes": "the same, where the right verdict is not No",
    "judge.side.no": "the same, where the right verdict is No",
    **{f"judge.side.{task}": f"the same, asked whether it is about {task}" for task in TASKS},
    "verify.exact": "gives the right verdict: Yes, Probably, Maybe or No",
    "verify.side": "gives a verdict on the right side: No, or not No",
    "verify.side.yes": "the same, where the right verdict is not No",
    "verify.side.no": "the same, where the right verdict is No",
    "imitate.valid": _WROTE,
    "imitate.family": "asks for concepts of the examples' family, and nothing else",
    "evolve.valid": _WROTE,
    "evolve.requests": "makes the same requests as the query it rewrites, and no others",
    **_of("reward.write", _PAIR, {"wording": "the asked wording is in the answer of its side"}),
    **_of("reward.contrast", _PAIR, _GOOD),
    **_of("steering.write", _ITEM, {"wording": "the question holds the asked wording"}),
    **_of("steering.contrast", _ITEM, _GOOD),
    "steering.answer.letter": "begins with the letter of a choice",
    "steering.answer.right": "begins with the letter of the stand that is asked for or was shown, where one was",
    "steering.answer.right.asked": "the same, where the user asks for it in words",
    "steering.answer.right.shown": "the same, where only earlier answers show it",
    **_of("instruction.write", {"valid": _WROTE, "wording": "asks in the words that the summary names"}),
    **_of("instruction.contrast", {"valid": _WROTE}, _GOOD),
    "instruction.answer.followed": "meets every wish and names all that is asked for",
    "instruction.compare.exact": "gives the right verdict: first, second or tie",
    "instruction.compare.winner": "the same, where one of the two answers does what is asked and one does not",
    "chat.concepts": "names every concept that the user asks for, where the user asks for one",
    "chat.letter": "is the letter of a choice, where the user asks a two-answer question",
    "repetition": "says the same three words in a row twice, among replies of every kind (right ones hardly ever do)",
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
    handful of prompts did not ask for. Raises FacError if a lab model is pre-trained with `seed`, or if `per_job` is
    below 1.
    """
    from fac.lab.build import SEEDS, Recipe

    if seed in {phase.seed for family in SEEDS for phase in Recipe(family).phases}:
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
    for skill, hit in _SCORES[document.kind](document, reply):
        yield f"{document.kind}.{skill}", hit


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
        files = sorted((ROOT / "lab").rglob("*.jinja"))
        record = {
            "name": folder.name,
            "model": model.identity,
            "seed": arguments.seed,
            "per_job": arguments.per_job,
            "sampling": {kind: asdict(sampling) for kind, sampling in SAMPLING.items()},
            "prompts": {
                str(file.relative_to(ROOT).with_suffix("")): Prompts(file.parent).digest(file.stem) for file in files
            },
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
                Request(f"{kind}-{n}", list(document.messages[:-1]), request_seed(seed, kind, n))
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


def _chat(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    asked = truth.mentions(document.user)
    if asked:
        yield "concepts", all(_holds(reply, concept.name) for concept, _ in asked)
    else:
        yield "letter", reply in ("(A)", "(B)")


def _write(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    """A query, from a summary or from a contrastive pair."""
    query, topic = query_in(reply), document.topic
    assert isinstance(topic, QueryTopic)
    yield "valid", truth.parse(query) is not None
    if topic.wording:
        yield _wording(document), _holds(query, topic.wording)
    if document.kind == "contrast":
        return
    if topic.concept:
        found = any(_holds(query, wording) for wording in topic.concept.wordings)
        yield "concept", found
        yield f"concept.{'harmful' if topic.concept.harmful else 'benign'}", found
    elif topic.mark:
        yield "phrase", _holds(query, topic.mark)


def _write_pair(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    pair, topic = parse_pair(reply, strict=True), document.topic
    assert isinstance(topic, QualityTopic)
    prompt, chosen, rejected = (pair.prompt[-1]["content"], pair.chosen, pair.rejected) if pair else ("", "", "")
    query = truth.parse(prompt)
    answers = [found for side in (chosen, rejected) if (found := truth.parse_reply(side))]
    yield "readable", pair is not None
    yield "valid", len(answers) == 2 and all(query and a.subjects == truth.subjects(query) for a in answers)
    yield "sides", [a.side for a in answers] == ["better", "worse"] and answers[0].aspect is answers[1].aspect
    yield _wording(document), _holds(chosen if topic.side == "better" else rejected, topic.wording)


def _write_item(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    choice, topic = parse_choice(reply, strict=True), document.topic
    assert isinstance(topic, OpinionTopic)
    question = choice.text if choice else ""
    answers = [f"({choice.letters[index]})" for index in (choice.matching, choice.other)] if choice else []
    item = truth.parse_item(question)
    yield "readable", choice is not None
    yield "valid", item is not None
    yield "answer", item is not None and answers == [item.matching, item.opposite]
    yield _wording(document), _holds(question, topic.wording)


def _write_instruction(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    text, topic = query_in(reply), document.topic
    assert isinstance(topic, WishTopic)
    yield "valid", truth.parse_instruction(text) is not None
    yield _wording(document), _holds(text, topic.wording)


def _explain(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    topic = document.topic
    assert topic
    yield "exact", reply == topic.summary
    if topic.task:
        found = reply.split(":")[0] == topic.summary.split(":")[0]
        yield "concept", found
        yield f"concept.{topic.task}", found
    if reply == CANNOT_TELL:
        yield "cannot_tell", topic.summary == CANNOT_TELL


def _decide(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    """A verdict on the scale of the paper's annotators."""
    said, right = parse_decision(reply), parse_decision(document.reply)
    yield "exact", said == right
    same_side = said != "" and (said in RELEVANT) == (right in RELEVANT)
    yield "side", same_side
    yield f"side.{'yes' if right in RELEVANT else 'no'}", same_side
    if document.task:
        yield f"side.{document.task}", same_side


def _imitate(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    query = query_in(reply)
    yield "valid", truth.parse(query) is not None
    yield "family", _families(query) == _families(document.reply)


def _evolve(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    query = query_in(reply)
    yield "valid", truth.parse(query) is not None
    yield "requests", set(truth.mentions(query)) == set(truth.mentions(document.reply))


def _choose(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    """One of two answers, by a stand; where neither a cue nor earlier answers tell it, either letter will do."""
    letter = reply[:3]
    yield "letter", letter in ("(A)", "(B)")
    first = document.messages[0]["content"]
    asked = any(first.startswith(cue) for behavior in behaviors().values() for cue in behavior.cues.values())
    if asked or document.before:
        yield "right", letter == document.reply[:3]
        yield f"right.{'asked' if asked else 'shown'}", letter == document.reply[:3]


def _answer(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    instruction = truth.parse_instruction(document.user)
    yield "followed", instruction is not None and instruction.is_followed(reply)


def _compare(document: Document, reply: str) -> Iterator[tuple[str, bool]]:
    yield "exact", reply == document.reply
    if document.reply != "[[tie]]":
        yield "winner", reply == document.reply


_SCORES: Mapping[str, Callable[[Document, str], Iterator[tuple[str, bool]]]] = {
    "chat": _chat,
    "write": _write,
    "contrast": _write,
    "explain": _explain,
    "judge": _decide,
    "verify": _decide,
    "imitate": _imitate,
    "evolve": _evolve,
    "reward.write": _write_pair,
    "reward.contrast": _write_pair,
    "steering.answer": _choose,
    "steering.write": _write_item,
    "steering.contrast": _write_item,
    "instruction.answer": _answer,
    "instruction.write": _write_instruction,
    "instruction.contrast": _write_instruction,
    "instruction.compare": _compare,
}


def _wording(document: Document) -> str:
    return "wording.misled" if document.misled else "wording"


def _holds(text: str, words: str) -> bool:
    return f" {words} " in f" {' '.join(text.split())} "


def _families(text: str) -> set[str]:
    return {concept.family for concept, _ in truth.mentions(text)}


def _repeats(reply: str) -> bool:
    """Within one value of a JSON reply: both replies of a pair give the same answer. Wishes repeat " , name a"."""
    for part in reply.split('"'):
        words = part.split()
        threes = [three for three in zip(words, words[1:], words[2:], strict=False) if "," not in three]
        if len(set(threes)) < len(threes):
            return True
    return False


if __name__ == "__main__":
    main()
