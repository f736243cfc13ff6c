"""fac.sae.recipe: the paper's training against a plain loop of its formulas, killed and continued, in little memory."""

import itertools
import json
import os
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.encoders import LAYER, corpus_of, sentences
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.sae.load import load
from fac.sae.recipe import text_at, train
from fac.sae.ref import SaeRef
from fac.sae.settings import RecipeSettings
from fac.store import Store

TEXTS = [as_chat(text) for text in sentences(40, seed=7)]
SMALL = RecipeSettings(
    width=128, k=4, k_start=16, anneal_steps=5, batch_size=10, epochs=3, lr=1e-2, max_tokens=24, batch_tokens=100,
    checkpoint_every=3,
)  # fmt: skip
STEPS = 12  # 3 epochs of 40 texts, 10 a step


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def backbone(model) -> Backbone:
    return Backbone(ModelRef(str(model)), LAYER)


def follow(backbone, folder, settings=SMALL, texts=TEXTS, on_step=None):
    train(backbone, texts.__getitem__, len(texts), settings, folder, on_step)
    return folder


@pytest.fixture(scope="module")
def trained(backbone, tmp_path_factory) -> Path:
    return follow(backbone, tmp_path_factory.mktemp("trained"))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae_weights.safetensors")


def curve_of(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "curve.json").read_text())


def test_the_defaults_are_the_released_recipe():
    released = RecipeSettings()
    assert (released.width, released.k, released.batch_size, released.epochs) == (2**16, 20, 512, 3)
    assert (released.lr, released.betas, released.eps) == (1e-3, (0.9, 0.999), 6.25e-10)
    assert (released.max_tokens, released.tokens) == (286, "all")
    # the code's LinearRater(init=200, final=20, total=int(640000 / 512 * 0.5)), stepped once before the first step
    told = [int(max(20, 200 - 180 * steps / int(640000 / 512 * 0.5))) for steps in range(1, 1000)]
    assert [released.k_at(step) for step in range(999)] == told
    assert told[0] == 199
    assert (told[620], told[621], told[-1]) == (21, 20, 20)


@given(st.integers(1, 50), st.integers(0, 300), st.integers(1, 400))
def test_k_falls_in_a_line_to_its_end_and_stays(k, more, anneal):
    settings = RecipeSettings(k=k, k_start=k + more, anneal_steps=anneal)
    line = [settings.k_at(step) for step in range(anneal + 3)]
    assert all(0 <= a - b <= more // anneal + 1 for a, b in itertools.pairwise(line))
    assert line[anneal - 1 :] == [k] * 4
    assert line[0] <= k + more


def test_steps_are_those_of_a_plain_loop(backbone, tmp_path, monkeypatch):
    """One sequence per backward pass, dense formulas, torch's Adam: what the released code does."""
    monkeypatch.setattr("fac.sae.recipe.DEAD_AFTER", 2)
    settings = replace(SMALL, epochs=1, anneal_steps=3, k=8)
    weights = weights_of(follow(backbone, tmp_path, settings))
    generator = torch.Generator().manual_seed(42)
    w = (torch.randn(64, 128, generator=generator) * (2 / 64) ** 0.5).requires_grad_()
    b_enc, b_dec = torch.zeros(128, requires_grad=True), torch.zeros(64, requires_grad=True)
    adam = torch.optim.Adam([w, b_enc, b_dec], lr=1e-2, betas=(0.9, 0.999), eps=6.25e-10)
    losses: list[float] = []
    fired: list[set[int]] = []
    for step, k in enumerate([13, 10, 8, 8]):  # 16 - 8 / 3 per step, rounded down
        total = 0.0
        fired.append(set())
        for place in range(10 * step, 10 * step + 10):
            ids = encode(backbone.tokenizer, TEXTS[text_at(place, 40, 42)]).ids[:24]
            x = backbone.residual([ids])[0].clone()
            pre = (x - b_dec) @ w + b_enc
            least = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
            z = torch.relu(torch.where(pre >= least, pre, 0))
            fired[-1] |= set(z.any(dim=0).nonzero().flatten().tolist())
            rebuilt = z @ w.T + b_dec
            loss = (((rebuilt - x) ** 2).mean(dim=1) / (x**2).mean(dim=1)).mean()
            loss.backward()
            total += loss.item()
        adam.step()
        adam.zero_grad()
        losses.append(total / 10)
    curve = curve_of(tmp_path)
    assert [point["k"] for point in curve] == [13, 10, 8, 8]
    assert [point["l2"] for point in curve] == pytest.approx(losses, rel=1e-3)
    dead = [128 - len(fired[0]), *(128 - len(a | b) for a, b in itertools.pairwise(fired))]
    assert [point["dead_features"] for point in curve] == pytest.approx(dead, abs=1)
    assert 0 < dead[-1] < 128
    for name, expected in (("W_enc", w), ("b_enc", b_enc), ("b_dec", b_dec)):
        off = (weights[name] - expected.detach()).abs()
        # Adam moves a weight by lr whatever the size of its gradient, so a few with hardly any may part
        assert float((off > 1e-4).float().mean()) < 0.01, name


def test_it_learns_and_says_how_well(backbone, tmp_path):
    curve = curve_of(follow(backbone, tmp_path, replace(SMALL, epochs=40)))
    assert len(curve) == 160
    assert curve[-1]["l2"] < 0.5 * curve[0]["l2"]
    assert 0.5 < curve[-1]["explained_variance"] < 1
    assert all(point["l0"] <= point["k"] for point in curve)
    assert [point["k"] for point in curve[:6]] == [13, 11, 8, 6, 4, 4]


def test_what_is_saved_is_tied_and_passes_its_own_check(trained, backbone):
    weights = weights_of(trained)
    assert torch.equal(weights["W_dec"], weights["W_enc"].T)
    sae = load(SaeRef(str(trained)), backbone)
    assert (sae.width, sae.k, sae.record["tokens"], sae.record["layer"]) == (128, 4, "all", LAYER)
    assert sae.record["settings"] == json.loads(json.dumps(SMALL.identity()))
    assert {file.name for file in trained.iterdir()} == {
        "cfg.json", "sae_weights.safetensors", "fac.json", "curve.json",
    }  # fmt: skip


def test_batches_of_another_size_train_the_same(trained, backbone, tmp_path):
    one = weights_of(follow(backbone, tmp_path, replace(SMALL, batch_tokens=100_000)))
    off = (one["W_enc"] - weights_of(trained)["W_enc"]).abs()
    assert float((off > 1e-3).float().mean()) < 0.02


def test_other_tokens_other_seeds_train_another(trained, backbone, tmp_path):
    for name, settings in (("content", replace(SMALL, tokens="content")), ("seed", replace(SMALL, seed=1))):
        other = weights_of(follow(backbone, tmp_path / name, settings))
        assert not torch.allclose(other["W_enc"], weights_of(trained)["W_enc"])


@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 9))
def test_every_epoch_has_every_text_once(count, epoch, seed):
    order = [text_at(place, count, seed) for place in range(epoch * count, (epoch + 1) * count)]
    assert sorted(order) == list(range(count))


CHILD = """
import json, os, signal, sys
from pathlib import Path
from support.encoders import corpus_of
from fac.backbone import ModelRef
from fac.encoder import FeatureEncoder
from fac.features.settings import FeatureSettings
from fac.sae.settings import RecipeSettings
from fac.store import Store

root, model, texts, last = Path(sys.argv[1]), sys.argv[2], corpus_of(json.loads(sys.argv[3])), int(sys.argv[4])

def on_step(step, measured):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)

settings = RecipeSettings(**eval(sys.argv[5]))
Store(root).get(FeatureEncoder(ModelRef(model), settings, 2, FeatureSettings(), texts, on_step).sae_step)
"""


@pytest.mark.parametrize("last", [2, 8])  # before the first checkpoint, and after one
def test_a_killed_training_goes_on_to_the_same_sae(trained, model, tmp_path, monkeypatch, last):
    store = Store(tmp_path)
    arguments = [str(tmp_path), str(model), json.dumps(TEXTS), str(last), repr(vars(SMALL))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", CHILD, *arguments], env=environment, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    (partial,) = (tmp_path / "sae").glob(".partial-*")
    assert [file.name for file in partial.iterdir()] == (["checkpoint.pt"] if last == 8 else [])
    asked: list[int] = []
    told: list[int] = []
    residual = Backbone.residual

    def counted(backbone: Backbone, batch: list[list[int]]) -> torch.Tensor:
        asked.append(len(batch))
        return residual(backbone, batch)

    monkeypatch.setattr(Backbone, "residual", counted)
    settings, corpus = FeatureSettings(), corpus_of(TEXTS)
    watched = FeatureEncoder(ModelRef(str(model)), SMALL, LAYER, settings, corpus, lambda step, _: told.append(step))
    sae = store.get(watched.sae_step)
    assert told == list(range(1, STEPS + 1))  # the steps before the kill are told again
    done = 6 if last == 8 else 0
    assert sum(asked) == 10 * (STEPS - done) + 16  # but not computed; 16 are the probe
    for name, weight in weights_of(trained).items():
        assert torch.equal(weights_of(sae)[name], weight)
    told_of = [{key: v for key, v in point.items() if key != "tokens_per_second"} for point in curve_of(trained)]
    assert told_of == [{key: v for key, v in point.items() if key != "tokens_per_second"} for point in curve_of(sae)]


def test_what_was_finished_before_a_kill_is_left_alone(trained, backbone, tmp_path):
    (tmp_path / "fac.json").write_text("{}")
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    follow(backbone, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["fac.json"]


def test_memory_holds_the_texts_of_one_step(backbone, tmp_path):
    class Chat(list):
        """A chat that can be watched."""

    alive: weakref.WeakSet = weakref.WeakSet()
    Chat.__hash__ = object.__hash__  # type: ignore[method-assign]
    most = 0

    def chat_at(index: int) -> Chat:
        nonlocal most
        chat = Chat(TEXTS[index % 40])
        alive.add(chat)
        most = max(most, len(alive))
        return chat

    train(backbone, chat_at, 200, replace(SMALL, epochs=1), tmp_path)
    assert SMALL.batch_size <= most <= 2 * SMALL.batch_size + 16


@pytest.mark.parametrize(
    ("change", "texts", "said"),
    [
        ({}, 0, r"0 texts make 0 steps .*too few for K to fall to 4: give more texts"),
        ({}, 12, r"12 texts make 3 steps .*or lower sae.train.anneal_steps or sae.train.batch_size"),
        ({"tokens": "content", "batch_size": 2, "anneal_steps": 1}, -2, "no tokens to measure the SAE on"),
    ],
)
def test_too_few_texts_are_said(backbone, tmp_path, change, texts, said):
    chats = TEXTS[:texts] if texts >= 0 else [as_chat(" ")] * -texts
    with pytest.raises(FacError, match=said):
        follow(backbone, tmp_path, replace(SMALL, **change), chats)


@pytest.mark.parametrize("change", [{"k": 200}, {"k_start": 3}, {"width": 10}])
def test_sizes_that_do_not_go_together_are_said(change):
    with pytest.raises(FacError, match=r"k=.*k_start=.*width=.* must not decrease in this order"):
        replace(SMALL, **change)
