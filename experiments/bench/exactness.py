"""g_i of real texts against an independent forward pass: how exact in float32, and how many entries flip in bfloat16.

    python -m experiments.bench.exactness DATA MODEL SAE [--texts 50] [--out results/small/exactness.json]

DATA is a file of texts, MODEL and SAE are folders. Independent: transformers' own hidden states of the whole model, one
text at a time; which tokens are content by the tokenizer's offsets in the rendered chat; Top-K in numpy, in float64.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.harness.results import provenance, versions
from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat
from fac.corpus_features import CorpusFeatures
from fac.data.examples import read_examples
from fac.data.source import Source
from fac.features.extract import Extractor
from fac.features.settings import FeatureSettings
from fac.jsonl import write_json_atomic
from fac.sae.load import Sae
from fac.sae.ref import layer_in, read_config

SHARES = (0.0, 0.1, 0.3, 0.5)  # thresholds, of each feature's maximum
LONGEST = 400  # characters: no text is cut
Values = NDArray[np.floating]


def main() -> None:
    """Compare, print and write."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("data", type=Path)
    told.add_argument("model", type=Path)
    told.add_argument("sae", type=Path)
    told.add_argument("--texts", type=int, default=50)
    told.add_argument("--out", type=Path)
    given = told.parse_args()
    from sae_lens import SAE

    module = SAE.load_from_disk(given.sae)
    layer = layer_in(read_config(given.sae), {}, str(given.sae))
    assert layer is not None, "the SAE says which layer it reads"
    texts = [e.text for e in read_examples(Source(given.data)) if 20 < len(e.text) < LONGEST][: given.texts]
    found = compared(given.model, layer, module, texts)
    print(json.dumps(found, indent=1))
    if given.out:
        write_json_atomic(given.out, {**found, "versions": versions(), **provenance()})


def compared(model: Path, layer: int, module: Any, texts: Sequence[str]) -> dict[str, Any]:
    """How far the project's g_i are from the independent ones, in float32 and in bfloat16.

    Texts are stripped: white space at the ends of a message is no content.
    """
    texts = [text.strip() for text in texts]
    exact = independent(model, layer, module, texts)
    single, seconds = measured(model, layer, module, texts, "float32")
    half, of_half = measured(model, layer, module, texts, "bfloat16")
    largest = np.maximum(exact.max(axis=0), 1e-12)
    return {
        "texts": len(texts),
        "entries": int((exact > 0).sum()),
        "float32": {
            "largest_difference": float(np.abs(single - exact).max() / exact.max()),
            **flips(exact, single, largest),
        },
        "bfloat16": {
            "largest_difference": float(np.abs(half - exact).max() / exact.max()),
            **flips(exact, half, largest),
        },
        "seconds": {"float32": round(seconds, 2), "bfloat16": round(of_half, 2)},
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def flips(exact: Values, other: Values, largest: Values) -> dict[str, float]:
    """By threshold: entries that are above it in one of the two only, as a share of those above it in the first."""
    found = {}
    for share in SHARES:
        one, two = exact > share * largest, other > share * largest
        found[f"flips_{share:g}max"] = float((one != two).sum() / max(one.sum(), 1))
    return found


def measured(model: Path, layer: int, module: Any, texts: Sequence[str], dtype: str) -> tuple[Values, float]:
    """(g_i [texts, width] as the project measures them, seconds)."""
    backbone = Backbone(ModelRef(str(model), dtype=dtype), layer)
    extractor = Extractor(backbone, Sae(module, {}), FeatureSettings(batch_tokens=1024))
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        extractor.extract(map(as_chat, texts), Path(folder), len(texts))
        seconds = time.perf_counter() - began
        pooled = CorpusFeatures.load(Path(folder)).pooled
        return np.stack([pooled.row(text) for text in range(len(texts))]), seconds


@torch.inference_mode()
def independent(model: Path, layer: int, module: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    """The same without any of the project's code."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    weights = {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}
    found = []
    for text in texts:
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        told = tokenizer(rendered, return_offsets_mapping=True, add_special_tokens=False, return_tensors="pt")
        states = network(told.input_ids, output_hidden_states=True).hidden_states[layer][0].double().numpy()
        start = rendered.rindex(text)
        offsets = told.offset_mapping[0].tolist()
        content = [low < start + len(text) and high > start for low, high in offsets]
        found.append(top_k(states[content], weights, module.cfg).max(axis=0))
    return np.stack(found)


def top_k(x: NDArray[np.float64], weights: dict[str, NDArray[np.float64]], cfg: Any) -> NDArray[np.float64]:
    """Activations [tokens, width] of a Top-K SAE."""
    shifted = x - weights["b_dec"] if cfg.apply_b_dec_to_input else x
    pre = shifted @ weights["W_enc"] + weights["b_enc"]
    if cfg.rescale_acts_by_decoder_norm:
        pre = pre * np.linalg.norm(weights["W_dec"], axis=1)
    kept = np.argpartition(-pre, cfg.k - 1, axis=1)[:, : cfg.k]
    activations = np.zeros_like(pre)
    np.put_along_axis(activations, kept, np.maximum(np.take_along_axis(pre, kept, axis=1), 0), axis=1)
    return activations


if __name__ == "__main__":
    main()
