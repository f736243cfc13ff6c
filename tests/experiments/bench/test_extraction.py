"""experiments.bench.extraction at a tiny shape: every way measures what this project measures, and what it prints."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.bench import extraction
from experiments.bench.clock import peak_mib
from experiments.bench.extraction import bench_of, flips, grown, main
from experiments.bench.shapes import Shape
from experiments.bench.ways import WAYS, Bench
from fac.features.extract import Extractor
from fac.pooled import Pooled

TINY = Shape(64, 128, 4, 4, 2, 1536, 2, 256, 6)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(extraction, "SHAPES", {"S2": TINY})
    monkeypatch.setattr(extraction, "SLOW", {"released": 2})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_of("S2", 20, torch.device("cpu"), tmp_path)


@pytest.mark.filterwarnings("ignore")  # of sae-lens' store, about its data set
@torch.inference_mode()
def test_every_way_finds_what_the_extractor_finds_in_all_tokens(bench: Bench, tmp_path: Path):
    own = bench.extractor("float32")
    Extractor(own.backbone, own.sae, replace(own.settings, shift=0)).extract(bench.chats, tmp_path)
    expected = Pooled.load(tmp_path)
    for way in ("script", "sae_lens", "released"):
        found = WAYS[way](bench)
        assert found is not None
        assert len(found) == len(bench.chats)
        for text, maxima in enumerate(found):
            row = torch.from_numpy(expected.row(text))
            torch.testing.assert_close(maxima.to_dense().clamp(min=0), row, rtol=1e-4, atol=1e-4, msg=way)


def test_the_roofline_goes_over_the_same_tokens(bench: Bench):
    lengths = [len(bench.extractor("auto").encode(chat).ids) for chat in bench.chats]
    assert sorted(text for batch in bench.batches for text in batch.texts) == list(range(20))
    assert sum(len(ids) for batch in bench.batches for ids in batch.ids) <= sum(lengths)


def test_rounding_moves_some_entries(bench: Bench):
    moved = flips(bench)
    assert list(moved) == ["0.0", "0.5", "1.0", "1.5", "2.0", "4.0"]
    assert 0 < moved["0.0"] < 0.5


@pytest.mark.filterwarnings("ignore")
def test_all_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "bench.json"
    assert main(["--shapes", "S2", "--texts", "8", "--rounds", "1", "--out", str(file)]) == 0
    record = json.loads(file.read_text())
    held = record["shapes"]["S2"]
    assert set(held["over_ours"]) == set(held["ms_per_text"]) == set(WAYS)
    assert held["over_ours"]["ours"] == 1
    assert all(value > 0 for value in held["ms_per_text"].values())
    assert set(held["flips"]) == {"0.0", "0.5", "1.0", "1.5", "2.0", "4.0"}
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said[: len(WAYS)]] == list(WAYS)
    assert said[-1] == f"results: {file}"
    assert set(grown("S2", 12, 512)) == {"ms_per_text", "peak_mib", "bytes_per_text"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shapes", "S22"], "There is no S22: did you mean S2"),
        (["--shapes", "S2", "--ways", "scripd"], "There is no scripd: did you"),
    ],
)
def test_a_failure_is_one_sentence(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([*arguments, "--out", str(tmp_path / "x.json")]) == 1
    assert said in capsys.readouterr().err


def test_the_memory_of_a_process_is_its_own():
    """Not that of the process which started it, as getrusage has it."""
    command = [sys.executable, "-c", "from experiments.bench.clock import peak_mib; print(peak_mib())"]
    held = bytearray(2 << 30)
    held[::4096] = b"x" * len(held[::4096])  # so that there is more than the import of torch takes
    assert 50 < float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 1500
    assert peak_mib() > 2048
