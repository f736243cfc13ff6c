"""How likely the first token of a reply is, from a server of OpenAI's chat completions that says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fac.errors import FacError
from fac.llm.answers import Problem
from fac.llm.base import ChatModel, Completion, Request, Sampling
from fac.llm.openai import OpenAIChat


class LogprobChat(OpenAIChat):
    """Asks for one token and for the log-probabilities of the five likeliest in its place.

    `Completion.raw` is the choice that the server sent, as JSON: message, logprobs, finish_reason. Budget, file of paid
    replies and retries are those of every such engine.
    """

    def _body(self, request: Request, sampling: Sampling) -> dict[str, Any]:
        body = {
            "model": self.settings.model,
            "messages": request.messages,
            "max_tokens": 1,
            "temperature": 1,  # log-probabilities of what is drawn from, not of what a temperature makes of it
            "logprobs": True,
            "top_logprobs": 5,
        }
        return {name: value for name, value in body.items() if name not in self.settings.leave_out}

    def _read(
        self, status: int, headers: Mapping[str, str], text: str, body: Mapping[str, Any]
    ) -> Completion | Problem:
        answer = super()._read(status, headers, text, body)
        if not isinstance(answer, Completion) or answer.refused:
            return answer
        choice = json.loads(text)["choices"][0]
        if not ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs"):
            raise FacError(
                f"{self.settings.base} sends no log-probabilities of {self.settings.model} (logprobs, top_logprobs): "
                f"set {self.settings.place}.url and {self.settings.place}.model to a server and model that do."
            )
        return replace(answer, raw=json.dumps({name: choice.get(name) for name in ("message", "logprobs")}))


def with_logprobs(model: ChatModel) -> LogprobChat:
    """The same server and model, asked for log-probabilities. Raises FacError for an engine that is no server."""
    if not isinstance(model, OpenAIChat):
        raise FacError(
            f"{model.identity} tells no log-probabilities: name a server that does, such as "
            f"llm@annotator.roles.compare=gpt4_turbo, or have the project's own prompt judge."
        )
    return LogprobChat(model.settings, model.file, model.say)
