"""The doctor says of a model what loading would say, from the names and shapes in its files."""

import json
import re
import shutil

import pytest
from support.checkpoints import EMBEDDING, HEAD, changed, gemma3, tied_under_the_head
from support.hub_cache import cached_model
from support.models import tiny_model

from experiments.harness.doctor.base import Finding, checked
from experiments.harness.doctor.presence import model
from fac.model_ref import ModelRef

UP = "model.layers.3.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "llama")


def found(folder, **how) -> list[Finding]:
    return checked("model m", lambda: model(ModelRef(str(folder), **how), online=False))


def test_a_whole_model_is_said_with_its_dtype(tiny):
    (finding,) = found(tiny)
    assert (finding.status, finding.said) == ("ok", f"in {tiny}, stored as float32, measured in float32")
    (finding,) = found(tiny, dtype="bfloat16")
    assert "measured in bfloat16" in finding.said


def test_an_embedding_stored_as_the_head_is_no_fault(tiny, tmp_path):
    usual = changed(tiny, tmp_path / "usual", lambda t: {n: t[n] for n in t if n != HEAD}, tie_word_embeddings=True)
    (finding,) = found(changed(usual, tmp_path / "odd", tied_under_the_head))
    assert finding.status == "ok"
    assert finding.said.endswith("embedding and head tied")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {n: v for n, v in t.items() if n != UP}, rf"missing: {UP}"),
        (lambda t: {n: v for n, v in t.items() if n != EMBEDDING}, rf"missing: {EMBEDDING}"),
        (lambda t: {f"base_model.model.{n}": v for n, v in t.items()}, "not part of it: base_model.model.lm_head"),
        (lambda t: {**t, UP: t[UP][:5].clone()}, r"of another shape: .*\[5, 64\] in place of \[128, 64\]"),
    ],
)
def test_weights_that_are_not_the_models_are_missing(tiny, tmp_path, change, said):
    (finding,) = found(changed(tiny, tmp_path / "broken", change))
    assert finding.status == "missing"

    assert re.search(said, finding.said)


def test_files_that_are_not_whole_are_missing(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "cut")
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:-10])
    (finding,) = found(folder)
    assert finding.status == "missing"
    assert "is not whole" in finding.said


def test_a_model_of_text_and_images_is_looked_at_whole(tiny, tmp_path):
    folder = gemma3(tmp_path / "gemma", tiny)
    assert found(folder)[0].status == "ok"


def test_a_tokenizer_without_padding_and_end_is_warned_of(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "nopad")
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in told.items() if k not in ("pad_token", "eos_token")}))
    whole, lacks = found(folder)
    assert (whole.status, lacks.status) == ("ok", "warning")
    assert "it can be measured, but not trained" in lacks.said


def test_a_template_with_the_date_is_warned_of(tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "dated")
    file = folder / "chat_template.jinja"
    file.write_text("{{ strftime_now('%d %b %Y') }}" + file.read_text())
    said = "its chat template writes the date: rendered as on 26 Jul 2024 throughout"
    assert [finding.said for finding in found(folder)][1] == said


def test_a_model_in_the_hubs_cache_is_looked_at_at_its_commit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    broken = changed(tiny, tmp_path / "broken", lambda t: {n: v for n, v in t.items() if n != UP})
    cached_model(tmp_path / "hub", "owner/model", {"a" * 40: tiny, "b" * 40: broken}, main="a" * 40)

    def said(revision):
        return checked("m", lambda: model(ModelRef("owner/model", revision), online=False))[0]

    assert said(None).status == "ok"
    assert f"at the commit {'a' * 40} (no revision is set)" in said(None).said
    assert said("b" * 40).status == "missing"
