"""fac.sae.checkpoint: the paper's .pth files become SAELens folders with the same g_i, and nothing in them is run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.encoders import LAYER, corpus_of, opened, sentences
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.backbone import ModelRef
from fac.chat import as_chat, encode
from fac.encoder import CorpusFeatures, FeatureEncoder, sae_in
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.sae.checkpoint import Checkpoint, find_checkpoint, import_checkpoint
from fac.sae.ref import SaeRef
from fac.store import Store

D, WIDTH, K = 64, 160, 24
TEXTS = sentences(40, seed=3)
COMMIT = "1" * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def residuals(model) -> list[torch.Tensor]:
    """Layer 2 of every text's content tokens, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = AutoModelForCausalLM.from_pretrained(model).eval()
    found = []
    for text in TEXTS:
        encoded = encode(tokenizer, as_chat(text))
        with torch.no_grad():
            hidden = whole(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states[LAYER][0]
        found.append(hidden[torch.tensor(encoded.content)])
    return found


@pytest.fixture(scope="module")
def held(residuals) -> dict:
    """What the authors' code saves, of an SAE that knows the tiny model: a basis, its negative, and noise."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat(residuals)
    basis = torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    others = torch.randn(D, WIDTH - 2 * D, generator=generator) / D
    weight = {
        "W_enc": torch.cat([basis, -basis, others], dim=1),
        "b_enc": torch.randn(WIDTH, generator=generator) / 100,
        "b_dec": rows.mean(dim=0),
        "mask": torch.ones(WIDTH),
    }
    return {"weight": weight, "config": {"d_inp": D, "d_hide": WIDTH, "topK": K}}


@pytest.fixture
def file(held, tmp_path) -> Path:
    torch.save(held, tmp_path / "TopK7_l2_h160_epoch3.pth")
    return tmp_path / "TopK7_l2_h160_epoch3.pth"


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def encoder_of(model: Path, ref: SaeRef, layer: int | None = None, rule: str = "paper") -> FeatureEncoder:
    return FeatureEncoder(ModelRef(str(model)), ref, layer, FeatureSettings(rule=rule))


@pytest.mark.parametrize("rule", ["paper", "official"])
def test_g_is_that_of_the_authors_forward(file, held, model, residuals, store, rule):
    encoder = encoder_of(model, SaeRef(str(file)), rule=rule)
    assert encoder.layer == LAYER  # from the file's name
    pooled = CorpusFeatures.load(store.get(encoder.features(corpus_of([as_chat(t) for t in TEXTS])))).pooled
    w = held["weight"]
    for text, x in enumerate(residuals):
        pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        if rule == "paper":
            rank = pre.argsort(dim=1, descending=True).argsort(dim=1)
            pre = torch.where(rank < K, pre, 0.0)
        g = pre.clamp(min=0).max(dim=0).values
        np.testing.assert_allclose(pooled.row(text), g.numpy(), rtol=0, atol=1e-5)
    assert (pooled.maxima() > 0).sum() > WIDTH / 2


def test_what_is_written_is_tied_and_plain_saelens(file, held, tmp_path):
    checkpoint = find_checkpoint(SaeRef(str(file)))
    assert checkpoint is not None
    import_checkpoint(checkpoint, tmp_path / "sae")
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    assert torch.equal(weights["W_dec"], weights["W_enc"].T)
    assert all(torch.equal(weights[name], held["weight"][name]) for name in ("W_enc", "b_enc", "b_dec"))
    cfg = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert (cfg["architecture"], cfg["k"], cfg["d_in"], cfg["d_sae"]) == ("topk", K, D, WIDTH)
    assert cfg["apply_b_dec_to_input"] is True
    assert cfg["normalize_activations"] == "none"
    assert cfg["metadata"]["hook_name"] == "blocks.1.hook_resid_post"


def test_a_file_is_imported_once_whatever_its_place(file, model, store, tmp_path):
    first = store.get(encoder_of(model, SaeRef(str(file))).sae_step)
    assert sae_in(first) == SaeRef(str(first))
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "sae_llama_l2.pth")
    assert store.get(encoder_of(model, SaeRef(str(tmp_path / "elsewhere"))).sae_step) == first
    assert len(list((tmp_path / "store" / "sae").iterdir())) == 1
    torch.save(torch.load(moved) | {"config": {"d_inp": D, "d_hide": WIDTH, "topK": 3}}, moved)
    assert store.get(encoder_of(model, SaeRef(str(moved))).sae_step) != first


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_malicious_file_is_refused_and_not_run(held, model, store, tmp_path, how):
    trace, file = tmp_path / "trace", tmp_path / "sae_l2.pth"
    poisoned = {**held, "config": Evil(trace)}
    if how == "pickle":
        file.write_bytes(pickle.dumps(poisoned, protocol=2))
    else:
        torch.save(poisoned, file)
    with pytest.raises(FacError, match=r"sae_l2.pth was not opened, since it holds more than tensors .*fetch it again"):
        opened(encoder_of(model, SaeRef(str(file))), store)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists()  # it would have been


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["weight"], r"is none of the paper's: it holds \{W_enc: tensor \[64, 160\], .*, where .*topK"),
        (lambda h: {**h, "config": {"d_inp": D, "d_hide": WIDTH}}, r"config: \{d_inp: 64, d_hide: 160\}\}, where"),
        (
            lambda h: {**h, "weight": {**h["weight"], "W_dec": h["weight"]["W_enc"].T}},
            r"W_dec: Tensor.*none|none.*W_dec",
        ),
        (lambda h: {"weight": {"encoder": 1}, "config": {}}, r"\{weight: \{encoder: 1\}, config: \{\}\}"),
        (lambda h: [1], "it holds list"),
        (lambda h: {**h, "config": {**h["config"], "d_hide": 128}}, r"contradicts itself: .*W_enc \[64, 160\]"),
        (lambda h: {**h, "config": {**h["config"], "topK": 500}}, "contradicts itself: .*'topK': 500"),
        (lambda h: {**h, "config": {**h["config"], "topK": True}}, "contradicts itself: .*'topK': True"),
        (lambda h: with_weight(h, "b_dec", lambda w: w / 0), "b_dec in the SAE checkpoint .* (NaN|infinite)"),
        (lambda h: with_weight(h, "W_enc", lambda w: w * float("nan")), "W_enc in the SAE checkpoint .* NaN"),
        (lambda h: with_weight(h, "W_enc", lambda w: w.to(torch.complex64)), "W_enc .* is of the type complex64"),
        (lambda h: with_weight(h, "W_enc", lambda w: w.to(torch.int8)), "W_enc .* is of the type int8"),
        (lambda h: with_weight(h, "W_enc", lambda w: w.to_sparse()), "W_enc .* is sparse coo"),
        (lambda h: with_weight(h, "W_enc", lambda w: w.to_sparse_csr()), "W_enc .* is sparse csr"),
        (lambda h: with_weight(h, "b_enc", lambda w: w.to("meta")), "b_enc .* is without values"),
    ],
)
def test_another_layout_is_refused_with_what_it_holds(held, tmp_path, change, said):
    torch.save(change(held), tmp_path / "x.pth")
    with pytest.raises(FacError, match=said):
        import_checkpoint(Checkpoint(str(tmp_path / "x.pth"), None), tmp_path / "sae")


def with_weight(held: dict, name: str, change) -> dict:
    return {**held, "weight": {**held["weight"], name: change(held["weight"][name])}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "pointer that Git LFS leaves .*git lfs pull",
        ),
        (b"<!DOCTYPE html><html>Sign in</html>", r"is no file of torch.save \(it begins with b'<!DOCTYPE"),
        (b"", "is empty: fetch it again"),
    ],
)
def test_what_is_no_checkpoint_is_not_said_to_be_dangerous(tmp_path, content, said):
    (tmp_path / "x_l2.pth").write_bytes(content)
    with pytest.raises(FacError, match=f"SAE checkpoint .*{said}"):
        import_checkpoint(Checkpoint(str(tmp_path / "x_l2.pth"), None), tmp_path / "sae")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_real_floating_point_numbers_of_any_size_are_taken(held, tmp_path, dtype):
    torch.save({**held, "weight": {name: w.to(dtype) for name, w in held["weight"].items()}}, tmp_path / "x.pth")
    import_checkpoint(Checkpoint(str(tmp_path / "x.pth"), None), tmp_path / "sae")
    weights = load_file(tmp_path / "sae" / "sae_weights.safetensors")
    assert torch.equal(weights["W_enc"], held["weight"]["W_enc"].to(dtype).float())


def test_a_damaged_or_missing_file_is_said(file, tmp_path):
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(FacError, match=r"checkpoint .*epoch3.pth is damaged .*: fetch it again"):
        import_checkpoint(Checkpoint(str(file), None), tmp_path / "sae")
    with pytest.raises(FacError, match=r"There is no SAE checkpoint .*nothing.pth: set sae.path to the file"):
        find_checkpoint(SaeRef(str(tmp_path / "nothing.pth")))


def test_another_width_layer_or_model_is_refused_as_for_other_saes(file, held, model, store, tmp_path):
    with pytest.raises(FacError, match=r"trained on layer 2, not on layer 3 \(sae.layer\)"):
        _ = encoder_of(model, SaeRef(str(file)), layer=3).layer
    elsewhere = {**held["weight"], "b_dec": held["weight"]["b_dec"] + 9}  # the centre of other activations
    torch.save({**held, "weight": elsewhere}, tmp_path / "foreign_l2.pth")
    with pytest.raises(FacError, match=r"explains -?\d.*at least 0.30 was expected"):
        opened(encoder_of(model, SaeRef(str(tmp_path / "foreign_l2.pth"))), store)
    narrow = {"W_enc": torch.ones(32, 8), "b_enc": torch.ones(8), "b_dec": torch.ones(32)}
    torch.save({"weight": narrow, "config": {"d_inp": 32, "d_hide": 8, "topK": 2}}, tmp_path / "narrow_l2.pth")
    with pytest.raises(FacError, match="reads 32 dimensions but .* has 64"):
        opened(encoder_of(model, SaeRef(str(tmp_path / "narrow_l2.pth"))), store)


def test_a_name_without_a_layer_asks_for_it(held, model, store, tmp_path):
    torch.save(held, tmp_path / "sae.pth")
    with pytest.raises(FacError, match=r"sae.pth does not say which layer it was trained on: set sae.layer"):
        _ = encoder_of(model, SaeRef(str(tmp_path / "sae.pth"))).layer
    assert opened(encoder_of(model, SaeRef(str(tmp_path / "sae.pth")), layer=LAYER), store).sae.k == K


@pytest.fixture
def hub(held, tmp_path, monkeypatch):
    """A hub cache that holds the repository owner/sae_llama_l2_h160, on a machine that is offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "hub" / "models--owner--sae_llama_l2_h160"
    snapshot = root / "snapshots" / COMMIT
    for folder in (root / "refs", root / "blobs", snapshot):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    torch.save(held, snapshot / "epoch3.pth")
    (snapshot / "README.md").write_text("an SAE")
    return snapshot


@pytest.mark.parametrize("path", ["hub:owner/sae_llama_l2_h160", "owner/sae_llama_l2_h160"])
@pytest.mark.parametrize("sae_id", [None, "epoch3.pth"])
def test_a_hub_repository_is_found_at_its_commit(hub, model, store, path, sae_id):
    found = find_checkpoint(SaeRef(path, sae_id=sae_id))
    assert found == Checkpoint("epoch3.pth", LAYER, "owner/sae_llama_l2_h160", COMMIT)
    assert found is not None
    assert found.identity() == f"owner/sae_llama_l2_h160/epoch3.pth@{COMMIT}"
    assert opened(encoder_of(model, SaeRef(path, sae_id=sae_id)), store).sae.k == K


def test_of_several_checkpoints_one_must_be_chosen(hub, held, tmp_path):
    torch.save(held, hub / "epoch1.pth")
    with pytest.raises(FacError, match=r"holds several SAE checkpoints: set sae.id to one of epoch1.pth, epoch3.pth"):
        find_checkpoint(SaeRef("hub:owner/sae_llama_l2_h160"))
    chosen = find_checkpoint(SaeRef("hub:owner/sae_llama_l2_h160", sae_id="epoch1.pth"))
    assert chosen is not None
    assert chosen.name == "epoch1.pth"
    with pytest.raises(FacError, match="holds several SAE checkpoints"):
        find_checkpoint(SaeRef(str(hub)))


def test_what_is_no_checkpoint_is_left_to_saelens(hub, tmp_path):
    (hub / "cfg.json").write_text("{}")
    for ref in (
        SaeRef(release="r", sae_id="s"),
        SaeRef("hub:owner/sae_llama_l2_h160"),
        SaeRef("hub:owner/sae_llama_l2_h160", sae_id="layer_2"),
        SaeRef(str(tmp_path)),
        SaeRef("/nowhere"),
    ):
        assert find_checkpoint(ref) is None


@pytest.mark.parametrize("path", ["hub:owner/other", "hub:no/such/name"])
def test_a_repository_that_cannot_be_had_is_one_sentence(hub, path):
    with pytest.raises(
        FacError, match=r"cannot be had from the hub .*: check its name and that this machine can reach"
    ):
        find_checkpoint(SaeRef(path))
