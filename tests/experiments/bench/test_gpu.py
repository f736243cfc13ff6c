"""experiments.bench.gpu at its tiny size: every part runs the real code, and what it says of the real size is right."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from experiments.bench.gpu import (
    PARTS,
    TINY,
    Bench,
    Size,
    main,
    paper_features,
    run,
)
from experiments.bench.shapes import decoder_weights
from fac.backbone import ModelRef, load_tokenizer
from fac.lab import shipped

OWN = [part for part in PARTS if part != "vllm"]  # whose engine has tests of its own


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(torch.device("cpu"), Size(), tmp_path, ModelRef(str(shipped("llama"))), {})


@pytest.mark.slow
def test_every_part_runs_and_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--tiny", "--out", str(tmp_path), "--parts", ",".join(OWN)]) == 0
    (file,) = tmp_path.glob("*-tiny.json")
    record = json.loads(file.read_text())
    assert record["skipped"] == {}
    assert set(record["figures"]) == {"peak", "model", *OWN}
    assert Size(**record["size"]) == TINY
    assert {"device", "date", "versions", "provenance", "seconds"} <= record.keys()
    assert record["versions"]["torch"] == torch.__version__
    assert "aten::" in file.with_suffix(".features.txt").read_text()  # what the profiler saw
    shares = ("other_share", "padding_share")  # the first is a difference: noise may leave it below zero
    values = {f"{p} {n}": v for p, figures in record["figures"].items() for n, v in figures.items() if n not in shares}
    assert all(math.isfinite(value) and value > 0 for value in values.values()), values
    assert 0 <= record["figures"]["features"]["padding_share"] < 1
    assert record["figures"]["sft"]["steps"] == TINY.steps
    said = capsys.readouterr().out
    assert all(part in said for part in OWN)
    assert said.splitlines()[-1] == f"results: {file}"


def test_what_has_no_time_left_is_skipped_and_said(tmp_path: Path):
    record = run(replace(TINY, matmul=8), ["features", "sft"], 0, tmp_path / "x.json", torch.device("cpu"))
    assert record["skipped"] == dict.fromkeys(("features", "sft"), "0 minutes were over.")
    assert json.loads((tmp_path / "x.json").read_text()) == record


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts", "sfft"], "There is no part sfft: did you mean sft"),
        pytest.param(
            [], "There is no GPU here", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
        ),
    ],
)
def test_a_failure_is_one_sentence(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*arguments, "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_the_work_is_counted_as_the_model_does_it():
    size = Size()
    config = LlamaConfig(
        hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.kv_heads, vocab_size=size.vocabulary,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = {name: p for name, p in model.named_parameters() if ".layers.0." in name and p.dim() == 2}
    assert decoder_weights(size) == sum(p.numel() for p in layers.values())
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == 8.03  # as Llama-3.1-8B
    settings = paper_features()
    assert (settings.rule, settings.shift) == ("paper", None)
    assert settings.encode_elements >= size.width * size.longest


def test_texts_have_the_lengths_that_were_asked_for(bench: Bench):
    texts = bench.texts(400, 178, 512)
    tokenizer = load_tokenizer(bench.ref)
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    assert statistics.fmean(lengths) == pytest.approx(178, rel=0.1)
    assert max(lengths) <= 530
    assert min(lengths) < 80
    assert bench.texts(400, 178, 512) == texts
