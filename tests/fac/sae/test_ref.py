"""fac.sae.ref: an SAE is known by its content, or by its name on the hub and the commit there."""

import json
import shutil

import pytest
from support.encoders import LAYER

from fac.backbone import ModelRef
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.sae.load import load
from fac.sae.ref import SaeRef

COMMIT, LATER = "4" * 40, "5" * 40


@pytest.fixture
def repository(trained, tmp_path, monkeypatch):
    """A hub cache that holds owner/saes, with the trained SAE in its folder `l2`, on a machine that is offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = tmp_path / "hub" / "models--owner--saes"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    shutil.copytree(trained, root / "snapshots" / COMMIT / "l2")
    monkeypatch.setattr("fac.hub._commit_now", __import__("fac.hub", fromlist=["x"])._commit_now.__wrapped__)
    return root


@pytest.mark.parametrize("path", ["hub:owner/saes", "owner/saes"])
def test_an_sae_of_the_hub_is_known_by_its_commit(repository, backbone, model, path):
    ref = SaeRef(path, sae_id="l2")
    first = ref.identity()
    assert first == f"{path}/l2@{COMMIT}"
    encoder = FeatureEncoder(ModelRef(str(model)), ref, None, FeatureSettings())
    assert encoder.layer == LAYER
    key = encoder.sae_step.key
    assert load(ref, backbone).record["layer"] == LAYER
    (repository / "snapshots" / COMMIT).rename(repository / "snapshots" / LATER)
    (repository / "refs" / "main").write_text(LATER)
    assert ref.identity() == f"{path}/l2@{LATER}"
    assert FeatureEncoder(ModelRef(str(model)), ref, None, FeatureSettings()).sae_step.key != key


def test_a_release_is_known_by_the_commit_of_its_repository(repository):
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    name = get_pretrained_saes_directory()["goodfire-llama-3.1-8b-instruct"].repo_id
    held = repository.parent / f"models--{name.replace('/', '--')}"
    (held / "refs").mkdir(parents=True)
    (held / "refs" / "main").write_text(COMMIT)
    (held / "snapshots" / COMMIT).mkdir(parents=True)
    ref = SaeRef(release="goodfire-llama-3.1-8b-instruct", sae_id="layer_19")
    assert ref.identity() == f"goodfire-llama-3.1-8b-instruct/layer_19@{COMMIT}"


def test_what_neither_the_hub_nor_its_cache_has_has_no_identity(repository):
    with pytest.raises(FacError, match="owner/other cannot be loaded from the hub"):
        SaeRef("hub:owner/other").identity()
    with pytest.raises(FacError, match="sae-lens knows no release goodfier"):
        SaeRef(release="goodfier", sae_id="x").identity()


def test_a_folder_inside_a_folder_is_named_by_sae_id(trained, backbone, tmp_path):
    shutil.copytree(trained, tmp_path / "many" / "layer_2")
    ref = SaeRef(str(tmp_path / "many"), sae_id="layer_2")
    assert load(ref, backbone).record["layer"] == LAYER
    assert ref.identity() == SaeRef(str(trained)).identity()
    with pytest.raises(FacError, match="There is no SAE folder .*many/layer_3"):
        load(SaeRef(str(tmp_path / "many"), sae_id="layer_3"), backbone)


def test_any_changed_weight_is_seen(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "sae")
    first = SaeRef(str(folder)).identity()
    file = folder / "sae_weights.safetensors"
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)
    assert SaeRef(str(folder)).identity() != first
    cfg = json.loads((folder / "cfg.json").read_text())
    second = SaeRef(str(folder)).identity()
    (folder / "cfg.json").write_text(json.dumps(cfg | {"k": 1}))
    assert SaeRef(str(folder)).identity() not in (first, second)
