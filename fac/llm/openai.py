"""The `openai` engine: any server that speaks OpenAI's chat completions, a hosted API or a `vllm serve` of one's own.

Knows: HTTP (through the openai package: time limits, retries with jitter, Retry-After), prices, the budget, and the
file of paid replies. Does not know: prompts. Such a server takes messages, not ids: it renders them with its own
template. The key is read from the environment and goes into the Authorization header, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from fac.errors import FacError
from fac.llm.base import Completion, Request, Sampling, thought

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

SEEDS = 1 << 31  # servers take seeds below it; the vllm engine takes them modulo the same
KEPT = "replies so far are kept"


@dataclass(frozen=True)
class OpenAISettings:
    """Which server and model, and what they may cost. Raises FacError for a value that gives a secret away."""

    model: str
    url: str = "https://api.openai.com/v1"
    key_env: str | None = "OPENAI_API_KEY"  # NAME of the environment variable with the key; None: no key is asked for
    concurrency: int = 16  # requests under way at once
    timeout: float = 120.0  # seconds for one reply
    retries: int = 8  # of one request, at growing intervals; a server's Retry-After is kept to, up to two minutes
    seeds: bool = True  # False for a server that refuses them
    budget_usd: float | None = None  # what all replies in the file may have cost together
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # USD per million tokens: prompt, reply

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise FacError(f"The url {self.url} is none: give the server's base, such as http://localhost:8000/v1.")
        if address.username or address.password or address.query:
            raise FacError("The url of the openai engine holds a name, a password or a query: put the key in key_env.")
        if self.key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", self.key_env):
            raise FacError("key_env is the NAME of an environment variable, such as OPENAI_API_KEY, not a key.")
        if self.concurrency < 1 or self.timeout <= 0 or self.retries < 0:
            raise FacError("concurrency and timeout of the openai engine must be above 0, and retries at least 0.")
        if self.budget_usd is not None and self.model not in self.prices:
            raise FacError(
                f"The price of {self.model} is not known, so no budget can be kept: add it to prices "
                f"('prices={{{self.model}: [PROMPT, REPLY]}}', USD per million tokens), or set budget_usd=null."
            )

    @property
    def host(self) -> str:
        return str(urlsplit(self.url).hostname)

    def key(self) -> str:
        """The key, from the environment. Raises FacError if it is not there."""
        key = "none" if self.key_env is None else os.environ.get(self.key_env, "").strip()
        if not key:
            raise FacError(
                f"There is no key for {self.host}: export {self.key_env}=..., or set key_env=null for a server that "
                f"asks for none."
            )
        return key

    def check(self) -> None:
        """Raise FacError if what the engine needs is not at hand."""
        self.key()

    def cost(self, prompt_tokens: int, reply_tokens: int) -> float:
        """USD; 0 where the price is not known."""
        prompt, reply = self.prices.get(self.model, (0.0, 0.0))
        return (prompt * prompt_tokens + reply * reply_tokens) / 1e6


def estimated_tokens(messages: Iterable[Mapping[str, str]]) -> int:
    """Tokens of a prompt by its characters, on the high side for English: three a token, and ten for every turn."""
    return sum(math.ceil(len(message["content"]) / 3) + 10 for message in messages)


class OpenAIChat:
    """A ChatModel behind a URL. `say` is told what the requests will cost, before they are made."""

    batch = 1_000_000  # replies are kept one by one, so a stage need not be cut

    def __init__(self, settings: OpenAISettings, file: Path, say: Callable[[str], None] | None = None) -> None:
        """`file` holds the paid replies; engines and processes may share it."""
        self.settings = settings
        self.identity = f"openai:{settings.model}@{settings.host}"
        self._say = say or logging.getLogger(__name__).info
        self._file = file
        self._lock = threading.Lock()
        self._reserved = 0.0  # USD that requests under way may cost at most

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        bodies = [self._body(request, sampling) for request in requests]
        keys = [_digest(self.settings.host, body) for body in bodies]
        found = self._replies.find(keys)
        missing = {key: body for key, body in zip(keys, bodies, strict=True) if key not in found}
        if missing:
            _ = self._client  # made here, before many threads ask for it
            self._announce(missing.values())
            found |= self._fetch(missing)
        return [found[key] for key in keys]

    def close(self) -> None:
        for name in ("_client", "_replies"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        body = {
            "model": self.settings.model,
            "messages": request.messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
        }
        return body | ({"seed": request.seed % SEEDS} if self.settings.seeds else {})

    def _announce(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        settings, bodies = self.settings, list(bodies)
        told = f"{settings.model} at {settings.host}: {len(bodies)} requests"
        if settings.model in settings.prices:
            told += f", at most about {sum(map(self._bound, bodies)):.2f} USD (an estimate: prompts by their length, "
            told += f"replies as long as allowed); {self._replies.spent():.2f} USD spent so far"
            told += "" if settings.budget_usd is None else f" of {settings.budget_usd:.2f}"
        self._say(told)

    def _bound(self, body: Mapping[str, Any]) -> float:
        return self.settings.cost(estimated_tokens(body["messages"]), body["max_tokens"])

    def _fetch(self, bodies: Mapping[str, dict[str, Any]]) -> dict[str, Completion]:
        found: dict[str, Completion] = {}
        with (
            tqdm(total=len(bodies), desc=self.settings.model, unit="reply", leave=False) as bar,
            ThreadPoolExecutor(self.settings.concurrency) as pool,
        ):
            futures = {pool.submit(self._answer, key, body): key for key, body in bodies.items()}
            try:
                for future in as_completed(futures):
                    found[futures[future]] = future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what is under way is paid for: it is waited for
                raise
        return found

    def _answer(self, key: str, body: dict[str, Any]) -> Completion:
        with self._budgeted(body):
            completion = self._asked(body)
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
                    f"budget_usd and run again; {KEPT}."
                )
            self._reserved += bound
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= bound

    def _asked(self, body: dict[str, Any]) -> Completion:
        """One reply. openai tries again where the server or the wire fails, tenacity what cannot be read."""
        import openai
        from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        settings = self.settings
        trying = Retrying(
            retry=retry_if_exception_type(_UnreadableError),
            stop=stop_after_attempt(settings.retries + 1),
            wait=wait_random_exponential(multiplier=0.5, max=8),
        )
        try:
            return trying(self._ask_once, body)
        except RetryError:
            problem = f"answered {settings.retries + 1} times with what is no chat completion: check url"
        except openai.APITimeoutError:
            problem = f"did not answer within {settings.timeout:g} seconds: raise timeout, or lower concurrency"
        except openai.APIConnectionError as error:
            problem = f"cannot be reached ({error.__cause__ or error}): start the server, or set url"
        except openai.APIStatusError as error:
            problem = self._refusal(error)
        problem = " ".join(self._without_key(problem).split())
        raise FacError(f"{settings.url} {problem}, and run again; {KEPT}.")

    def _ask_once(self, body: dict[str, Any]) -> Completion:
        text = self._client.chat.completions.with_raw_response.create(**body).text
        return read_reply(self._without_key(text), estimated_tokens(body["messages"]))

    def _without_key(self, text: str) -> str:
        """A server may say the key back. What is shorter than any key (none, EMPTY) is no secret."""
        return text.replace(self._key, "KEY") if len(self._key) >= 12 else text

    def _refusal(self, error: openai.APIStatusError) -> str:
        code, settings = error.status_code, self.settings
        if code in (401, 403):
            return f"refuses the key in {settings.key_env} (status {code}): export one that is valid"
        reason = error.message[:300]
        if code == 429:
            return f"takes no more requests for now ({reason}): wait, or lower concurrency"
        if code >= 500:
            return f"fails (status {code}) even after {settings.retries} retries: wait until it is mended"
        return f"refuses the request (status {code}, {reason}): set model, seeds or max_new_tokens to what it takes"

    @cached_property
    def _key(self) -> str:
        return self.settings.key()

    @cached_property
    def _client(self) -> openai.OpenAI:
        import openai

        settings = self.settings
        return openai.OpenAI(
            base_url=settings.url, api_key=self._key, timeout=settings.timeout, max_retries=settings.retries
        )

    @cached_property
    def _replies(self) -> PaidReplies:
        return PaidReplies(self._file)


class _UnreadableError(Exception):
    """An answer that is no chat completion: cut off on its way, without choices, or something else altogether."""


def read_reply(text: str, prompt_tokens: int) -> Completion:
    """A chat completion's JSON as a Completion; `prompt_tokens` stands in where the server counts none.

    Raises _UnreadableError for JSON that is cut or holds no choice.
    """
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        raw = _raw(message)
        counted = usage.get("completion_tokens")
        return Completion(
            raw,
            int(usage.get("prompt_tokens") or prompt_tokens),
            int(estimated_tokens([{"content": raw}]) if counted is None else counted),
            choice.get("finish_reason") != "length",
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _UnreadableError(str(error)) from None


def _raw(message: Mapping[str, Any]) -> str:
    """All that a message holds: the thoughts that a server sends apart, marked as such, then the words.

    Content is a text, or a list of parts that are texts or thoughts; of other parts (images, sounds) nothing is read.
    """
    thoughts = [text for key in ("reasoning_content", "reasoning") if isinstance(text := message.get(key), str)][:1]
    content, words = message.get("content"), []
    for part in [content] if isinstance(content, str | dict) else content or []:
        kind = "text" if isinstance(part, str) else str(part.get("type", "text"))
        if "think" in kind or "reason" in kind:
            thoughts.append(_thought_of(part))
        elif kind in ("text", "output_text", "refusal"):
            words.append(part if isinstance(part, str) else str(part.get("text") or part.get("refusal") or ""))
    said = "".join(words).strip() or str(message.get("refusal") or "").strip()
    return ("".join(thought(text) for text in thoughts if text.strip()) + said).strip()


def _thought_of(part: Mapping[str, Any]) -> str:
    """The text of a part that thinks: under its own name, or a list of parts again (Mistral's)."""
    held = next((part[key] for key in ("thinking", "reasoning", "text", "summary") if part.get(key)), "")
    parts = [held] if isinstance(held, str) else held
    return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in parts)


class PaidReplies:
    """Replies on disk, each written as it arrives (SQLite): what was paid for is never asked for again.

    Threads and processes may share a file. Failures are not kept. Raises FacError if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._clear_errors():
            self._base = sqlite3.connect(path, timeout=60, check_same_thread=False)
            with self._base:
                self._base.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT)")
                self._base.execute("CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY, usd REAL)")
                self._base.execute("INSERT OR IGNORE INTO spent VALUES (1, 0)")

    def find(self, keys: Iterable[str]) -> dict[str, Completion]:
        """Those that are there, by key."""
        found = {}
        with self._clear_errors():
            for key in keys:
                row = self._base.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = Completion(**json.loads(row[0]))
        return found

    def keep(self, key: str, reply: Completion, usd: float) -> None:
        """On disk when this returns."""
        with self._clear_errors(), self._base:
            self._base.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(asdict(reply))))
            self._base.execute("UPDATE spent SET usd = usd + ?", (usd,))

    def spent(self) -> float:
        """What all replies have cost, in USD."""
        with self._clear_errors():
            return self._base.execute("SELECT usd FROM spent").fetchone()[0]

    def close(self) -> None:
        self._base.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise FacError(
                f"The file of paid replies, {self._path}, cannot be used ({error}): mend that, or move it away."
            ) from None


def _digest(host: str, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([host, body], sort_keys=True).encode()).hexdigest()
