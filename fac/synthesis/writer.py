"""What every method writes with: prompts become seeded, logged, parsed and encoded samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fac.chat import Message, as_chat
from fac.data.schemas import TEXT, Schema
from fac.llm.base import ChatModel, Completion, Opens, Request, Sampling, Shift, ask, request_seed
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.synthesis.refusals import refusals_of
from fac.synthesis.replies import ParsedReply, read_reply
from fac.synthesis.samples import SCAFFOLD, Sample, load_samples, write_samples, written_for

if TYPE_CHECKING:
    from fac.features.extract import Extractor

SAMPLES, REPLIES = "samples.jsonl", "replies.jsonl"


@dataclass(frozen=True)
class Prompt:
    """One request: the template ROLE.jinja of the task's prompts, filled with `values`.

    (feature, step, attempt) is the request's own within one call of `Writer.write`, and with the run's seed decides
    how the reply is drawn. Where the user's turn is opened, the filled template is what a system turn before it says;
    if it is blank, there is none.
    """

    role: str
    values: Mapping[str, object]
    feature: int | None  # the feature that the sample is written for; None: for none
    attempt: int
    step: int = 1
    opens: Opens = "assistant"
    shift: Shift | None = None  # added to the model's residual stream while it writes

    @property
    def id(self) -> str:
        return f"{self.feature}-{self.step}-{self.attempt}"

    def messages(self, text: str) -> list[Message]:
        """The chat that is continued; `text` is the filled template."""
        if self.opens == "assistant":
            return as_chat(text)
        return [{"role": "system", "content": text}] if text else []


@dataclass(frozen=True)
class Reply:
    """What was said to one prompt of `Writer.ask`."""

    asked: Prompt
    completion: Completion
    refused: bool  # the server says so, or the first line does
    prompt: str  # digest of the rendered prompt
    seed: int

    @property
    def text(self) -> str:
        """What was said, without thoughts."""
        return self.completion.text


@dataclass(frozen=True)
class Spent:
    """What was asked of the model for all that a method wrote."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    refused_requests: int = 0  # of those that are no samples


@dataclass(frozen=True)
class Written:
    """Samples of one call of `Writer.write` and their activations.

    `pooled` has as many rows as the samples have chats, in order.
    """

    samples: list[Sample]
    pooled: Pooled
    folder: Path  # where both lie

    @property
    def written_for(self) -> NDArray[np.int64]:
        """The feature that each row of `pooled` was written for. Raises ValueError if one was written for none."""
        return written_for(self.samples)


@dataclass(frozen=True)
class Writer:
    """Everything needed to write and encode samples. `extractor` is called only when something must be encoded."""

    folder: Path  # of all that is written; a killed run continues there
    model: ChatModel
    prompts: Prompts
    schema: Schema[Any]
    extractor: Callable[[], Extractor]
    anchor_max: NDArray[np.float32]  # [n_features]
    sampling: Sampling
    seed: int
    span_tokens: int = 32  # longest span
    label: str = ""  # put behind each text when it is encoded
    _logs: dict[Path, int] = field(default_factory=dict, compare=False, repr=False)  # of all replies; refusals in each

    def write(self, what: str, prompts: Sequence[Prompt]) -> Written:
        """One sample for each prompt, in order; `what` is shown while it is done, as "writing, step 1".

        What was written once is found again by the rendered prompts and their seeds. A reply that cannot be used is a
        sample, too, and says why. Replies are logged as they arrive, and a killed run continues behind the last one.
        Raises ValueError if two prompts have the same feature, step and attempt, or if some are for a feature and
        others for none; FacError for a prompt that cannot be filled.
        """
        if len({prompt.id for prompt in prompts}) < len(prompts):
            raise ValueError(f"{what}: two prompts have the same feature, step and attempt")
        if len({prompt.feature is None for prompt in prompts}) > 1:
            raise ValueError(f"{what}: some prompts are for a feature and some for none")
        requests = [
            self._request(p, request_seed(self.seed, p.feature, p.step, p.attempt), text)
            for p, text in zip(prompts, self._rendered(prompts), strict=True)
        ]
        folder = self._folder([[r.id, r.messages, r.seed, *_shifts(r)] for r in requests])
        done = folder / SAMPLES
        if not done.exists():
            folder.mkdir(parents=True, exist_ok=True)
            replies = ask(self.model, requests, self.sampling, folder / REPLIES, what)
            samples = [self._sample(p, r, replies[r.id]) for p, r in zip(prompts, requests, strict=True)]
            draft = done.with_suffix(".draft")
            write_samples(self.schema, self._encoded(samples, folder), draft)
            draft.rename(done)
        return Written(load_samples(self.schema, done), Pooled.load(folder), folder)

    def ask(self, what: str, prompts: Sequence[Prompt], sampling: Sampling | None = None) -> list[Reply]:
        """What the model says to each prompt, in order, where that is no sample: plans, answers, votes, judgements.

        Kept and continued like what is written. The seed of a request is its role's, too, so that one attempt may ask
        several things. `sampling` None: as samples are drawn. Raises ValueError if two prompts have the same role,
        feature, step and attempt; FacError as `write` does, and if the engine cannot open the turn.
        """
        sampling = sampling or self.sampling
        ids = [f"{prompt.role}-{prompt.id}" for prompt in prompts]
        if len(set(ids)) < len(ids):
            raise ValueError(f"{what}: two prompts have the same role, feature, step and attempt")
        if not prompts:
            return []
        requests = [
            replace(self._request(p, request_seed(self.seed, p.role, p.feature, p.step, p.attempt), text), id=name)
            for name, p, text in zip(ids, prompts, self._rendered(prompts), strict=True)
        ]
        folder = self._folder([asdict(sampling), *([r.id, r.messages, r.seed, r.opens, *_shifts(r)] for r in requests)])
        folder.mkdir(parents=True, exist_ok=True)
        completions = ask(self.model, requests, sampling, folder / REPLIES, what)
        declines = refusals_of(self.prompts.rules).declines
        replies = [
            Reply(p, said, said.refused or declines(said.text), _digest(r), r.seed)
            for p, r, said in zip(prompts, requests, (completions[r.id] for r in requests), strict=True)
        ]
        self._logs[folder / REPLIES] = sum(reply.refused for reply in replies)
        return replies

    def spent(self) -> Spent:
        """What all that was written and asked so far took, also where it was found again."""
        lines = [line for log in self._logs if log.exists() for line in log.read_text(encoding="utf-8").splitlines()]
        said = [json.loads(line)["reply"] for line in lines]
        prompts, replies = (sum(reply[of] for reply in said) for of in ("prompt_tokens", "completion_tokens"))
        return Spent(len(said), prompts, replies, sum(self._logs.values()))

    def sample(self, reply: Reply, parsed: ParsedReply | None = None) -> Sample:
        """The sample that a reply holds; `parsed`: what it comes to, where that is not read from this reply alone.

        It is not encoded: what is written for no feature has no activation to choose by.
        """
        asked = "" if reply.asked.opens != "assistant" else self.prompts.render(reply.asked.role, **reply.asked.values)
        example, why = parsed or read_reply(self.schema, reply.completion, self.prompts.rules, asked)
        chats = [] if example is None else self.schema.chats(example)
        return Sample(
            None, reply.asked.step, reply.asked.attempt, example, reply.completion.raw, reply.prompt,
            self.model.identity, reply.seed, None, None, text=self._text(chats[0]) if chats else "",
            chats=max(len(chats), 1), rejected_because=why,
        )  # fmt: skip

    def _rendered(self, prompts: Sequence[Prompt]) -> list[str]:
        return [self.prompts.render(prompt.role, **prompt.values) for prompt in prompts]

    def _request(self, prompt: Prompt, seed: int, text: str) -> Request:
        return Request(prompt.id, prompt.messages(text), seed, prompt.opens, prompt.shift)

    def _folder(self, asked: object) -> Path:
        """Where the replies to these requests are kept; they count as spent."""
        folder = self.folder / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        self._logs.setdefault(folder / REPLIES, 0)
        return folder

    def _sample(self, prompt: Prompt, request: Request, reply: Completion) -> Sample:
        """The sample of a reply, not yet encoded."""
        text = request.messages[0]["content"]
        example, rejected_because = read_reply(self.schema, reply, self.prompts.rules, text)
        if self.schema is TEXT and example is not None and self.prompts.is_repeated(example.text):
            example, rejected_because = None, SCAFFOLD
        return Sample(
            prompt.feature, prompt.step, prompt.attempt, example, reply.raw, _digest(request), self.model.identity,
            request.seed, rejected_because=rejected_because,
        )  # fmt: skip

    def _encoded(self, samples: Sequence[Sample], folder: Path) -> list[Sample]:
        """The samples with their own activations; the whole matrix is written to `folder`."""
        extractor = self.extractor()
        # A reply without an example is encoded as an empty chat, so that rows of the matrix and samples stay aligned.
        groups = [[[]] if s.example is None else self._chats(s.example) for s in samples]
        chats = [chat for group in groups for chat in group]
        owners = [s.feature for s, group in zip(samples, groups, strict=True) for _ in group if s.feature is not None]
        if chats and not owners:  # written for no feature
            extractor.extract(chats, folder, len(chats))
            return [
                replace(s, chats=len(group), text=self._text(group[0]), activation=None, relative_activation=None)
                for s, group in zip(samples, groups, strict=True)
            ]
        own = extractor.extract(chats, folder, len(chats), watch=owners)
        encoded, start = [], 0
        for sample, group in zip(samples, groups, strict=True):
            best = max(range(start, start + len(group)), key=lambda i: own.values[i])
            start += len(group)
            sample = replace(sample, chats=len(group), text=self._text(chats[best]))
            if (activation := own.values[best]) > 0:
                span = extractor.span(chats[best], own.tokens[best], self.span_tokens).text
                relative = self._relative(sample.feature, activation)
                sample = replace(sample, activation=activation, relative_activation=relative, span=span)
            encoded.append(sample)
        return encoded

    def _relative(self, feature: int | None, activation: float) -> float:
        assert feature is not None
        top = float(self.anchor_max[feature])
        return activation / top if top else 0.0

    def _chats(self, example: Any) -> list[list[Message]]:
        """The chats of an example, each with the label behind what is said last."""
        chats = self.schema.chats(example)
        return [[*chat[:-1], {**chat[-1], "content": chat[-1]["content"] + self.label}] for chat in chats]

    def _text(self, chat: Sequence[Message]) -> str:
        """What a chat says, without the label."""
        return " ".join(message["content"] for message in chat).removesuffix(self.label)


def _shifts(request: Request) -> list[str]:
    return [] if request.shift is None else [request.shift.name]


def _digest(request: Request) -> str:
    """Of the rendered prompt; of nothing where there is none."""
    text = request.messages[0]["content"] if request.messages else ""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
