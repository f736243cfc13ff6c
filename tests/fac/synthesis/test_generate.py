"""fac.synthesis.generate: all that decides what a method adds is in the key of its step, and nothing else."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
from support.writing import SETTINGS, Echo

from fac.data.schemas import PAIR, QUERY, Schema
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, Thresholds, mine
from fac.interpret import ROLES
from fac.model_ref import ModelRef
from fac.prompts import Prompts
from fac.sae.settings import TrainSettings
from fac.store import Step
from fac.synthesis.generate import synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.settings import ELSEWHERE, OF_SOME_METHODS

OTHER = {  # another value of each setting
    "n": 4,
    "m": 3,
    "spans": 2,
    "temperature": 0.7,
    "top_p": 0.8,
    "max_new_tokens": 21,
    "answers": "drawn",
    "span_tokens": 9,
    "seed": 43,
    "top_up": 1,
    "pair": "official",
    "summary": "analysis",
    "filter": False,
    "label_scored": True,
    "ratio": 0.5,
    "rows": 3,
    "votes": 3,
    "novelty": 0.9,
    "prefix": "template",
    "per_feature": 2,
    "choose": "magnitude",
    "clusters": 2.0,
    "proxy": "another",
    "strengths": (0.1,),
}


def nothing(folder: Path) -> None:
    raise AssertionError("keys are known before anything runs")


def of(name: str) -> Step:
    return Step("examples", nothing, {"of": name})


class Other(Echo):
    identity = "another"


@pytest.fixture
def key(world, tmp_path):
    """key(method, ...) is that of the step; a change is an argument of `synthesis`, or of what comes before it."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for role in ("explain", "verify", "judge", "write", "contrast"):
        (folder / f"{role}.jinja").write_text(role)

    def of_method(
        method: str = "fac",
        settings=SETTINGS,
        model: Echo | None = None,
        schema: Schema = QUERY,
        budget: int | None = 9,
        features: FeatureSettings | None = None,
        k: int = 6,
        reads: tuple[str, ...] = (),
        engines: tuple[str, ...] = (),
        **inputs: str,
    ) -> str:
        prompts = Prompts(folder)
        sae = TrainSettings(width=96, k=k)
        encoder = FeatureEncoder(ModelRef(str(world[0])), sae, 2, features or FeatureSettings(), of("anchor"))
        annotators = {str(role): Echo() for role in ROLES}
        mining = mine(encoder, of("anchor"), of("seed"), annotators, prompts, InterpretSettings(), Thresholds())
        seed, human, draw = (of(inputs.get(name, name)) for name in ("seed_examples", "human", "draw"))
        made = replace(METHODS[method], settings=reads, engines=engines)
        return synthesis(made, mining, model or Echo(), prompts, schema, settings, budget, seed, human, draw).key

    of_method.folder = folder
    return of_method


def test_another_setting_or_writer_is_another_step(key):
    assert set(OTHER) == {field.name for field in fields(SETTINGS)}
    later = [replace(SETTINGS, **{name: OTHER[name]}) for name in ELSEWHERE]  # they decide what becomes of it
    assert {key(settings=settings) for settings in later} == {key()}
    written = {name: value for name, value in OTHER.items() if name not in (*ELSEWHERE, *OF_SOME_METHODS)}
    others = [partial(key, settings=replace(SETTINGS, **{name: value})) for name, value in written.items()]
    others += [
        partial(key, "fac_one_step"),
        partial(key, schema=PAIR),
        partial(key, model=Other()),
        partial(key, budget=10),
        partial(key, k=7),
        partial(key, features=FeatureSettings(rule="official")),
        partial(key, features=FeatureSettings(span_end="before")),
        partial(key, seed_examples="other"),
        partial(key, human="other"),
        partial(key, draw="other"),
    ]
    keys = [key(), *(other() for other in others)]
    assert len(set(keys)) == len(keys)
    assert key(features=FeatureSettings(batch_tokens=64)) == key()  # how it is computed is no matter


@pytest.mark.parametrize("name", OF_SOME_METHODS)
def test_a_setting_of_some_methods_is_in_the_keys_of_those_alone(key, name):
    other = replace(SETTINGS, **{name: OTHER[name]})
    assert key(settings=other) == key()
    assert len({key(), key(reads=(name,)), key(reads=(name,), settings=other)}) == 3


def test_an_engine_that_cannot_do_what_a_method_asks_for_is_refused_while_planning(key):
    with pytest.raises(FacError, match=r"what fac asks for: choose llm=transformers or llm=vllm, or leave fac out"):
        key(engines=("transformers", "vllm"))
    able = Echo()
    able.engine = "vllm"
    assert key(engines=("transformers", "vllm"), model=able) == key()


def test_another_way_to_ask_or_to_read_replies_is_another_step(key):
    """Whether a reply refuses is decided as it is read: with other patterns, other examples are left."""
    keys = [key()]
    (key.folder / "write.jinja").write_text("write something else")
    keys.append(key())
    (key.folder / "set.yaml").write_text("refusals: {en: {refusal: [no idea]}}")
    keys.append(key())
    assert len(set(keys)) == 3
    (key.folder / "contrast.jinja").write_text("contrast something else")
    assert key() != keys[-1]
    one_step = key("fac_one_step")
    (key.folder / "contrast.jinja").write_text("once more")  # which one step does not show
    assert key("fac_one_step") == one_step


def test_a_method_without_a_writer_hangs_on_what_it_draws_from_alone(key):
    for method in ("full", "seed_twice"):
        assert key(method) == key(method, replace(SETTINGS, temperature=0.1), model=Other(), k=7, draw="other")
        assert key(method) not in {
            key(method, replace(SETTINGS, seed=43)), key(method, budget=10), key(method, human="other"),
            key(method, schema=PAIR), key(method, seed_examples="other"),
        }  # fmt: skip
