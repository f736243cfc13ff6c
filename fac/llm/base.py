"""What the harness asks of an LLM: `ChatModel`, and `ask`, which puts many requests to one and survives a kill.

Knows: requests, seeds, the log of finished replies. Does not know: engines, prompts, what replies mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from fac.chat import Message
from fac.jsonl import AppendLog


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn. temperature 0 is greedy."""

    temperature: float = 0.8
    top_p: float = 0.9
    max_new_tokens: int = 900


@dataclass(frozen=True)
class Request:
    """One chat to continue. `seed` belongs to the request, so a reply does not depend on batch size or order."""

    id: str
    messages: list[Message]
    seed: int


@dataclass(frozen=True)
class Completion:
    """A reply. `finished` is False if it was cut at `max_new_tokens`."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool


class ChatModel(Protocol):
    """An LLM."""

    identity: str  # names model, revision and engine, for store keys and provenance
    batch: int  # requests it works through well at once; `ask` hands over no more

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Reply to every request, in order."""
        ...


def request_seed(*parts: object) -> int:
    """Seed of one request: hash of (run seed, feature, step, attempt), below 2^63."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:15], 16)


def ask(
    model: ChatModel, requests: Sequence[Request], sampling: Sampling, log: Path, what: str
) -> dict[str, Completion]:
    """Replies by request id. Each batch is appended to `log` when it is done; a rerun continues behind the last one.

    Batches of `model.batch` are cut from the full list, so a resumed run computes each with the same neighbours as an
    unbroken one.
    """
    with AppendLog(log) as finished, tqdm(total=len(requests), desc=what, unit="request", leave=False) as bar:
        replies = {record["id"]: Completion(**record["reply"]) for record in finished}
        for start in range(0, len(requests), model.batch):
            part = requests[start : start + model.batch]
            if not all(request.id in replies for request in part):
                completions = model.chat(part, sampling)
                finished.append([{"id": r.id, "reply": asdict(c)} for r, c in zip(part, completions, strict=True)])
                replies.update({r.id: c for r, c in zip(part, completions, strict=True)})
            bar.update(len(part))
    return {request.id: replies[request.id] for request in requests}
