"""Where the time of an extraction goes: its phases alone, on the same texts, in the code that runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from experiments.bench.clock import Clock, Figures
from experiments.bench.shapes import Shape, decoder_weights
from fac.chat import Message
from fac.features.batches import Batch, Content, Window, windows
from fac.features.extract import Extractor
from fac.features.pooling import entries, packed, pooled, unpacked
from fac.features.sent import Sent
from fac.features.tops import TopKeeper
from fac.pooled import PooledWriter
from fac.sae.load import Sae
from fac.sae.strongest import strongest


def phases(
    clock: Clock, shape: Shape, extractor: Extractor, chats: Sequence[Sequence[Message]], peak: float
) -> Figures:
    """Seconds of tokenising and of the layers alone, and microseconds per content token of every step behind them.

    `peak` is in FLOP/s; shares of it count multiplications by weights only: attention adds 1 % at usual lengths.
    """
    start = clock.now()
    windowed = list(windows(extractor.backbone, chats, extractor.settings))
    figures = {"tokenise_s": clock.now() - start}
    batches = batches_of(extractor, windowed)
    tokens, padded = (sum(map(count, batches)) for count in (_tokens, _padded))
    content = sum(len(batch.row) for batch in batches)
    figures |= {"texts": len(chats), "tokens": tokens, "content_tokens": content, "padding_share": 1 - tokens / padded}
    for batch in (batches[0], batches[-1]):
        batch.content(extractor.backbone)
    start = clock.now()
    for batch in batches:
        batch.content(extractor.backbone)
    figures["layers_s"] = clock.now() - start
    figures["layers_tokens_per_s"] = tokens / figures["layers_s"]
    figures["layers_share_of_peak"] = 2 * decoder_weights(shape) * shape.cut * tokens / figures["layers_s"] / peak
    return figures | _behind(clock, extractor, max(batches, key=lambda batch: len(batch.row)))


def batches_of(extractor: Extractor, windowed: Sequence[Window]) -> list[Batch]:
    """The batches that an extractor makes of windows of texts."""
    return [b for w in windowed for b in w.batches(extractor.batch_tokens, extractor.batch_texts)]


def work(shape: Shape, tokens: float, content: float) -> float:
    """Floating-point operations of products with weights: the layers for all tokens, the SAE for content."""
    return 2 * (decoder_weights(shape) * shape.cut * tokens + shape.hidden * shape.width * content)


def _tokens(batch: Batch) -> int:
    return sum(map(len, batch.ids))


def _padded(batch: Batch) -> int:
    return len(batch.ids) * max(map(len, batch.ids))


@torch.inference_mode()
def _behind(clock: Clock, extractor: Extractor, batch: Batch) -> Figures:
    """Microseconds per content token of each step behind the layers, on one batch."""
    sae, settings, rows, tokens = extractor.sae, extractor.settings, len(batch.texts), len(batch.row)
    content = batch.content(extractor.backbone)
    best = pooled(sae, content, rows, settings.encode_elements)
    found = entries(best)
    texts = torch.from_numpy(batch.texts).to(best.device)[found.row]
    keeper = TopKeeper(sae.width, settings.top_spans, best.device)
    lengths, features, values = (
        held.cpu().numpy() for held in (found.row.bincount(minlength=rows), found.feature, unpacked(found.pack)[0])
    )
    steps: dict[str, Callable[[], object]] = {
        "pooled": lambda: pooled(sae, content, rows, settings.encode_elements),
        "entries": lambda: entries(best),
        "tops": lambda: keeper.update(texts, found.feature, found.pack),  # nothing is new after the first time
        "send": lambda: Sent(found.feature.int(), unpacked(found.pack)[0]).arrays(),
    }
    figures = {f"{name}_us_per_token": 1e6 * clock.median(step) / tokens for name, step in steps.items()}
    with tempfile.TemporaryDirectory() as scratch:

        def write() -> None:
            writer = PooledWriter(Path(scratch), sae.width)
            writer.put(np.arange(rows)[::-1], lengths, features, values)
            writer.close()

        figures["write_us_per_token"] = 1e6 * clock.median(write) / tokens
    part = Content(*(held[: max(settings.encode_elements // sae.width, 1)] for held in content))
    return figures | _sae_alone(clock, sae, part, best)


def _sae_alone(clock: Clock, sae: Sae, part: Content, best: torch.Tensor) -> Figures:
    """Microseconds per token of what `pooled` does to a block of tokens, and of plainer ways to do it."""
    steps: dict[str, Callable[[], object]] = {"encode": lambda: sae.encode(part.residual)}
    product, k = sae.preactivations, sae.k
    if product is not None and k is not None:
        pre = product(part.residual)
        values, features = strongest(pre, k)
        place = (part.row[:, None] * sae.width + features).flatten()
        pack = packed(values, part.position[:, None]).flatten()
        steps |= {
            "product": lambda: product(part.residual),
            "topk": lambda: strongest(pre, k),
            "torch_topk": lambda: pre.topk(k, sorted=False),
            "scatter": lambda: best.view(-1).scatter_reduce_(0, place, pack, "amax"),
        }
    return {f"{name}_us_per_token": 1e6 * clock.median(step) / len(part.row) for name, step in steps.items()}


def kernels(extractor: Extractor, chats: Sequence[Sequence[Message]]) -> str:
    """What a profiler saw of an extraction: the operations that took longest, as a table."""
    gpu = extractor.backbone.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with tempfile.TemporaryDirectory() as scratch, profile(activities=activities) as seen:
        extractor.extract(chats, Path(scratch))
    averages = seen.key_averages()
    tables = [averages.table(sort_by=f"self_{kind}_time_total", row_limit=40) for kind in ("cuda", "cpu")[not gpu :]]
    return "\n\n".join(tables)
