"""AlpacaEval 2's own annotator, `weighted_alpaca_eval_gpt4_turbo`, through the alpaca_eval package (0.6.6).

The prompt, the order in which two outputs are shown, and what becomes of the log-probabilities are the package's; who
is asked, at what cost, and what is kept of it are this project's (`fac.llm.logprobs`). A preference is 1 (the reference
is better) and the probability of the model's output among the two names.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eval.alpaca import ANNOTATOR, TEXTS, package
from eval.judging import Answers, Judged
from fac.errors import FacError
from fac.llm.base import ChatModel, Completion, Request, Sampling, ask
from fac.llm.logprobs import with_logprobs
from fac.llm.openai import OpenAISettings

HOSTS = ("openai.com", "openai.azure.com")  # who serves the annotator's model
ONE_TOKEN = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1)


@cache
def configured() -> dict[str, Any]:
    """The annotator's settings in the package: prompt_template, completions_kwargs, ..."""
    import yaml

    file = _folder() / ANNOTATOR / "configs.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))[ANNOTATOR]


def prompt() -> str:
    """The package's prompt, with the marks of its roles: what decides verdicts, for keys."""
    return (_folder() / configured()["prompt_template"]).read_text(encoding="utf-8")


def annotator_identity() -> str:
    """What of the package decides a verdict, for keys."""
    told = json.dumps([prompt(), configured()], sort_keys=True)
    return f"{ANNOTATOR} {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _folder() -> Path:
    return Path(package("constants").EVALUATORS_CONFIG_DIR)


def name_of(settings: OpenAISettings) -> str:
    """ANNOTATOR if its own model is asked where that is served; else whoever is, with its prompt."""
    host = str(urlsplit(settings.base).hostname)
    at_home = any(host == home or host.endswith(f".{home}") for home in HOSTS)
    own = at_home and settings.model == configured()["completions_kwargs"]["model_name"]
    return ANNOTATOR if own else f"{settings.identity} with the prompt of {ANNOTATOR}"


def annotate_weighted(judge: ChatModel, pairs: Sequence[Mapping[str, str]], log: Path) -> Judged:
    """Have `judge` say how likely it prefers the second output of every pair (TEXTS).

    Replies go to `log`, where a killed run continues. A pair for which the judge names neither output has no
    annotation, as in the package; `answers` counts it. Raises FacError for a judge that tells no log-probabilities, and
    if no pair is annotated.
    """
    counted: list[Completion] = []
    with closing(with_logprobs(judge)) as asked, _quiet():
        annotator = package("annotators").PairwiseAnnotator(annotators_config=ANNOTATOR, caching_path=None)
        single = annotator.annotators[ANNOTATOR]

        def completions(prompts: Sequence[str], **_: Any) -> dict[str, list[Any]]:
            chats = map(package("utils").prompt_to_chatml, (text.strip() for text in prompts))
            requests = [Request(str(number), chat, 0) for number, chat in enumerate(chats)]
            replies = ask(asked, requests, ONE_TOKEN, log, "compare")
            told = [replies[request.id] for request in requests]
            counted.extend(told)
            return {"completions_all": [_choice(reply) for reply in told]}

        single.fn_completions = completions
        found = annotator([{name: pair[name] for name in TEXTS} for pair in pairs], chunksize=None)
        who = name_of(asked.settings)
    preferences = {row["instruction"]: float(row["preference"]) for row in found if row["preference"] is not None}
    annotations = [
        {**{name: pair[name] for name in TEXTS}, "annotator": who, "preference": preferences[pair["instruction"]]}
        for pair in pairs
        if preferences.get(pair["instruction"], -1.0) >= 1
    ]
    if not annotations:
        raise FacError(
            f"{judge.identity} names neither output in any of {len(pairs)} answers: choose a model that answers m or "
            f"M, as AlpacaEval's prompt asks."
        )
    left_out = len(pairs) - len(annotations)
    refused = sum(reply.refused for reply in counted)
    return Judged(annotations, Answers(len(counted), left_out, 0, refused, left_out=True))


def _choice(reply: Completion) -> Any:
    """As the package's parser takes it; what was refused holds no log-probabilities, and has no annotation."""
    return {"logprobs": {"content": [{"top_logprobs": []}]}} if reply.refused else json.loads(reply.raw)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's log."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
