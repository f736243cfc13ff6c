"""Instruction following: instructions are written and answered, a base model is fine-tuned on them, and judged.

A judge compares an answer with the reference that stands in its row of a data set (AlpacaEval: GPT-4-Turbo's). In the
lab nobody judges: rules stand beside each test instruction, and code checks them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from eval import alpaca
from eval.alpaca_annotator import ONE_TOKEN, annotate_weighted, annotator_identity, name_of
from eval.judging import Answers, Judged, annotate
from eval.statistics import Replicates, resampled, resampled_means
from experiments.tasks.base import Labelled, Task, TaskSteps, Testing, Training, keep_replicates
from fac.chat import as_chat, encode_lesson, exchange
from fac.data.example_set import load_examples
from fac.data.examples import LoadReport
from fac.data.files import content_digest
from fac.data.instructions import Instruction, read_instructions
from fac.data.schemas import INSTRUCTION
from fac.data.source import Source
from fac.errors import FacError
from fac.lab.world.grammar import names_in
from fac.lab.world.tasks import TaskSizes, draw_examples
from fac.llm.base import ChatModel, Completion, Request, Sampling, ask, request_seed
from fac.llm.engines import Judge
from fac.llm.openai import OpenAISettings
from fac.llm.transformers import TransformersChat
from fac.model_ref import ModelRef
from fac.prompts import Prompts
from fac.store import Step
from fac.synthesis.generate import Generated, save_outcome
from fac.synthesis.method import Outcome, finished
from fac.synthesis.replies import ParsedReply, read_answer
from fac.synthesis.settings import Settings
from fac.train.settings import SftSettings

ANSWERS = "answers.json"
JUDGE_SEED = 0
JUDGE_TOKENS = "tasks.instruction.evaluation.judge_tokens"
EVALUATION, IFEVAL = "evaluation.json", "ifeval.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """How a fine-tuned model is tested. The defaults are the lab's."""

    paper: ClassVar[str] = "wr"  # column of Table 1 that stands beside what AlpacaEval's own annotator says
    # Who compares: an LLM by its verdict on compare.jinja | AlpacaEval 2's own annotator: its prompt, and how likely
    # the judge names either answer; the next, judge_tokens and both_orders are then not read.
    annotator: Literal["compare", "weighted"] = "compare"
    prompts: str = "lab/instruction"  # where compare.jinja lies
    answer_tokens: int = 60
    judge_tokens: int = 12
    both_orders: bool = True  # the judge is asked twice, with the answers in either order (AlpacaEval asks once)
    benchmarks: tuple[str, ...] = ()  # tasks of lm-eval
    ifeval: str | None = None  # a file for the benchmark `ifeval`, in place of the hub's

    def __post_init__(self) -> None:
        object.__setattr__(self, "benchmarks", tuple(self.benchmarks))  # a list, where it was read from a file
        if min(self.answer_tokens, self.judge_tokens) < 1:
            raise FacError("tasks.instruction.evaluation: set answer_tokens and judge_tokens to 1 or more.")

    @property
    def judging(self) -> Sampling:
        """How the judge answers."""
        if self.annotator == "weighted":
            return ONE_TOKEN
        return Sampling(temperature=0.0, max_new_tokens=self.judge_tokens)

    @property
    def asked(self) -> int:
        """How often the judge is asked about one pair."""
        return 2 if self.both_orders and self.annotator == "compare" else 1

    def judged_by(self, judge: Judge) -> str:
        """Who compares, and with which prompt, for a column's title; "" for AlpacaEval 2's own annotator."""
        if self.annotator == "compare":
            return f"{judge.identity()} with {self.prompts}/compare.jinja"
        name = name_of(_server(judge))
        return "" if name == alpaca.ANNOTATOR else name

    def check(self, judge: Judge) -> None:
        """Raise FacError if this judge cannot compare so."""
        if self.annotator == "weighted":
            _server(judge)

    def identity(self) -> dict[str, Any]:
        """For store keys; who compares stands in them where it is not an LLM's verdict."""
        kept = {name: value for name, value in asdict(self).items() if (name, value) != ("annotator", "compare")}
        prompt = Prompts(self.prompts).digest("compare") if self.annotator == "compare" else annotator_identity()
        return {**kept, "prompts": prompt, "judging": self.judging}


def _server(judge: Judge) -> OpenAISettings:
    """Of the judge. Raises FacError for an engine that is no server, and so tells no log-probabilities."""
    settings = judge.engine.settings
    if not isinstance(settings, OpenAISettings):
        raise FacError(
            f"AlpacaEval's annotator needs log-probabilities, which {judge.identity()} does not tell: set "
            f"tasks.instruction.evaluation.annotator=compare, or name a server, "
            f"llm@annotator.roles.compare=openai."
        )
    return settings


def train(job: Training, folder: Path) -> None:
    """A LoRA adapter of the base model; examples without an answer within its longest chat are left out and counted."""
    from fac.backbone import load_tokenizer
    from fac.train.sft import as_trained, train_sft

    examples = load_examples(INSTRUCTION, job.parts)
    chats = [exchange(e.instruction, e.output) for e in examples if e.output.strip()]
    tokenizer = load_tokenizer(as_trained(job.model, job.settings.chat_template))
    longest: int = job.settings.max_tokens
    chats = [chat for chat in chats if any(encode_lesson(tokenizer, chat, max_tokens=longest).trained)]
    (folder / "left_out.json").write_text(json.dumps(len(examples) - len(chats)))
    log = train_sft(job.model, chats, job.settings, job.seed, folder)
    (folder / "losses.json").write_text(json.dumps(log.losses))


def test(job: Testing, folder: Path) -> dict[str, float]:
    """The share of instructions followed, where rules stand beside them; else the win rate, and benchmarks."""
    settings = _evaluation(job)
    tested = load_examples(INSTRUCTION, [job.test])
    model = TransformersChat(_model(job))
    given = answer(model, [example.instruction for example in tested], greedy(settings.answer_tokens), folder)
    answers = [completion.text for completion in given]
    if "reference" in job.references:
        found, replicates = _judged(job, settings, tested, answers, folder)
    else:
        kept = [is_followed(example, text) for example, text in zip(tested, answers, strict=True)]
        found = {"followed": sum(kept) / len(kept)}
        replicates = {"followed": resampled_means(kept, resampled([0] * len(kept)))}
    keep_replicates(folder, replicates)
    return found | _benchmarks(job, settings)


def _judged(
    job: Testing, settings: Evaluation, tested: Sequence[Instruction], answers: Sequence[str], folder: Path
) -> tuple[dict[str, float], Replicates]:
    """The win rate over the reference answers, and its replicates over resampled instructions.

    LC is there where AlpacaEval's own annotator judged its own instructions and its calibration is at hand, else the
    minimal length control.
    """
    assert job.judge is not None
    reference = json.loads((job.references["reference"] / ANSWERS).read_text())
    compared = [
        {"instruction": example.instruction, "output_1": theirs, "output_2": ours,
         "generator_1": "reference", "generator_2": "trained"}
        for example, theirs, ours in zip(tested, reference, answers, strict=True)
    ]  # fmt: skip
    with job.judge.open() as judge:
        judged = _preferences(judge, compared, settings, folder / "judge.jsonl")
    won = alpaca.win_rate(judged.annotations)
    found = {"win_rate": won.rate / 100, **_shares(judged.answers), "standard_error": won.standard_error / 100}
    preferences = [annotation["preference"] - 1 for annotation in judged.annotations]
    annotated = {annotation["instruction"] for annotation in judged.annotations}
    kept = [place for place, example in enumerate(tested) if example.instruction in annotated]
    counts = resampled([0] * len(tested))[:, kept]
    drawn = resampled_means(preferences, counts)  # of few instructions a draw may hold none that was judged
    replicates = {"win_rate": np.where(np.isfinite(drawn), drawn, np.mean(preferences))}
    return found | _length_controlled(judged), replicates


def _preferences(judge: ChatModel, pairs: Sequence[Mapping[str, str]], how: Evaluation, log: Path) -> Judged:
    if how.annotator == "weighted":
        return annotate_weighted(judge, pairs, log)
    return annotate(
        judge, pairs, Prompts(how.prompts), seed=JUDGE_SEED, log=log,
        sampling=how.judging, both_orders=how.both_orders, limit=JUDGE_TOKENS,
    )  # fmt: skip


def _length_controlled(judged: Judged) -> dict[str, float]:
    rows = judged.annotations
    with suppress(FacError):  # no calibration at hand
        if alpaca.annotators(rows) == [alpaca.ANNOTATOR] and all(
            alpaca.is_in_alpaca_eval(row["instruction"]) for row in rows
        ):
            found = alpaca.length_controlled(rows, alpaca.hub_calibration())
            return {"lc": found.rate / 100, "lc_error": found.standard_error / 100}
    with suppress(FacError):  # too few answers, or all as much longer than the reference
        return {"minimal_length_control": alpaca.minimal_length_control(rows) / 100}
    return {}


def _model(job: Testing) -> ModelRef:
    """What is tested: the fine-tuned model, or the base model as it is, in the same chat template."""
    from fac.train.sft import as_trained, load_sft

    if job.trained is None:
        return as_trained(job.model, job.settings.chat_template)
    return load_sft(job.trained, job.model)


def _shares(answers: Answers) -> dict[str, float]:
    """Which part of the judge's answers is no verdict, and why."""
    counts = {"unreadable": answers.unreadable, "judgements_cut": answers.cut, "judgements_refused": answers.refused}
    return {name: count / answers.total for name, count in counts.items()}


def _evaluation(job: Testing) -> Evaluation:
    return Evaluation(**json.loads((job.references["evaluation"] / EVALUATION).read_text()))


def _benchmarks(job: Testing, settings: Evaluation) -> dict[str, float]:
    """What lm-eval measures, as TASK/METRIC."""
    if not settings.benchmarks:
        return {}
    from eval.harness import run_tasks
    from fac.backbone import load_causal_lm

    file = job.references["evaluation"] / IFEVAL
    tasks = ["ifeval_file" if task == "ifeval" and file.exists() else task for task in settings.benchmarks]
    files = {"ifeval": file} if file.exists() else {}
    model, tokenizer = load_causal_lm(_model(job))
    measured = run_tasks(model, tokenizer, tasks, data_files=files)
    return {f"{task}/{metric}": value for task, metrics in measured.items() for metric, value in metrics.items()}


def answer(
    model: ChatModel, instructions: Sequence[str], sampling: Sampling, folder: Path, seed: int = 0
) -> list[Completion]:
    """Answers in order; what is done is kept in `folder`, where a killed run continues."""
    requests = [Request(str(i), as_chat(text), request_seed(seed, i)) for i, text in enumerate(instructions)]
    replies = ask(model, requests, sampling, folder / "replies.jsonl", "answering instructions")
    return [replies[request.id] for request in requests]


def greedy(tokens: int) -> Sampling:
    return Sampling(temperature=0.0, max_new_tokens=tokens)


def is_followed(example: Instruction, answer: str) -> bool:
    """Whether an answer follows every rule of a test example and names all that is asked for."""
    return all(rule.holds(answer) for rule in example.rules) and set(example.subjects) <= names_in(answer)


def complete(written: Step, writer: ChatModel, prompts: Prompts, settings: Settings) -> Step:
    """Examples with the writer's answer where there is none yet (paper section 5: step b of the synthesis prompt).

    Drawn as everything is that the writer writes, or greedily (`synthesis.answers`). One whose answer is refused, cut
    off or empty is left out, and counted.
    """
    drawn = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    sampling = drawn if settings.answers == "drawn" else greedy(settings.max_new_tokens)
    params = {
        "writer": writer,
        "prompt": prompts.digest("answer"),
        "rules": prompts.rules.digest,
        "sampling": sampling,
        "seed": settings.seed,
    }
    build = partial(_complete, writer, prompts, sampling, settings.seed)
    return Step("answers", build, params, (written,), resumable=True)


def _complete(writer: ChatModel, prompts: Prompts, sampling: Sampling, seed: int, folder: Path, written: Path) -> None:
    examples, generated = load_examples(INSTRUCTION, [written]), Generated.load(INSTRUCTION, written)
    open_ones = [example.instruction for example in examples if not example.output]
    asked = [prompts.render("answer", instruction=instruction) for instruction in open_ones]
    replies = dict(zip(open_ones, answer(writer, asked, sampling, folder, seed), strict=True)) if asked else {}

    def done(example: Instruction) -> ParsedReply:
        if example.output:
            return ParsedReply(example)
        reply = replies[example.instruction]
        rejected_because = read_answer(reply, prompts.rules)
        return ParsedReply(None if rejected_because else replace(example, output=reply.text), rejected_because)

    outcome = Outcome(examples, generated.samples, generated.chosen, counts=generated.counts)
    save_outcome(INSTRUCTION, finished(outcome, [done(example) for example in examples]), folder)


def references(data: TaskSteps, evaluation: Evaluation | None) -> dict[str, Step]:
    """How all is tested, and the answers of the test set to compare with, unless it is the lab's."""
    if evaluation is None:
        return {"evaluation": _kept(Evaluation())}
    return {"reference": Step("reference", _given, {}, (data.test,)), "evaluation": _kept(evaluation)}


def _given(folder: Path, test: Path) -> None:
    """The answers that stand in the test set. Raises FacError if some examples have none."""
    answers = [example.output for example in load_examples(INSTRUCTION, [test])]
    if not all(answers):
        raise FacError(
            f"{sum(not text for text in answers)} of {len(answers)} test instructions have no reference answer: set "
            f"tasks.instruction.data.test.path to outputs of a model, such as AlpacaEval's model_outputs.json."
        )
    (folder / ANSWERS).write_text(json.dumps(answers))


def _kept(evaluation: Evaluation) -> Step:
    """How answers are tested, with the file that it takes. The key holds all that decides a verdict but the judge."""
    ifeval = Path(evaluation.ifeval).expanduser() if evaluation.ifeval else None
    params = {
        **evaluation.identity(),
        "seed": JUDGE_SEED,
        "ifeval": partial(content_digest, ifeval) if ifeval else None,
    }
    return Step("evaluation", partial(_keep, evaluation, ifeval), params)


def _keep(evaluation: Evaluation, ifeval: Path | None, folder: Path) -> None:
    (folder / EVALUATION).write_text(json.dumps(asdict(evaluation)))
    if ifeval:
        shutil.copyfile(ifeval, folder / IFEVAL)


def read(source: Source, report: LoadReport) -> Iterator[Labelled]:
    """The instructions of a data set, with their answers."""
    return ((example, None) for example in read_instructions(source, report))


def drawn_in_lab(role: str, world: int, sizes: TaskSizes) -> list[Labelled]:
    """The instructions of one role of the lab's world."""
    return [(example, None) for example in draw_examples("instruction", role, world, sizes)]


TASK = Task(
    name="instruction",
    title="Instruction following",
    metric="win_rate",
    metric_title="WR",
    paper={},  # the paper's is of another judge, against another reference
    added_in_paper=False,
    schema=INSTRUCTION,
    settings=SftSettings,
    sizes=TaskSizes,
    stage="sft",
    train=train,
    test=test,
    read=read,
    drawn_in_lab=drawn_in_lab,
    note="win rate over the reference answers that stand in the test set, SD its standard error. LC is there where "
    "AlpacaEval's own annotator judged its own instructions and df_gamed.csv is at hand; the paper's WR stands beside "
    "that annotator's alone.",
    also={
        "lc": "LC",
        "minimal_length_control": "minimal length control (not LC)",
        "standard_error": "SD",
        "unreadable": "judgements without a verdict",
    },
    in_lab={
        "metric": "followed",
        "metric_title": "accuracy",
        "also": {},
        "note": "accuracy is the share of instructions whose rules, checked by code, the answer keeps (the paper's: "
        "AlpacaEval 2's win rate). The lab's models cannot judge: of two answers, one of which keeps the rules, "
        "LLaMA's preferred the right one in 42 to 54 of 100, so no win rate stands here.",
    },
    from_base=True,
    untrained=("chat_template",),
    complete=complete,
    references=references,
    evaluation=Evaluation,
)
