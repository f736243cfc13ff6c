"""Speed of the LLM engines on this machine, with the lab's LLaMA: replies alone, and the lab's whole toxicity loop.

    python -m experiments.bench.engines [--out results/lab] [--requests 512] [KEY=VALUE ...]

Writes DIR/engines.json and prints a line per engine. KEY=VALUE changes the loop (`fac experiment=lab`), such as
tasks.toxicity.sizes.anchor=500. Times are of this machine as busy as it is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from experiments.bench.lab import lab_run
from experiments.harness.results import provenance, versions
from fac.backbone import ModelRef
from fac.jsonl import write_json_atomic
from fac.lab import shipped
from fac.lab.world.corpora import Sizes, draw_corpus
from fac.llm.base import ChatModel, Request, Sampling, request_seed
from fac.llm.settings import VllmSettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat
from fac.prompts import Prompts
from fac.provenance import REPOSITORY
from fac.store import RECORD

ENGINES: dict[str, Callable[[ModelRef], TransformersChat | VllmChat]] = {
    "transformers": TransformersChat,
    "vllm": VllmChat,
}
SAMPLING = Sampling(max_new_tokens=40)  # as in the lab


def main() -> None:
    """Time all engines and write what was found."""
    parser = argparse.ArgumentParser(description="Speed of the LLM engines on this machine.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "lab")
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    VllmSettings().check()
    found, tables = {}, {}
    for name, make in ENGINES.items():
        engine = make(ModelRef(str(shipped("llama"))))
        try:
            found[name] = replies(engine, options.requests)
        finally:
            engine.close()
        seconds, tables[name] = loop(name, options.overrides)
        found[name] |= seconds
        print(name, *(f"{key} {value:.1f}" for key, value in found[name].items()), sep="  ")
    record = {"engines": found, "requests": options.requests, "loop": options.overrides, "tables": tables}
    write_json_atomic(options.out / "engines.json", record | {"versions": versions(), "provenance": provenance()})


def replies(engine: ChatModel, count: int) -> dict[str, float]:
    """Seconds until the first reply, and the rate of `count` replies to the lab's prompts after that."""
    prompts = Prompts("lab/toxicity")
    texts = [example.text for example in draw_corpus("anchor", 0, Sizes(anchor=count))]
    requests = [
        Request(str(n), [{"role": "user", "content": prompts.render("write", summary=text, spans=[text])}], seed)
        for n, text in enumerate(texts)
        for seed in [request_seed(0, n)]
    ]
    began = time.perf_counter()
    engine.chat(requests[:1], SAMPLING)
    started = time.perf_counter()
    parts = [requests[at : at + engine.batch] for at in range(0, count, engine.batch)]
    done = [reply for part in parts for reply in engine.chat(part, SAMPLING)]
    seconds = time.perf_counter() - started
    tokens = sum(reply.completion_tokens for reply in done)
    return {"start_s": started - began, "replies_per_s": count / seconds, "tokens_per_s": tokens / seconds}


def loop(engine: str, overrides: list[str]) -> tuple[dict[str, float], dict[str, float | None]]:
    """One run of the lab from an empty store: seconds of it and of its stages that ask an LLM; its table, by cell."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        table = lab_run(Path(folder), [f"llm={engine}", *overrides], quiet=True)
        seconds = {"loop_s": time.perf_counter() - began}
        for stage in ("interpret", "synthesis"):
            records = Path(folder, "store", stage).glob(f"*/{RECORD}")
            seconds[f"{stage}_s"] = sum(json.loads(record.read_text())["seconds"] for record in records)
    return seconds, {f"{cell.row}/{cell.column}": cell.mean for cell in table.cells}


if __name__ == "__main__":
    main()
