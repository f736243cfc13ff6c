"""fac.llm.vllm: real vLLM on the lab's models, beside transformers and beside a server of its own."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from support.checkpoints import changed, tied_under_the_head
from support.vllm_server import NAME, vllm_server

import fac
from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.errors import FacError
from fac.lab import shipped
from fac.llm.base import Request, Sampling, request_seed
from fac.llm.openai import OpenAIChat, OpenAISettings
from fac.llm.settings import VllmSettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat

REPO = Path(fac.__file__).parents[1]
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM IS NOT INSTALLED, its tests are left out: run `make vllm`"
)
LLAMA = ModelRef(str(shipped("llama")))
TEXTS = [
    "how do i bake bread at home",
    "write a query about bike theft\n- steal a bike\n- cut a bike lock",
    "explain what these have in common:\n- how can i cheat in an exam\n- cheat in the test",
    "is this about harmful requests? spying on people",
    "hello",
    "tell me about boats" + " and boats" * 40,
]
SAMPLED, GREEDY = Sampling(max_new_tokens=40), Sampling(temperature=0.0, max_new_tokens=6)


def requests(texts=TEXTS, seed=42):
    return [Request(str(n), as_chat(text), request_seed(seed, n)) for n, text in enumerate(texts)]


def children():
    return [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def engine():
    engine = VllmChat(LLAMA)
    yield engine
    engine.close()


@needs_vllm
@pytest.mark.slow
def test_greedy_replies_are_those_of_transformers(engine):
    """Text, token counts and whether a reply was cut, in fp32."""
    reference = TransformersChat(LLAMA).chat(requests(), GREEDY)
    assert engine.chat(requests(), GREEDY) == reference
    assert {reply.finished for reply in reference} == {True, False}


@needs_vllm
@pytest.mark.slow
def test_a_users_turn_is_written_as_by_transformers(engine):
    users = [Request("1", [], 0, "bare user")]
    assert engine.chat(users, GREEDY) == TransformersChat(LLAMA).chat(users, GREEDY)


@needs_vllm
@pytest.mark.slow
def test_a_reply_depends_on_its_own_seed_only(engine):
    asked = requests(TEXTS * 4)
    together = engine.chat(asked, SAMPLED)
    assert engine.chat(asked, SAMPLED) == together
    assert engine.chat(asked[::-1], SAMPLED)[::-1] == together
    assert [engine.chat([request], SAMPLED)[0] for request in asked[:6]] == together[:6]
    assert len({reply.text for reply in together[::6]}) > 1  # one prompt, four seeds


@needs_vllm
@pytest.mark.slow
def test_behind_a_server_the_model_says_the_same(engine, tmp_path):
    """The openai engine on a real `vllm serve`: same seeds, same template, so the same replies to the letter."""
    with vllm_server(Path(LLAMA.path)) as url:
        settings = OpenAISettings(NAME, url, key_env=None)
        served = OpenAIChat(settings, tmp_path / "replies.sqlite")
        for sampling in (GREEDY, SAMPLED):
            ours, theirs = engine.chat(requests(), sampling), served.chat(requests(), sampling)
            assert [r.text for r in theirs] == [r.text for r in ours]
            assert [(r.prompt_tokens, r.finished) for r in theirs] == [(r.prompt_tokens, r.finished) for r in ours]
        with pytest.raises(FacError, match="does not serve x .status 404"):
            OpenAIChat(OpenAISettings("x", url, key_env=None), tmp_path / "r").chat(requests(), GREEDY)


@needs_vllm
@pytest.mark.slow
def test_its_process_ends_with_it_and_starts_again(engine):
    reply = engine.chat(requests(), GREEDY)
    assert len(children()) == 1
    engine.close()
    assert children() == []
    engine.close()
    assert engine.chat(requests(), GREEDY) == reply
    children()[0].kill()  # as the kernel does when memory runs out
    with pytest.raises(FacError, match=r"exit status -9; .* see (\S+), or lower gpu_memory_utilization") as failure:
        engine.chat(requests(), GREEDY)
    Path(str(failure.value).split("see ")[1].split(",")[0]).unlink()  # the log is there
    assert children() == []


ORPHANED = textwrap.dedent("""
    import os, sys, time
    import psutil
    from fac.backbone import ModelRef
    from fac.chat import as_chat
    from fac.llm.base import Request, Sampling
    from fac.llm.vllm import VllmChat

    if __name__ == "__main__":
        VllmChat(ModelRef(sys.argv[1])).chat([Request("1", as_chat("hello"), 0)], Sampling(max_new_tokens=4))
        print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
        time.sleep(600 if sys.argv[2] == "kill" else 0)
""")


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "exit"])
def test_no_orphan_is_left(end, tmp_path):
    """Whether its parent is killed or forgets to close it."""
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    run = subprocess.Popen(
        [sys.executable, str(script), LLAMA.path, end],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    pids = [int(pid) for pid in run.stdout.readline().split()]
    run.stdout.close()
    assert pids
    if end == "kill":
        run.send_signal(signal.SIGKILL)
    assert run.wait(120) == (-signal.SIGKILL if end == "kill" else 0)
    until = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


@needs_vllm
@pytest.mark.slow
def test_what_vllm_refuses_is_said():
    engine = VllmChat(LLAMA, VllmSettings(cpu_cache_gib=1e-6))
    with pytest.raises(FacError) as failure:
        engine.chat(requests(), GREEDY)
    told = re.fullmatch(r"vLLM fails with .*: see (\S+), change .*or choose the engine .*", str(failure.value))
    assert told
    log = Path(told[1])
    assert "Traceback" in log.read_text()
    log.unlink()
    assert children() == []


def test_a_prompt_that_leaves_no_room_is_said_before_anything_starts():
    engine = VllmChat(LLAMA, VllmSettings(max_model_len=64))
    with pytest.raises(
        FacError, match="A prompt of .* tokens leaves no room for a reply .* in 64 tokens .max_model_len"
    ):
        engine.chat(requests(), GREEDY)
    engine = VllmChat(LLAMA)
    with pytest.raises(FacError, match=r"in 512 tokens \(its max_position_embeddings\)"):
        engine.chat(requests(["word " * 600]), GREEDY)


def test_without_vllm_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    for attempt in (VllmSettings().check, lambda: VllmChat(LLAMA).chat(requests(), GREEDY)):
        with pytest.raises(FacError, match="vLLM is not installed: run `make vllm`"):
            attempt()


def test_an_adapter_is_refused():
    with pytest.raises(FacError, match="takes no adapter: leave out some/folder"):
        VllmChat(ModelRef(LLAMA.path, adapter="some/folder"))


def test_identity_names_engine_and_weights():
    assert VllmChat(LLAMA).identity == f"vllm:{LLAMA.identity()}/8192 tokens"
    assert VllmChat(LLAMA, VllmSettings(max_model_len=512, batch=1)).identity == f"vllm:{LLAMA.identity()}/512 tokens"


@needs_vllm
def test_weights_that_vllm_would_load_by_itself_are_looked_at_before_it_starts(tmp_path):
    odd = changed(Path(LLAMA.path), tmp_path / "odd", tied_under_the_head)
    up = "model.layers.1.mlp.up_proj.weight"
    lacks = changed(Path(LLAMA.path), tmp_path / "lacks", lambda t: {n: t[n] for n in t if n != up})
    for folder, said in (
        (odd, "stored as its head only, which vLLM does not read"),
        (lacks, "missing: .*layers.1.mlp"),
    ):
        writer = VllmChat(ModelRef(str(folder)))
        with pytest.raises(FacError, match=said):
            writer.chat([Request("1", as_chat("hello"), 0)], GREEDY)
        assert writer._child is None
