"""The `openai` engine: any server that speaks OpenAI's chat completions, a hosted API or a `vllm serve` of one's own.

Such a server takes messages, not ids: it renders them with its own template. The key is read from the environment and
goes into the Authorization header, and nowhere else. What was answered is kept in a file (`fac.llm.replies`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tqdm import tqdm

from fac.errors import FacError
from fac.llm.answers import LIMITS, Problem, estimated_tokens, read_answer
from fac.llm.base import Completion, Request, Sampling, check_unshifted
from fac.llm.refusals import way_out
from fac.llm.replies import PaidReplies
from fac.llm.threads import in_threads

if TYPE_CHECKING:
    import openai

SEEDS = 1 << 31  # servers take seeds below it; the vllm engine takes them modulo the same
KEPT = "replies so far are kept"
GRACE = 5.0  # seconds for what is under way when a run is interrupted
LONGEST_WAIT = 120.0  # seconds of a Retry-After that are kept to
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class OpenAISettings:
    """Which server and model, and what they may cost. Raises FacError for a value that gives a secret away."""

    model: str
    url: str = "https://api.openai.com/v1"
    key_env: str | None = "OPENAI_API_KEY"  # NAME of the environment variable with the key; None: no key is asked for
    concurrency: int = 16  # requests under way at once
    timeout: float = 120.0  # seconds for one reply
    retries: int = 8  # of one request, at growing intervals; a server's Retry-After is kept to, up to two minutes
    leave_out: tuple[Literal["temperature", "top_p", "seed"], ...] = ()  # what the server refuses: it has its own
    budget_usd: float | None = None  # what all replies in the file may have cost together
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # USD per million tokens: prompt, reply
    place: str = field(default="llm", compare=False)  # in the configuration, for sentences that name its keys

    def __post_init__(self) -> None:
        try:
            address = urlsplit(self.url.strip())
            usable = address.scheme in PORTS and address.hostname and (address.port or True)
        except ValueError:  # a port that is none, brackets without an address
            usable = False
        if not usable:
            raise FacError(
                f"{self.place}.url={self.url} is no address: give the server's base, such as http://localhost:8000/v1."
            )
        if address.username or address.password or address.query:
            raise FacError(
                f"{self.place}.url holds a name, a password or a query: name the key's variable in "
                f"{self.place}.key_env."
            )
        if self.key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", self.key_env):
            raise FacError(
                f"{self.place}.key_env is the NAME of an environment variable, such as OPENAI_API_KEY, not a key."
            )
        if self.concurrency < 1 or self.timeout <= 0 or self.retries < 0:
            raise FacError(
                f"{self.place}.concurrency and {self.place}.timeout must be above 0, and {self.place}.retries at "
                f"least 0."
            )
        if self.budget_usd is not None and self.model not in self.prices:
            raise FacError(
                f"The price of {self.model} is not known, so no budget can be kept: set "
                f"'{self.place}.prices={{{self.model}: [PROMPT, REPLY]}}' in USD per million tokens, or "
                f"{self.place}.budget_usd=null."
            )

    @property
    def base(self) -> str:
        """The url in one spelling, so that one server has one name: no endpoint, no usual port, no final slash."""
        address = urlsplit(self.url.strip())
        host = f"[{address.hostname}]" if ":" in str(address.hostname) else str(address.hostname)
        port = "" if address.port in (None, PORTS[address.scheme]) else f":{address.port}"
        path = address.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
        return f"{address.scheme}://{host}{port}{path}"

    @property
    def identity(self) -> str:
        """For store keys and provenance: the model, where it is asked, and what of a request is left to the server."""
        left = f" without {', '.join(sorted(self.leave_out))}" if self.leave_out else ""
        return f"openai:{self.model}@{self.base}{left}"

    def key(self) -> str:
        """The key, from the environment. Raises FacError if it is not there."""
        key = "none" if self.key_env is None else os.environ.get(self.key_env, "").strip()
        if not key:
            raise FacError(
                f"There is no key for {self.base}: export {self.key_env}=..., or set {self.place}.key_env=null for a "
                f"server that asks for none."
            )
        return key

    def check(self) -> None:
        """Raise FacError if what the engine needs is not at hand."""
        self.key()

    def cost(self, prompt_tokens: int, reply_tokens: int) -> float:
        """USD; 0 where the price is not known."""
        prompt, reply = self.prices.get(self.model, (0.0, 0.0))
        return (prompt * prompt_tokens + reply * reply_tokens) / 1e6


class OpenAIChat:
    """A ChatModel behind a URL. `say` is told what the requests will cost, and how many replies are here already."""

    engine = "openai"
    batch = 1_000_000  # replies are kept one by one, so a stage need not be cut

    def __init__(self, settings: OpenAISettings, file: Path, say: Callable[[str], None] | None = None) -> None:
        """`file` holds the paid replies; engines and processes may share it."""
        self.settings = settings
        self.identity = settings.identity
        self.say = say or logging.getLogger(__name__).info
        self.file = file
        self._lock = threading.Lock()
        self._reserved = 0.0  # USD that requests under way may cost at most
        self._limit = LIMITS[0]  # the name of the limit that the server takes, once it has refused the other
        self._told: set[str] = set()  # what befell requests that are tried again

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        check_unshifted(requests, "openai")
        bodies = [self._body(request, sampling) for request in requests]
        keys = [_digest(self.settings.base, body) for body in bodies]
        found = self._replies.find(keys)
        missing = {key: body for key, body in zip(keys, bodies, strict=True) if key not in found}
        self._announce(missing.values(), len(found))
        if missing:
            _ = self._client  # made here, before many threads ask for it
            found |= self._fetch(missing)
        return [found[key] for key in keys]

    def close(self) -> None:
        for name in ("_client", "_replies"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        if request.opens != "assistant":  # such a server renders its own template, with a turn of the assistant's
            raise FacError(
                f"{self.settings.base} cannot write a user's turn, which this method asks for: choose "
                f"{self.settings.place}=transformers or {self.settings.place}=vllm."
            )
        body = {
            "model": self.settings.model,
            "messages": request.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed % SEEDS,
        }
        return {name: value for name, value in body.items() if name not in self.settings.leave_out}

    def _announce(self, bodies: Iterable[Mapping[str, Any]], reused: int) -> None:
        settings, bodies = self.settings, list(bodies)
        told = f"{settings.model} at {settings.base}: {len(bodies)} requests"
        if reused:
            told += f", {reused} replies reused from {self.file}"
        if bodies and settings.model in settings.prices:
            told += f", at most about {sum(map(self._bound, bodies)):.2f} USD (an estimate: prompts by their length, "
            told += f"replies as long as allowed); {self._replies.spent():.2f} USD spent so far"
            told += "" if settings.budget_usd is None else f" of {settings.budget_usd:.2f}"
        if bodies or reused:
            self.say(told)

    def _bound(self, body: Mapping[str, Any]) -> float:
        return self.settings.cost(estimated_tokens(body["messages"]), body["max_tokens"])

    def _fetch(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Completion]:
        def answer(key: str, stop: threading.Event) -> Completion:
            return self._answer(key, bodies[key], stop)

        def patience(error: BaseException, under_way: int) -> float:
            if isinstance(error, Exception):  # what is under way is paid for: it is waited for
                return self.settings.timeout
            if under_way:
                self.say(f"stopping: up to {GRACE:g} seconds for {under_way} replies under way")
            return GRACE

        found: dict[str, Completion] = {}
        with (
            tqdm(total=len(bodies), desc=self.settings.model, unit="reply", leave=False) as bar,
            closing(in_threads(answer, bodies, self.settings.concurrency, patience)) as replies,
        ):
            for key, completion in replies:
                found[key] = completion
                bar.update()
        return found

    def _answer(self, key: str, body: dict[str, Any], stop: threading.Event) -> Completion:
        with self._budgeted(body):
            completion = self._asked(body, stop)
            usd = self.settings.cost(completion.prompt_tokens, completion.completion_tokens)
            self._replies.keep(key, completion, usd)
        return completion

    @contextmanager
    def _budgeted(self, body: Mapping[str, Any]) -> Iterator[None]:
        """Hold what a request may cost at most, so that those under way together cannot break the budget either."""
        bound, budget = self._bound(body), self.settings.budget_usd
        with self._lock:
            spent = self._replies.spent()
            if budget is not None and spent + self._reserved + bound > budget:
                raise FacError(
                    f"The budget of {budget:g} USD for {self.settings.model} is used up ({spent:.4f} spent): raise "
                    f"{self.settings.place}.budget_usd and run again; {KEPT}."
                )
            self._reserved += bound
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= bound

    def _asked(self, body: dict[str, Any], stop: threading.Event) -> Completion:
        """One reply, tried again where the server or the wire fails, but not after a stop."""
        failed = 0
        while True:
            limit = self._limit
            answer = self._ask_once(body, limit)
            if isinstance(answer, Completion):
                return answer
            if answer.is_filtered:
                return Completion("", estimated_tokens(body["messages"]), 0, True, refused=True)
            if limit == LIMITS[0] and answer.refuses(LIMITS[0]) and _is_name(answer):
                self._limit = LIMITS[1]
                continue
            failed += 1
            problem = way_out(answer, self.settings, failed)
            if not answer.passes or failed > self.settings.retries:
                break
            self._tell(answer, problem)
            if stop.wait(_pause(failed, answer)):
                break
        raise FacError(f"{self.settings.base} {problem}, and run again; {KEPT}.")

    def _ask_once(self, body: dict[str, Any], limit: str) -> Completion | Problem:
        import openai

        wire = {limit if name == "max_tokens" else name: value for name, value in body.items()}
        try:
            response = self._client.chat.completions.with_raw_response.create(**wire).http_response
        except openai.APITimeoutError:
            return Problem("timeout", "")
        except openai.APIConnectionError as error:
            return Problem("connection", self._without_key(" ".join(str(error.__cause__ or error).split())))
        except openai.APIStatusError as error:
            response = error.response
        return self._read(response.status_code, response.headers, self._without_key(response.text), body)

    def _read(
        self, status: int, headers: Mapping[str, str], text: str, body: Mapping[str, Any]
    ) -> Completion | Problem:
        """What an answer holds."""
        return read_answer(status, headers, text, estimated_tokens(body["messages"]))

    def _tell(self, problem: Problem, sentence: str) -> None:
        """Say once for each kind of failure that requests are tried again: a long silence looks like a hang."""
        name = f"{problem.kind} {problem.status}"
        with self._lock:
            if name in self._told:
                return
            self._told.add(name)
        what = sentence.rpartition(": ")[0]
        self.say(f"{self.settings.base} {what}: asked again, up to {self.settings.retries} times")

    def _without_key(self, text: str) -> str:
        """A server may say the key back. What is shorter than any key (none, EMPTY) is no secret."""
        return text.replace(self._key, "KEY") if len(self._key) >= 12 else text

    @cached_property
    def _key(self) -> str:
        return self.settings.key()

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        settings = self.settings
        return openai.OpenAI(base_url=settings.base, api_key=self._key, timeout=settings.timeout, max_retries=0)

    @cached_property
    def _replies(self) -> PaidReplies:
        return PaidReplies(self.file)


def _is_name(problem: Problem) -> bool:
    """Whether a limit is refused for its name, not for how much it allows."""
    told = f"{problem.said} {problem.code}".lower()
    if problem.status >= 500:
        return False
    return LIMITS[1] in told or "unsupported" in told or "not supported" in told or "unrecognized" in told


def _pause(failed: int, problem: Problem) -> float:
    """Seconds before the next try: what the server asks for, or twice as long each time, up to eight."""
    if problem.retry_after is not None:
        return min(problem.retry_after, LONGEST_WAIT)
    return min(0.5 * 2 ** (failed - 1), 8.0) * random.uniform(0.5, 1.0)


def _digest(base: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([base, body], sort_keys=True).encode()).hexdigest()
