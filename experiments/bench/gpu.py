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
import math
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils import logging

from experiments.harness.results import provenance, versions
from fac.backbone import Backbone, ModelRef, default_device, load_tokenizer
from fac.chat import as_chat, encode, exchange
from fac.data.pairs import Pair
from fac.errors import FacError, closest
from fac.features import Extractor, FeatureSettings, token_batches
from fac.jsonl import write_json_atomic
from fac.lab import shipped
from fac.lab.world.corpora import Sizes, draw_corpus
from fac.llm.base import ChatModel, Request, Sampling
from fac.provenance import REPOSITORY

Figures = dict[str, float]
WARM_STEPS = 2  # of training, left out of its rate


@dataclass(frozen=True)
class Size:
    """What is run. Lengths are mean tokens; lengths of texts are log-normal, as those of real queries are."""

    hidden: int = 4096
    intermediate: int = 14336
    layers: int = 32
    heads: int = 32
    kv_heads: int = 8
    vocabulary: int = 128256
    cut: int = 16  # layers that the features need
    width: int = 65536
    k: int = 20
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
class Bench:
    """One run: what the parts share."""

    size: Size
    device: torch.device
    folder: Path  # of the model
    ref: ModelRef
    peak: Figures  # what `measure_peak` found

    def texts(self, count: int, mean: int, longest: int) -> list[str]:
        """Texts of about these many tokens, the same at every run."""
        tokenizer, rng = load_tokenizer(self.ref), random.Random(f"{count}/{mean}")
        queries = [example.text for example in draw_corpus("anchor", 0, Sizes(anchor=500))]
        lengths = [len(ids) for ids in tokenizer(queries, add_special_tokens=False)["input_ids"]]
        spread, made = 0.7, []
        for _ in range(count):
            wanted = min(rng.lognormvariate(math.log(mean) - spread**2 / 2, spread), longest - 16)
            parts, tokens = [], 0
            while tokens < wanted:
                place = rng.randrange(len(queries))
                parts.append(queries[place])
                tokens += lengths[place] + 1
            made.append(" ".join(parts))
        return made

    def now(self) -> float:
        """Seconds, after the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def watched(self, figures: Figures, name: str) -> Iterator[None]:
        """Adds the seconds of the body and the most GPU memory that it held."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = self.now()
        yield
        figures[f"{name}_s"] = self.now() - start
        if self.device.type == "cuda":
            figures[f"{name}_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30

    def median(self, work: Callable[[], object], repeats: int = 10) -> float:
        """Median seconds of `work`, warmed up."""
        for _ in range(3):
            work()
        seconds = []
        for _ in range(repeats):
            start = self.now()
            work()
            seconds.append(self.now() - start)
        return statistics.median(seconds)


# The parts


def measure_peak(bench: Bench) -> Figures:
    """Rates that nothing exceeds: matrix products on random numbers, and a copy (bytes read and written)."""
    n, device = bench.size.matmul, bench.device
    figures = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        figures[f"{name}_tflops"] = 2 * n**3 / bench.median(lambda a=a, b=b: a @ b) / 1e12
    source = torch.randn(16 * n * n, device=device)
    target = torch.empty_like(source)
    figures["copy_gb_per_s"] = 2 * source.nbytes / bench.median(lambda: target.copy_(source)) / 1e9
    return figures


def features(bench: Bench) -> Figures:
    """Texts to features as scale=paper measures them, and each of its steps alone."""
    size, figures = bench.size, Figures()
    with bench.watched(figures, "load"):  # from the page cache: the files were just written
        backbone = Backbone(bench.ref, size.cut, bench.device)
    layers = decoder_weights(size) * size.cut
    sae = random_sae(bench, torch.float32)
    settings = paper_features() if size.width > TINY.width else FeatureSettings(max_tokens=size.longest)
    extractor = Extractor(backbone, sae, settings)
    chats = [as_chat(text) for text in bench.texts(size.texts, size.query_tokens, size.longest)]
    encoded = [extractor.encode(chat) for chat in chats]
    lengths = [len(e.ids) for e in encoded]
    content, tokens = sum(sum(e.content) for e in encoded), sum(lengths)
    with tempfile.TemporaryDirectory() as scratch:
        extractor.extract(chats[: max(size.texts // 10, 1)], Path(scratch))
        with bench.watched(figures, "extract"):
            extractor.extract(chats, Path(scratch))
    # Multiplications by weights only; attention adds 1 % at these lengths.
    work = 2 * (layers * tokens + size.hidden * size.width * content)
    figures |= {"texts": len(chats), "tokens": tokens, "tokens_per_s": tokens / figures["extract_s"]}
    figures["share_of_bf16_peak"] = work / figures["extract_s"] / 1e12 / bench.peak["bf16_tflops"]

    batches = extraction_batches(lengths, extractor.window, settings.batch_tokens)
    figures["padding_share"] = 1 - tokens / sum(len(batch) * lengths[batch[-1]] for batch in batches)
    for batch in batches[-2:]:
        backbone.residual([encoded[i].ids for i in batch])
    start = bench.now()
    for batch in batches:
        backbone.residual([encoded[i].ids for i in batch])
    seconds = bench.now() - start
    figures |= {"layers_s": seconds, "layers_tokens_per_s": tokens / seconds}
    figures["layers_share_of_bf16_peak"] = 2 * layers * tokens / seconds / 1e12 / bench.peak["bf16_tflops"]
    del extractor, backbone
    figures |= _sae_alone(bench, sae)
    figures["sae_s"] = content * (figures["encode_fp32_us_per_token"] + figures["pool_us_per_token"]) / 1e6
    figures["other_share"] = 1 - (figures["layers_s"] + figures["sae_s"]) / figures["extract_s"]
    return figures


def extraction_batches(lengths: Sequence[int], window: int, budget: int) -> list[list[int]]:
    """The batches that an extractor makes of texts of these lengths."""
    batches = []
    for first in range(0, len(lengths), window):
        order = sorted(range(first, min(first + window, len(lengths))), key=lengths.__getitem__)
        batches += token_batches(order, lengths, budget)
    return batches


def _sae_alone(bench: Bench, sae: Any) -> Figures:
    """Microseconds per token: the SAE's encoding, its matrix product, its Top-K, and max pooling."""
    from fac.sae import Sae

    size = bench.size
    residual = torch.randn(size.block, size.hidden, device=bench.device)
    weight = torch.randn(size.hidden, size.width, device=bench.device)
    with torch.inference_mode():
        activations = residual @ weight
        texts = activations.split(size.query_tokens)
        work: dict[str, Callable[[], object]] = {
            "encode_fp32": lambda: sae.encode(residual),
            "product_fp32": lambda: residual @ weight,
            "topk": lambda: torch.topk(activations, size.k, dim=-1, sorted=False),
            "pool": lambda: [text.max(dim=0) for text in texts],
        }
        seconds = {name: bench.median(step) for name, step in work.items()}
        half: Sae = random_sae(bench, torch.bfloat16)
        seconds["encode_bf16"] = bench.median(lambda: half.encode(residual))
    return {f"{name}_us_per_token": 1e6 * value / size.block for name, value in seconds.items()}


def classifier(bench: Bench) -> Figures:
    """The toxicity classifier by LoRA (Table 1)."""
    from fac.train.classifier import ClassifierSettings, train_classifier

    size, settings = bench.size, replace(ClassifierSettings(), epochs=1)
    count = size.steps * settings.batch_size * settings.gradient_accumulation
    chats = [as_chat(text) for text in bench.texts(count, size.query_tokens, size.longest)]
    examples = [(chat, i % 2) for i, chat in enumerate(chats)]
    train = partial(train_classifier, bench.ref, examples, settings, 42)
    return _trained(bench, train, [chats], settings.max_tokens)


def reward(bench: Bench) -> Figures:
    """The reward model by LoRA (Table 1)."""
    from fac.train.reward import RewardSettings, train_reward

    size, settings = bench.size, replace(RewardSettings(), epochs=1)
    count = size.steps * settings.batch_size * settings.gradient_accumulation
    half = size.pair_tokens // 2
    parts = bench.texts(3 * count, half, size.longest)
    pairs = [Pair(as_chat(p), a, b) for p, a, b in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    train = partial(train_reward, bench.ref, pairs, settings, 42)
    return _trained(
        bench, train, [[p.chosen_chat for p in pairs], [p.rejected_chat for p in pairs]], settings.max_tokens
    )


def sft(bench: Bench) -> Figures:
    """Instruction tuning by LoRA."""
    from fac.train.sft import SftSettings, train_sft

    size, settings = bench.size, replace(SftSettings(), epochs=1)
    count = size.steps * settings.batch_size * settings.gradient_accumulation
    asked = bench.texts(count, size.lesson_tokens // 4, size.longest)
    answers = bench.texts(count, 3 * size.lesson_tokens // 4, 4 * size.longest - size.longest)
    chats = [exchange(*both) for both in zip(asked, answers, strict=True)]
    train = partial(train_sft, bench.ref, chats, settings, 42)
    return _trained(bench, train, [chats], settings.max_tokens)


def _trained(bench: Bench, train: Callable[..., object], chats: Sequence[Sequence[Any]], max_tokens: int) -> Figures:
    """Steps per second without the first ones; `train` takes a folder and a progress report."""
    tokenizer, figures = load_tokenizer(bench.ref), Figures()
    tokens = sum(min(len(encode(tokenizer, chat).ids), max_tokens) for kind in chats for chat in kind)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder, bench.watched(figures, "whole"):
        train(Path(folder), lambda _done, _all: ends.append(bench.now()))
    rate = (len(ends) - WARM_STEPS) / (ends[-1] - ends[WARM_STEPS - 1])
    figures |= {"steps": len(ends), "steps_per_s": rate, "tokens_per_step": tokens / len(ends)}
    figures["tokens_per_s"] = rate * figures["tokens_per_step"]
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


# What they run on


def decoder_weights(size: Size) -> int:
    """Weights of one decoder layer's matrices."""
    attention = 2 * size.hidden**2 * (size.heads + size.kv_heads) // size.heads
    return attention + 3 * size.hidden * size.intermediate


def paper_features() -> FeatureSettings:
    """How scale=paper measures texts."""
    return FeatureSettings(**yaml.safe_load((REPOSITORY / "conf" / "scale" / "paper.yaml").read_text())["features"])


def random_sae(bench: Bench, dtype: torch.dtype) -> Any:
    """An SAE of the size with random weights, ready to encode. It fits nothing, so `fac.sae.load` would refuse it."""
    from sae_lens import TopKSAE, TopKSAEConfig

    from fac.sae import Sae

    size = bench.size
    name = str(dtype).removeprefix("torch.")
    module = TopKSAE(TopKSAEConfig(d_in=size.hidden, d_sae=size.width, k=size.k, dtype=name, device=str(bench.device)))
    torch.nn.init.normal_(module.W_enc, std=size.hidden**-0.5)
    return Sae(module, {})


def write_model(folder: Path, size: Size, device: torch.device) -> float:
    """A random LLaMA of the size in `folder`, in bfloat16, with the lab's tokenizer; returns its size in GiB."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer: Any = load_tokenizer(ModelRef(str(shipped("llama"))))
    config = LlamaConfig(
        vocab_size=max(size.vocabulary, len(tokenizer)),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    weights = decoder_weights(size) * size.layers + 2 * config.vocab_size * size.hidden
    if shutil.disk_usage(folder).free < 2.2 * weights:
        raise FacError(
            f"{folder} has less than {2.2 * weights / 2**30:.0f} GiB free, which the random model needs: set TMPDIR."
        )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)
    return 2 * weights / 2**30


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
        bench = Bench(size, device, folder, ModelRef(scratch), {})
        record["figures"]["peak"] = peak = measure_peak(bench)
        bench = replace(bench, peak=peak)
        figures: Figures = {}
        with bench.watched(figures, "write"):
            figures["gib"] = write_model(folder, size, device)
        record["figures"]["model"] = figures
        for name in parts:
            empty(device)
            try:
                if time.perf_counter() - start > 60 * minutes:
                    raise FacError(f"{minutes:g} minutes were over.")
                record["figures"][name] = PARTS[name](bench)
            except (ImportError, FacError, torch.OutOfMemoryError) as error:
                record["skipped"][name] = str(error).splitlines()[0]
            record["seconds"] = time.perf_counter() - start
            write_json_atomic(file, rounded(record))
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
