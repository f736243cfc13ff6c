"""fac.llm.engines: who is opened for what, and what each is called before anything is opened."""

import importlib.util
from pathlib import Path

import pytest

from fac.errors import FacError
from fac.lab import shipped
from fac.llm.engines import ANNOTATORS, Engine, Judge, LLMConfig
from fac.llm.openai import OpenAIChat, OpenAISettings
from fac.llm.settings import TransformersSettings, VllmSettings
from fac.llm.transformers import TransformersChat
from fac.llm.vllm import VllmChat
from fac.model_ref import ModelRef

MODEL = ModelRef(str(shipped("llama")))
LLAMA_HERE = f"transformers:{MODEL.identity()}"
HERE, VLLM = Engine(TransformersSettings()), Engine(VllmSettings())
MINI = Engine(OpenAISettings("mini"))


def config(writer=HERE, annotator=HERE, **roles) -> LLMConfig:
    return LLMConfig(writer, {role: roles.get(role, annotator) for role in ANNOTATORS}, Path("replies.sqlite"))


def test_an_engine_without_a_model_runs_the_run_s():
    with config().open(MODEL, print) as llms:
        assert isinstance(llms.writer, TransformersChat)
        assert llms.writer.identity == LLAMA_HERE
        assert all(annotator is llms.writer for annotator in llms.annotators.values())  # equal ones are one
        assert llms.note == f"Written by {LLAMA_HERE}, annotated by {LLAMA_HERE}." == config().note(MODEL)


def test_a_role_may_have_an_engine_of_its_own_and_an_engine_a_model_of_its_own():
    mistral = ModelRef(str(shipped("mistral")))
    chosen = config(annotator=Engine(TransformersSettings(), mistral), judge=MINI)
    with chosen.open(MODEL, print) as llms:
        assert llms.annotators["explain"].identity == f"transformers:{mistral.identity()}"
        assert llms.annotators["verify"] is llms.annotators["explain"]
        assert isinstance(llms.annotators["judge"], OpenAIChat)
        assert llms.writer is not llms.annotators["explain"]
    with config(MINI, Engine(OpenAISettings("mini", timeout=9))).open(MODEL, print) as llms:
        assert llms.annotators["explain"] is not llms.writer


def test_names_are_known_where_nothing_can_be_opened(monkeypatch: pytest.MonkeyPatch):
    """Without a key or a package, as when a plan is made elsewhere than the run; `check` asks for them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vllm" else found(name, *rest))
    chosen = config(VLLM, MINI)
    mini = "openai:mini@https://api.openai.com/v1"
    assert chosen.on(MODEL).writer.identity() == f"vllm:{MODEL.identity()}/8192 tokens"
    assert chosen.annotators["judge"].identity() == mini
    assert Judge(chosen, MODEL).identity() == mini
    with chosen.open(MODEL, print) as llms:
        assert isinstance(llms.writer, VllmChat)
        assert (llms.writer.identity, llms.note) == (chosen.on(MODEL).writer.identity(), chosen.note(MODEL))
    with pytest.raises(FacError, match="vLLM is not installed"):
        chosen.check()
    with pytest.raises(FacError, match="There is no key for https://api.openai.com/v1: export OPENAI_API_KEY=..."):
        config(HERE, MINI).check()
    config(HERE, HERE, compare=MINI).check()  # the judge of outputs is not asked


def test_a_worker_opens_the_judge_of_outputs():
    with Judge(config(compare=MINI), MODEL).open() as judge:
        assert judge.identity == "openai:mini@https://api.openai.com/v1"
    with Judge(config(), MODEL).open() as judge:
        assert judge.identity == Judge(config(), MODEL).identity() == LLAMA_HERE
