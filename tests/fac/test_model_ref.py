"""fac.model_ref: a model that a step makes is known before it is there, and whatever works with it comes after it."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support.models import tiny_model

from fac.backbone import load_causal_lm, model_depth
from fac.encoder import FeatureEncoder
from fac.features.settings import FeatureSettings
from fac.llm.transformers import TransformersChat
from fac.model_ref import MODEL, MadeModel, ModelRef
from fac.sae.settings import TrainSettings
from fac.store import Step, Store, missing


def make(seed: int, folder: Path) -> None:
    tiny_model(folder / MODEL, "llama", seed)


def made(store: Store, origin: Path, seed: int = 1) -> MadeModel:
    step = Step("made", partial(make, seed), {"seed": seed})
    return MadeModel("ours after round 1", step=step, store=store.root, origin=ModelRef(str(origin)))


def note(model: ModelRef, folder: Path, *inputs: Path) -> None:
    (folder / "layers").write_text(str(load_causal_lm(model)[0].config.num_hidden_layers))


@dataclass(frozen=True)
class Held:
    inner: object


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("origin"), "llama")


WAYS: dict[str, Callable[[ModelRef], dict[str, object]]] = {
    "as a parameter": lambda model: {"params": {"model": model}},
    "with its builder": lambda model: {"build": partial(note, model)},
    "as who writes": lambda model: {"params": {"writer": {"one": TransformersChat(model)}}},
    "within a dataclass": lambda model: {"build": partial(note, Held([model]))},  # type: ignore[arg-type]
    "through a function": lambda model: {"params": {"of": lambda: model.identity()}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_holds_it_comes_after_the_step_that_makes_it(store: Store, origin: Path, way: str):
    model = made(store, origin)
    step = Step("user", **{"build": note, **WAYS[way](model)})  # type: ignore[arg-type]
    assert missing([step], store) == [model.step, step]


def test_so_do_the_steps_of_an_encoder_that_reads_it(store: Store, origin: Path):
    model, texts = made(store, origin), Step("texts", note)
    encoder = FeatureEncoder(model, TrainSettings(8, 2, 1, 1, 1e-3, 8), None, FeatureSettings(), texts)
    assert encoder.layer == max(model_depth(ModelRef(str(origin))) // 2, 1)  # which its kin tells: it is not there
    assert model.step in missing([encoder.features(texts)], store)
    assert model.step in missing([encoder.sae_step], store)


def test_it_is_built_and_loaded_as_any_model(store: Store, origin: Path):
    model = made(store, origin)
    step = Step("user", partial(note, model), {"model": model})
    assert (store.get(step) / "layers").read_text() == str(model_depth(model))
    assert model.lasting.folder == model.folder
    assert (model.folder / "config.json").is_file()


def test_what_decides_it_is_its_step_and_neither_its_place_nor_its_name(store: Store, origin: Path, tmp_path: Path):
    one, other = made(store, origin), made(store, origin, seed=2)
    elsewhere = MadeModel("another name", step=one.step, store=tmp_path / "moved", origin=one.origin)
    assert one.identity() == elsewhere.identity() != other.identity()
    assert one.identity() == pickle.loads(pickle.dumps(one)).identity()


def test_another_process_gets_it_without_the_way_to_make_it(store: Store, origin: Path):
    model = made(store, origin)
    sent: MadeModel = pickle.loads(pickle.dumps(model))
    assert (sent.folder, sent.contents(), sent.kin) == (model.folder, model.contents(), model.kin)
    with pytest.raises(AssertionError, match="was to be finished before"):
        sent.step.build(Path())
