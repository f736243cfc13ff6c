"""fac.synthesis.needs: a method gets what it names in `needs`, its step hangs on that, and on nothing else."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from support.encoders import sentences, train_sae
from support.models import tiny_model
from support.writing import Echo

from fac.chat import as_chat
from fac.data.example_set import save_examples
from fac.data.pairs import Pair
from fac.data.schemas import PAIR, QUERY, Query, Schema
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.features.means import content_means
from fac.features.settings import FeatureSettings
from fac.gap import InterpretSettings, Thresholds, mine
from fac.interpret import ROLES
from fac.model_ref import ModelRef
from fac.prompts import Prompts
from fac.sae.ref import SaeRef
from fac.store import Step, Store
from fac.synthesis.generate import synthesis
from fac.synthesis.method import Method, Outcome, undeclared
from fac.synthesis.methods import METHODS
from fac.synthesis.needs import Extras
from fac.synthesis.settings import Settings

TEXTS = sentences(24, seed=5)
PAIRS = [Pair(as_chat(TEXTS[i]), TEXTS[i + 1], TEXTS[i + 2]) for i in range(0, 21, 3)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    root = tmp_path_factory.mktemp("needs")
    model = tiny_model(root / "model")
    sae = SaeRef(str(train_sae(model, root / "sae")))
    return FeatureEncoder(ModelRef(str(model)), sae, None, FeatureSettings(max_tokens=48))


def examples_step(examples, schema: Schema = QUERY):
    values = [schema.dump(example) for example in examples]
    return Step("examples", partial(_save, schema, examples), {"examples": values})


def _save(schema, examples, folder):
    save_examples(schema, examples, folder)


def nothing(*_):
    raise AssertionError("this is not to be built")


def step_of(encoder, method, schema: Schema = QUERY, pool=TEXTS, settings=None, model=None, **more):
    """The step of a method whose pool are queries with these texts, or the examples `pool` themselves."""
    mining = mine(
        encoder, Step("anchor", nothing), Step("seed", nothing), {role: Echo() for role in ROLES},
        Prompts("lab/toxicity"), InterpretSettings(), Thresholds(),
    )  # fmt: skip
    examples = [Query(text) for text in pool] if schema is QUERY else pool
    known = examples_step(examples[:3], schema)
    return synthesis(
        method, mining, model or Echo(), Prompts("lab/toxicity"), schema, settings or Settings(), 5, known, known,
        Step("draw", nothing), Extras(pool=examples_step(examples, schema), **more),
    )  # fmt: skip


def test_a_method_without_needs_has_the_step_that_it_had_before_there_were_any(encoder):
    plain, writing = step_of(encoder, METHODS["full"]), step_of(encoder, METHODS["fac"])
    assert [step.name for step in plain.inputs] == ["examples", "examples"]
    assert list(plain.params) == ["method", "schema", "budget", "seed"]
    assert len(writing.inputs) == 6
    assert "needs" not in writing.params


def test_what_a_need_hangs_on_is_in_the_key(encoder):
    def key(name, **changes):
        return step_of(encoder, METHODS[name], **changes).key

    assert key("select_random") != key("select_random", pool=TEXTS[1:])
    assert key("full") == key("full", pool=[*TEXTS[:3], "another"])  # which has none
    half = Settings(ratio=0.5)
    assert key("select_fac") != key("select_fac", settings=half)
    assert key("select_random") == key("select_random", settings=half)  # to which no feature is missing
    assert key("select_dense") not in {key("select_random"), key("select_sae_greedy")}
    needing = Method("one", "One", nothing, ("write",), needs=("pool",))
    step = step_of(encoder, needing)
    assert [part.name for part in step.inputs[6:]] == ["examples", "features"]
    assert step.key != step_of(encoder, replace(needing, needs=())).key


def test_directions_of_one_model_are_not_added_to_another_that_writes(encoder):
    writer = Echo()
    writer.engine, writer.ref = "transformers", encoder.model  # type: ignore[attr-defined]
    assert step_of(encoder, METHODS["steered"], model=writer).inputs[6:] == (encoder.sae_step,)
    writer.ref = ModelRef("another/model")  # type: ignore[attr-defined]
    with pytest.raises(FacError, match="is the one to write with: leave llm.model and the writer as they are"):
        step_of(encoder, METHODS["steered"], model=writer)


def test_a_proxy_decides_where_gradients_are_asked_for(encoder):
    proxied = Settings(proxy=encoder.model.path)
    assert step_of(encoder, METHODS["prismatic"]).key == step_of(encoder, METHODS["prismatic"], settings=proxied).key
    other = replace(proxied, proxy=f"{encoder.model.path}/../none")
    with pytest.raises(FacError, match="There is no model folder"):
        step_of(encoder, METHODS["prismatic"], settings=other).key  # noqa: B018
    step_of(encoder, METHODS["fac"], settings=other).key  # noqa: B018 (which reads none)


def run_with(encoder, tmp_path, needs, look, schema: Schema = QUERY, **changes):
    """Build the step of a method that only looks at what it is given."""
    method = Method("looker", "Looker", lambda given, _: Outcome(look(given) or []), needs=needs)
    Store(tmp_path / "store").get(step_of(encoder, method, schema, **changes))


def test_the_pool_comes_with_the_activations_of_its_chats(encoder, tmp_path):
    def look(given):
        pool = given.pool()
        assert pool.examples == PAIRS
        assert pool.owners.tolist() == [i // 2 for i in range(14)]
        assert pool.activations.n_texts == len(pool.lengths) == 14
        chats = [chat for pair in PAIRS for chat in PAIR.chats(pair)]
        folder = tmp_path / "measured"
        folder.mkdir()
        sae = Store(tmp_path / "store").get(encoder.sae_step)
        encoder.extractor(sae).extract(chats, folder)
        assert np.array_equal(pool.activations.row(5), type(pool.activations).load(folder).row(5))
        assert given.embed is undeclared

    run_with(encoder, tmp_path, ("pool",), look, PAIR, pool=PAIRS)


def test_an_embedding_is_the_mean_direction_of_an_example_s_chats(encoder, tmp_path):
    def look(given):
        found = given.embed(PAIRS)
        means = content_means(encoder.backbone, PAIR.chats(PAIRS[2]), encoder.settings).astype(np.float64)
        expected = (means / np.linalg.norm(means, axis=1, keepdims=True)).sum(axis=0)
        np.testing.assert_allclose(found[2], expected / np.linalg.norm(expected), atol=1e-5)
        assert found.dtype == np.float32
        assert given.embed([]).shape == (0, found.shape[1])
        with pytest.raises(ValueError, match=r"names in Method\.needs"):
            given.pool()

    run_with(encoder, tmp_path, ("embeddings",), look, PAIR, pool=PAIRS)
