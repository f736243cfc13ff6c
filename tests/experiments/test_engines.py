"""The lab's loop through each engine, whatever a server does, with a key that must not leak."""

import importlib.util
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.cli import COMMAND, environment, fac_here
from support.openai_server import FaultyServer, by_rule
from support.vllm_server import NAME, vllm_server

from experiments.harness.results import Table
from fac.lab import shipped

KEY = "sk-planted-0c5d9e21f7"
SIZES = {"anchor": 40, "safe": 40, "seed": 20, "human": 20, "labelled": 40, "validation": 20, "test": 60}
REDUCED = (
    "experiment=lab interpret.spans=2 synthesis.n=1 synthesis.m=1 tasks.toxicity.budget=12 seeds.training=[42] "
    "tasks.toxicity.train.epochs=1 experiment.methods=[baseline,fac] experiment.protocols=[added] workers=1 out=out"
).split() + [f"tasks.toxicity.sizes.{role}={size}" for role, size in SIZES.items()]


def test_a_missing_key_stops_the_run_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for experiment in ("lab", "main_results", "cross_model"):
        done = fac_here(f"experiment={experiment}", "annotator=openai", "out=out", cwd=tmp_path)
        assert "There is no key for https://api.openai.com/v1: export OPENAI_API_KEY=..." in done.failure
        assert not (tmp_path / "out").exists()


def behind(url: str, name: str) -> list[str]:
    return ["llm=openai", f"llm.url={url}", f"llm.model={name}", "llm.budget_usd=null"]


def cells(folder: Path) -> dict[tuple[str, str], tuple[float, ...]]:
    table = Table.from_json((folder / "out" / "table.json").read_text())
    return {(cell.row, cell.column): cell.values for cell in table.cells}


def holding(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_run_through_a_server_that_fails_is_the_same_and_pays_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Errors of all kinds, a crash of the server, kill -9 of the run; and the key is nowhere in what was left."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    clean, tried = tmp_path / "clean", tmp_path / "tried"
    clean.mkdir()
    tried.mkdir()
    with FaultyServer(by_rule) as server:
        done = fac_here(*REDUCED, *behind(server.url, "m"), "tracking.enabled=false", cwd=clean)
        assert done.code == 0, done.err
        assert f"m at {server.url}: " in done.err
        count = sum(server.answered.values())
        assert set(server.answered.values()) == {1}
        bodies = set(server.answered)
    faults = {3: "500", 9: "429", 15: "truncated", 21: "cut", 27: "empty", 33: "timeout", 60: "die"}
    with FaultyServer(by_rule, faults, pause=0.02) as server:
        command = [*REDUCED, *behind(server.url, "m"), "llm.timeout=2", "llm.retries=3"]
        stopped = subprocess.run([COMMAND, *command], cwd=tried, env=environment(), capture_output=True, text=True)
        assert stopped.returncode == 1
        assert "cannot be reached" in stopped.stderr
        assert 0 < sum(server.answered.values()) <= 60
        server.start()
        with (tried / "fac.log").open("w") as log:
            run = subprocess.Popen([COMMAND, *command], cwd=tried, env=environment(), stdout=log, stderr=log)
            while run.poll() is None and sum(server.answered.values()) < count * 3 // 4:
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
            run.wait()
        assert run.returncode == -signal.SIGKILL
        asked_at_kill = sum(server.answered.values())
        done = fac_here(*command, cwd=tried)
        assert done.code == 0, done.err
        assert set(server.answered) == bodies
        assert sum(server.answered.values()) <= count + 16  # those under way when the run was killed
        assert asked_at_kill < count
    assert cells(tried) == cells(clean)
    for folder, output in ((clean, ""), (tried, stopped.stdout + stopped.stderr + done.out + done.err)):
        assert KEY not in output
        assert holding(folder, KEY) == []
        assert holding(folder, "openai:m@http://127.0.0.1")  # samples say who wrote them
    assert {path.name for path in holding(tried, "OPENAI_API_KEY")} >= {"config.yaml"}  # the name is no secret


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM IS NOT INSTALLED, its tests are left out: run `make vllm`"
)
def test_the_loop_through_vllm_and_through_its_server_has_the_table_of_transformers(tmp_path: Path):
    """Toxicity in the lab. Behind its own server vLLM says the same to the letter, so the whole table is the same."""
    names = ("transformers", "vllm", "openai")
    for name in names:
        (tmp_path / name).mkdir()
    common = [
        *REDUCED,
        "tracking.enabled=false",
        f"paths.store={tmp_path / 'shared'}",
    ]  # made once, but for what engines decide
    done = fac_here(*common, cwd=tmp_path / "transformers")
    assert done.code == 0, done.err
    done = fac_here(*common, "llm=vllm", cwd=tmp_path / "vllm")
    assert done.code == 0, done.err
    with vllm_server(shipped("llama")) as url:
        served = [*behind(url, NAME), "llm.key_env=null"]
        done = fac_here(*common, *served, cwd=tmp_path / "openai")
    assert done.code == 0, done.err
    tables = {name: cells(tmp_path / name) for name in names}
    assert tables["transformers"].keys() == tables["vllm"].keys() == tables["openai"].keys()
    assert tables["openai"] == tables["vllm"]
    assert tables["vllm"] != tables["transformers"]
    for name in names:
        lines = (tmp_path / name / "out" / "samples-fac.jsonl").read_text().splitlines()
        assert {json.loads(line)["model"].partition(":")[0] for line in lines} == {name}
