"""A server that speaks OpenAI's chat completions over real HTTP and fails as servers do, on request."""

from __future__ import annotations

import json
import math
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Body = dict[str, Any]


class Answer(NamedTuple):
    """An answer of its own kind; a text that is none of JSON goes as it is."""

    status: int
    content: object
    headers: Mapping[str, str] = {}


class FaultyServer:
    """Answers POST /v1/chat/completions with `reply(body)`, as a context manager; an `Answer` is sent as it is.

    `faults` maps the number of a request (from 0, as they arrive) to what befalls it: "timeout", "429" (with
    Retry-After: 1), "500", "truncated" (half of the JSON), "cut" (the connection breaks off in the body), "empty" (no
    choices), "html", "hang" (no answer while the server lives); "die" ends the server as a crash would, and `start`
    starts it again on the same port. Every error says the key back that came with the request.
    """

    def __init__(
        self,
        reply: Callable[[Body], str | Body | Answer],
        faults: Mapping[int, str] | None = None,
        always: str = "",
        pause: float = 0.0,
    ) -> None:
        self._reply, self._faults, self._always, self._pause = reply, dict(faults or {}), always, pause
        self._lock = threading.Lock()
        self._port, self._alive = 0, False
        self.asked: Counter[str] = Counter()  # by body
        self.answered: Counter[str] = Counter()  # whole replies, by body
        self.times: list[float] = []  # of arrival
        self.keys: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"server_under_test": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._http.daemon_threads = True
        self._port, self._alive = self._http.server_address[1], True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._alive = False
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> FaultyServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        name = json.dumps(body, sort_keys=True)
        key = handler.headers["Authorization"].removeprefix("Bearer ")
        with self._lock:
            fault = self._faults.pop(len(self.times), self._always)
            self.times.append(time.monotonic())
            self.asked[name] += 1
            self.keys.add(key)
        time.sleep(self._pause)
        if fault == "die":
            self._alive = False
            threading.Thread(target=self.stop, daemon=True).start()
        if not self._alive:  # connections that stay open die with the server
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "timeout":
            time.sleep(3)
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "hang":
            while self._alive:
                time.sleep(0.05)
            return
        if fault.isdigit():
            problem = {"error": {"message": f"status {fault} for the key {key}", "type": "x", "code": None}}
            _send(handler, int(fault), json.dumps(problem), {"Retry-After": "1"} if fault == "429" else {})
            return
        told = self._reply(body)
        if isinstance(told, Answer):
            text = told.content if isinstance(told.content, str) else json.dumps(told.content)
            _send(handler, told.status, text, told.headers)
            return
        whole = json.dumps(told if isinstance(told, dict) else completion(body, told))
        if fault == "truncated":
            whole = whole[: len(whole) // 2]
        elif fault == "empty":
            whole = json.dumps({**json.loads(whole), "choices": []})
        elif fault == "html":
            whole = f"<html>{key}</html>"
        elif not fault:
            with self._lock:
                self.answered[name] += 1
        _send(handler, 200, whole, {}, cut=fault == "cut")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_under_test: FaultyServer

    def do_POST(self) -> None:
        try:
            if self.path != "/v1/chat/completions":
                _send(self, 404, '{"detail": "Not Found"}', {})
            else:
                self.server_under_test._answer(self)
        except OSError:
            self.close_connection = True  # the client has gone

    def log_message(self, format: str, *args: object) -> None:
        pass


def _send(
    handler: BaseHTTPRequestHandler, status: int, text: str, headers: Mapping[str, str], cut: bool = False
) -> None:
    data = text.encode()
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2] if cut else data)
    if cut:
        handler.close_connection = True


def completion(body: Body, text: str, finish: str | None = "stop") -> Body:
    """A reply as the API sends it; a token is a word."""
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": len(text.split()), "total_tokens": 0},
    }


def logprobs(body: Body, names: Mapping[str, float]) -> Body:
    """A reply of one token, the likeliest of `names`, with the probabilities of all as a server tells them."""
    told = [{"token": name, "bytes": None, "logprob": math.log(share)} for name, share in names.items()]
    told.sort(key=lambda entry: -entry["logprob"])
    reply = completion(body, told[0]["token"], finish="length")
    reply["choices"][0]["logprobs"] = {"content": [{**told[0], "top_logprobs": told}], "refusal": None}
    return reply


def by_rule(body: Body) -> str:
    """Replies to the lab's prompts that a rule can give: a span of the prompt, put in words drawn by the seed."""
    prompt = body["messages"][0]["content"]
    if prompt.startswith(("does the summary", "is this about")):
        return "I think so. [[Yes]]"
    spans = [line[2:] for line in prompt.splitlines() if line.startswith("- ")]
    spans += [line.partition(": ")[2] for line in prompt.splitlines() if line.startswith("active part: ")]
    if prompt.startswith("explain"):
        return f"this is about {spans[0]}"
    start = random.Random(body["seed"]).choice(["how can i", "please tell me how to", "i want to"])
    return f"{start} {spans[0]}" if spans else f"{start} do that"
