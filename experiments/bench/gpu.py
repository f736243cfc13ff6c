"""Speed and memory at the paper's size on one GPU, through the code that runs there, with random weights: no downloads.

    python -m experiments.bench.gpu [--out results/gpu] [--minutes 6] [--parts features,sft]
    python -m experiments.bench.gpu --tiny --out DIR    the same at a tiny size: seconds, on a CPU too

Writes DIR/<device>.json and prints it as a table. The model has the shape of Llama-3.1-8B, the SAE that of the paper
(4096 to 65,536, Top-K 20), settings are those of scale=paper. Texts are queries of the lab, strung together to the
lengths of real data: the lab's tokenizer uses 1,536 of the 128,256 ids, which changes no cost.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils import logging

from experiments.bench.clock import Clock, Figures, measure_peak
from experiments.bench.phases import kernels, phases, work
from experiments.bench.shapes import Shape, describe, random_backbone, random_sae, texts_of, write_model
from experiments.bench.training import classifier, reward, sft
from experiments.harness.results import provenance, versions
from fac.backbone import ModelRef, default_device, load_tokenizer
from fac.chat import as_chat
from fac.errors import FacError, closest
from fac.features.extract import Extractor
from fac.features.settings import FeatureSettings
from fac.jsonl import write_json_atomic
from fac.llm.base import ChatModel, Request, Sampling
from fac.provenance import REPOSITORY


@dataclass(frozen=True)
class Size(Shape):
    """What is run. Lengths are mean tokens; lengths of texts are log-normal, as those of real queries are."""

    texts: int = 3000
    query_tokens: int = 178  # of the paper's corpus (App. J)
    pair_tokens: int = 300  # a prompt with a reply
    lesson_tokens: int = 700  # an instruction with its answer
    longest: int = 512
    steps: int = 10
    requests: int = 64
    new_tokens: int = 128
    matmul: int = 8192  # side of the matrices that the peak is measured with
    block: int = 8192  # tokens that the SAE is timed on


TINY = Size(
    hidden=64, intermediate=128, layers=4, heads=2, kv_heads=1, vocabulary=1536, cut=2, width=256, k=4,
    texts=12, query_tokens=20, pair_tokens=20, lesson_tokens=20, longest=64,
    steps=3, requests=2, new_tokens=4, matmul=128, block=64,
)  # fmt: skip


@dataclass(frozen=True)
class Bench(Clock):
    """One run: what the parts share."""

    size: Size
    folder: Path  # of the model, whose weights the features do without
    ref: ModelRef
    peak: Figures  # what `measure_peak` found
    notes: dict[str, str] = field(default_factory=dict)  # by part, what is written beside the figures

    def texts(self, count: int, mean: int, longest: int) -> list[str]:
        """Texts of about these many tokens, the same at every run."""
        return texts_of(load_tokenizer(self.ref), count, mean, longest)


# The parts


def features(bench: Bench) -> Figures:
    """Texts to features as scale=paper measures them, and each of its steps alone."""
    size, figures = bench.size, Figures()
    with bench.watched(figures, "load"):
        backbone = random_backbone(bench.folder, size, bench.device, torch.bfloat16)
    sae = random_sae(size, bench.device, torch.float32)
    settings = paper_features() if size.width > TINY.width else FeatureSettings(max_tokens=size.longest)
    extractor = Extractor(backbone, sae, settings)
    chats = [as_chat(text) for text in bench.texts(size.texts, size.query_tokens, size.longest)]
    with tempfile.TemporaryDirectory() as scratch:
        extractor.extract(chats[: max(size.texts // 10, 1)], Path(scratch))
        with bench.watched(figures, "extract"):
            extractor.extract(chats, Path(scratch))
    figures |= phases(bench, size, extractor, chats, 1e12 * bench.peak["bf16_tflops"])
    seconds = figures["extract_s"]
    done = work(size, figures["tokens"], figures["content_tokens"])
    figures |= {"tokens_per_s": figures["tokens"] / seconds}
    figures["share_of_bf16_peak"] = done / seconds / 1e12 / bench.peak["bf16_tflops"]
    figures["sae_s"] = figures["content_tokens"] * figures["pooled_us_per_token"] / 1e6
    figures["other_share"] = 1 - (figures["layers_s"] + figures["sae_s"]) / seconds
    bench.notes["features"] = kernels(extractor, chats[: max(size.texts // 10, 1)])
    return figures


def generation(bench: Bench) -> Figures:
    """Replies drawn at T 0.8, p 0.9 by the transformers engine."""
    from fac.llm.transformers import TransformersChat

    return _generated(bench, TransformersChat(bench.ref))


def vllm(bench: Bench) -> Figures:
    """The same by the vLLM engine."""
    if importlib.util.find_spec("vllm") is None:
        raise FacError("vLLM is not installed.")
    from fac.llm.vllm import VllmChat

    engine = VllmChat(bench.ref)
    try:
        return _generated(bench, engine)
    finally:
        engine.close()


def _generated(bench: Bench, engine: ChatModel) -> Figures:
    size, figures = bench.size, Figures()
    texts = bench.texts(size.requests, size.query_tokens, size.longest)
    requests = [Request(str(i), as_chat(text), i) for i, text in enumerate(texts)]
    with bench.watched(figures, "start"):
        engine.chat(requests, Sampling(max_new_tokens=2))
    with bench.watched(figures, "chat"):
        replies = engine.chat(requests, Sampling(max_new_tokens=size.new_tokens))
    new = sum(reply.completion_tokens for reply in replies)
    return figures | {"requests": len(requests), "new_tokens": new, "new_tokens_per_s": new / figures["chat_s"]}


PARTS: dict[str, Callable[[Bench], Figures]] = {
    part.__name__: part for part in (features, classifier, reward, sft, generation, vllm)
}


WEIGHTLESS = {"features"}  # parts that make their weights where they use them


# What they run on


def written_model(bench: Bench) -> Figures:
    """The model as a folder, for parts that load it."""
    figures: Figures = {}
    with bench.watched(figures, "write"):
        figures["gib"] = write_model(bench.folder, bench.size, bench.device)
    return figures


def paper_features() -> FeatureSettings:
    """How scale=paper measures texts."""
    return FeatureSettings(**yaml.safe_load((REPOSITORY / "conf" / "scale" / "paper.yaml").read_text())["features"])


def run(size: Size, parts: Sequence[str], minutes: float, file: Path, device: torch.device) -> dict[str, Any]:
    """Time the parts one after the other; what is known stands in `file` after each. Returns what stands there."""
    start = time.perf_counter()
    record: dict[str, Any] = {
        "device": device_name(device),
        "date": datetime.now(UTC).date().isoformat(),
        "size": asdict(size),
        "versions": versions(),
        "provenance": provenance(),
        "figures": {},
        "skipped": {},
    }
    with tempfile.TemporaryDirectory(prefix="fac-bench-") as scratch:
        folder = Path(scratch)
        bench = Bench(device, size, folder, ModelRef(scratch), measure_peak(Clock(device), size.matmul))
        record["figures"]["peak"] = bench.peak
        describe(folder, size)
        for name in parts:
            empty(device)
            try:
                if time.perf_counter() - start > 60 * minutes:
                    raise FacError(f"{minutes:g} minutes were over.")
                if name not in WEIGHTLESS and "model" not in record["figures"]:
                    record["figures"]["model"] = written_model(bench)
                record["figures"][name] = PARTS[name](bench)
            except (ImportError, FacError, torch.OutOfMemoryError) as error:
                record["skipped"][name] = str(error).splitlines()[0]
            record["seconds"] = time.perf_counter() - start
            write_json_atomic(file, rounded(record))
            for part, note in bench.notes.items():
                file.with_suffix(f".{part}.txt").write_text(note, encoding="utf-8")
    return rounded(record)


def empty(device: torch.device) -> None:
    """Give back the GPU memory of the part before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def rounded(value: Any) -> Any:
    """Four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return {key: rounded(held) for key, held in value.items()} if isinstance(value, Mapping) else value


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def table(record: Mapping[str, Any]) -> str:
    """The figures, one a line."""
    lines = [f"{record['device']}, {record['date']}"]
    for part, figures in record["figures"].items():
        lines += [f"{part:11s} {name:26s} {value:>12,.4g}" for name, value in figures.items()]
    return "\n".join([*lines, *(f"{part:11s} skipped: {why}" for part, why in record["skipped"].items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a failure said in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "results" / "gpu", help="folder of the .json")
    parser.add_argument("--minutes", type=float, default=6, help="no part starts later")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas")
    parser.add_argument("--tiny", action="store_true", help="a tiny size, to try the bench itself")
    options = parser.parse_args(arguments)
    parts, device = options.parts.split(","), default_device()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        for part in parts:
            if part not in PARTS:
                raise FacError(f"There is no part {part}{closest(part, PARTS)}.")
        if device.type != "cuda" and not options.tiny:
            raise FacError("There is no GPU here: run the bench where one is, or try it with --tiny.")
        name = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
        file = options.out / f"{name}{'-tiny' if options.tiny else ''}.json"
        record = run(TINY if options.tiny else Size(), parts, options.minutes, file, device)
    except FacError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(record))
    print(f"results: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
