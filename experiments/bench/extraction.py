"""Texts to features: this project's way beside others', as ratios of one interleaved run, and how it grows.

    python -m experiments.bench.extraction [--out bench.json] [--shapes S1,S2,S3] [--texts 200] [--rounds 3]
    python -m experiments.bench.extraction --device cuda [--shapes 8B] [--texts 2000]

Ratios are of CPU time on a CPU and of seconds on a GPU: above 1, ours is faster. S1 is the lab's LLaMA and SAE; S2, S3
and 8B have random weights (`SHAPES`). Everything but `ours` and `ours_bf16` starts from the same model in the dtype of
`ours`, float32 on a CPU and bfloat16 on a GPU. `flips` is the share of active entries (g_i > delta in either) that
bfloat16 moves across a threshold. `--growth` adds time and memory of 10^3 to 10^5 texts and of widths, each measured in
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from experiments.bench.clock import peak_mib
from experiments.bench.shapes import Shape, describe, random_sae, texts_of
from experiments.bench.ways import WAYS, Bench, ours
from experiments.harness.results import provenance, versions
from fac.backbone import Backbone, ModelRef, load_tokenizer
from fac.chat import as_chat
from fac.errors import FacError, closest
from fac.jsonl import write_json_atomic
from fac.lab import shipped
from fac.lab.world.corpora import Sizes, draw_corpus
from fac.pooled import Pooled
from fac.sae.load import load
from fac.sae.ref import SaeRef, recorded_layer

SHAPES: Mapping[str, Shape | None] = {
    "S1": None,  # the lab's LLaMA
    "S2": Shape(512, 1376, 8, 8, 8, 32000, 4, 65536, 20),
    "S3": Shape(576, 1536, 30, 9, 3, 49152, 15, 16384, 20),  # SmolLM2-135M
    "8B": Shape(),
}
THRESHOLDS = (0.0, 0.5, 1.0, 1.5, 2.0, 4.0)  # of the paper
SLOW = {"released": 8, "sae_lens": 2, "script": 2}  # ways that get the n-th part of the texts
GROWTH, WIDTHS = (1_000, 10_000, 100_000), (2048, 8192, 32768, 65536)


def bench_of(name: str, texts: int, device: torch.device, folder: Path, width: int | None = None) -> Bench:
    """The model, the SAE and texts of a shape: queries of the lab, or longer ones at the shape of 8B."""
    shape, dtype = SHAPES[name], torch.float32 if device.type == "cpu" else torch.bfloat16
    queries = draw_corpus("anchor", 0, Sizes(anchor=max(texts, 1)))
    chats = [as_chat(example.text) for example in queries]
    if shape is None:
        ref, sae_ref = ModelRef(str(shipped("llama"))), SaeRef(str(shipped("llama/sae")))
        layer = recorded_layer(sae_ref) or 1
        backbone = Backbone(ref, layer, device)
        full: Any = AutoModelForCausalLM.from_pretrained(ref.path, dtype=dtype)
        full = full.to(device).eval()
        half = Backbone(replace(ref, dtype="bfloat16"), layer, device)
        return Bench(name, full, backbone, half, load(sae_ref, backbone).module, chats)
    shape = shape if width is None else replace(shape, width=width)
    config = describe(folder, shape)
    torch.manual_seed(0)
    with torch.device(device):
        full = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()

    def first_layers(dtype: torch.dtype) -> Callable[[Any], Any]:
        def made(config: Any) -> Any:
            with torch.device(device):
                model = AutoModel.from_config(config, dtype=dtype)
            weights = full.model.state_dict()
            model.load_state_dict({name: weights[name] for name in model.state_dict()})
            return model

        return made

    ref = ModelRef(str(folder))
    backbone = Backbone(ref, shape.cut, device, first_layers(dtype))
    half = backbone if dtype == torch.bfloat16 else Backbone(ref, shape.cut, device, first_layers(torch.bfloat16))
    if name == "8B":
        chats = [as_chat(text) for text in texts_of(load_tokenizer(ref), texts, 178, 512)]
    return Bench(name, full, backbone, half, random_sae(shape, device, torch.float32).module, chats)


@torch.inference_mode()
def compare(bench: Bench, rounds: int, ways: Sequence[str]) -> dict[str, Any]:
    """Milliseconds per text of each way, and the median over rounds of its time over ours in the same round."""
    clock = time.process_time if bench.device.type == "cpu" else time.perf_counter
    parts = {way: replace(bench, chats=bench.chats[: len(bench.chats) // SLOW.get(way, 1)]) for way in ways}
    for part in parts.values():
        part.batches  # noqa: B018  made before they are timed
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(-1, rounds):  # the first warms up
        for way, part in parts.items():
            few = replace(part, chats=part.chats[:16]) if turn < 0 else part
            start = clock()
            WAYS[way](few)
            if bench.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 0:
                seconds[way].append((clock() - start) / len(part.chats))
    over = {way: statistics.median(s / o for s, o in zip(seconds[way], seconds["ours"], strict=True)) for way in ways}
    return {"ms_per_text": {way: 1e3 * statistics.median(held) for way, held in seconds.items()}, "over_ours": over}


def flips(bench: Bench) -> dict[str, float]:
    """Share of the entries above each threshold, in float32 or in bfloat16, that are not above it in both."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        ours(bench, Path(one))
        ours(bench, Path(other), product="bfloat16", half=True)
        exact, half = Pooled.load(Path(one)), Pooled.load(Path(other))
        either, moved = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
        for text in range(exact.n_texts):
            a, b = exact.row(text), half.row(text)
            for i, delta in enumerate(THRESHOLDS):
                either[i] += ((a > delta) | (b > delta)).sum()
                moved[i] += ((a > delta) != (b > delta)).sum()
    return {str(delta): float(m / max(e, 1)) for delta, m, e in zip(THRESHOLDS, moved, either, strict=True)}


def grown(name: str, texts: int, width: int | None) -> dict[str, float]:
    """CPU milliseconds per text, peak memory and bytes on disk of one extraction: a thousand texts, again and again."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as out:
        bench = bench_of(name, min(texts, 1000), torch.device("cpu"), Path(scratch), width)
        start = time.process_time()
        bench.extractor("float32").extract(islice(cycle(bench.chats), texts), Path(out))
        seconds = time.process_time() - start
        stored = sum(path.stat().st_size for path in Path(out).iterdir())
    return {"ms_per_text": 1e3 * seconds / texts, "peak_mib": peak_mib(), "bytes_per_text": stored / texts}


def growth() -> dict[str, Any]:
    """`grown` for more texts of the lab, and for wider SAEs on S2's layers."""

    def alone(*arguments: object) -> dict[str, float]:
        command = [sys.executable, "-m", "experiments.bench.extraction", "--grown", *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    return {
        "texts": {texts: alone("S1", texts, 0) for texts in GROWTH},
        "width": {width: alone("S2", 100, width) for width in WIDTHS},
    }


def table(record: Mapping[str, Any]) -> str:
    """What was measured, one line a way."""
    lines = []
    for name, held in record["shapes"].items():
        for way, ratio in held["over_ours"].items():
            lines.append(f"{name:4s} {way:18s} {held['ms_per_text'][way]:10.3f} ms/text {ratio:8.2f} x ours")
        lines.append(f"{name:4s} flips by bf16 " + " ".join(f"{delta}: {f:.2%}" for delta, f in held["flips"].items()))
    for kind, rows in record.get("growth", {}).items():
        for size, held in rows.items():
            said = " ".join(f"{what} {value:.4g}" for what, value in held.items())
            lines.append(f"{kind} {size}: {said}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a failure said in one sentence."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--shapes", help="with commas: S1,S2,S3 on a CPU, 8B on a GPU if left out")
    parser.add_argument("--ways", default=",".join(WAYS), help="with commas; ours is always there")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="also 10^3 to 10^5 texts and several widths")
    parser.add_argument("--grown", nargs=3, metavar=("SHAPE", "TEXTS", "WIDTH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.grown:
        shape, texts, width = options.grown
        print(json.dumps(grown(shape, int(texts), int(width) or None)))
        return 0
    device = torch.device(options.device)
    shapes = (options.shapes or ("S1,S2,S3" if device.type == "cpu" else "8B")).split(",")
    ways = list(dict.fromkeys(["ours", *options.ways.split(",")]))
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "date": datetime.now(UTC).date().isoformat(),
        "threads": torch.get_num_threads(),
        "texts": options.texts,
        "versions": versions(),
        "provenance": provenance(),
        "shapes": {},
    }
    try:
        for wanted, known in ((shapes, SHAPES), (ways, WAYS)):
            for name in wanted:
                if name not in known:
                    raise FacError(f"There is no {name}{closest(name, known)}.")
        for name in shapes:
            with tempfile.TemporaryDirectory() as scratch:
                bench = bench_of(name, options.texts, device, Path(scratch))
                record["shapes"][name] = compare(bench, options.rounds, ways) | {"flips": flips(bench)}
            write_json_atomic(options.out, record)
        if options.growth:
            record["growth"] = growth()
            write_json_atomic(options.out, record)
    except FacError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(record))
    print(f"results: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
