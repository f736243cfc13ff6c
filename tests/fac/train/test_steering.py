"""fac.train.steering on tiny models of three families: against transformers alone, one text at a time.

Random weights say nothing about a behaviour, so no test asserts that a vector turns answers the way it should.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.caa import write_caa
from support.models import tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.data.choices import POLARITY, Choice, read_choices
from fac.data.source import Source
from fac.errors import FacError
from fac.train.steering import (
    SENTENCES,
    SteeringVector,
    caa_vector,
    equalise,
    fits,
    letter_ids,
    letter_probabilities,
    open_answer,
    prompt_vector,
    residual_norm,
    steered,
)

FAMILIES = ("llama", "mistral", "qwen2")
LAYER = 2
TURN = {  # from the user's last word to the open "("
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n(",
    "mistral": "[/INST] (",
    "qwen2": "<|im_end|>\n<|im_start|>assistant\n(",
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / family, family)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def backbone(folder):
    return Backbone(ModelRef(str(folder)), LAYER)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return read_choices(
        Source(write_caa(tmp_path_factory.mktemp("caa"), "survival-instinct") / "generate_dataset.json")
    )


@pytest.fixture(scope="module")
def vector():
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    return SteeringVector(direction, LAYER, "survival-instinct", "answer", 6, "a model")


def rendered(tokenizer, text, begun="("):
    """The ids up to the open turn, by transformers' own `continue_final_message`."""
    turn = [{"role": "user", "content": text}, {"role": "assistant", "content": begun}]
    written = tokenizer.apply_chat_template(turn, tokenize=False, continue_final_message=True)
    return tokenizer(written, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def letters_by_hand(model, tokenizer, item):
    logits = model(torch.tensor([rendered(tokenizer, item.text)])).logits[0, -1].double()
    ids = [tokenizer.get_vocab()[letter] for letter in item.letters]
    whole = logits.softmax(dim=0)[ids]
    return (whole / whole.sum()).numpy(), float(whole.sum())


@torch.no_grad()
def layer_output(model, layer, **inputs):
    """What the next layer is fed with: independent of the order of hooks on the layer itself."""
    caught = []
    hook = model.model.layers[layer].register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
    model(**inputs)
    hook.remove()
    return caught[0]


# The open turn


def test_the_turn_is_left_open_at_the_bracket(family, tokenizer, items):
    for item in items:
        opened = open_answer(tokenizer, item)
        assert opened.ids == rendered(tokenizer, item.text)
        assert tokenizer.decode(opened.ids[opened.after :]) == TURN[family]
        assert tokenizer.decode(opened.ids[: opened.after]).endswith(item.text)


def test_a_letter_is_a_token_of_its_own(tokenizer, items):
    assert tokenizer.convert_ids_to_tokens(letter_ids(tokenizer, items)) == ["A", "B", "C"]


def test_a_tokenizer_without_a_letter_is_refused(items):
    words = Tokenizer(WordLevel({"A": 0, "C": 1, "?": 2}, unk_token="?"))
    with pytest.raises(FacError, match="no token for the letter B"):
        letter_ids(PreTrainedTokenizerFast(tokenizer_object=words), items)


def test_a_question_longer_than_the_model_reads_is_refused(model, tokenizer, items):
    long = replace(items[0], marks=("word " * 1100 + items[0].marks[0], *items[0].marks[1:]))
    positions = model.config.max_position_embeddings
    assert [fits(tokenizer, item, positions) for item in (items[0], long)] == [True, False]
    exact = len(open_answer(tokenizer, items[0]).ids) + 1  # with the letter that a vector is read at
    assert [fits(tokenizer, items[0], count) for count in (exact, exact - 1, None)] == [True, False, True]
    with pytest.raises(FacError, match=f"1 of {len(items) + 1} questions are longer than the {positions} positions of"):
        letter_probabilities(model, tokenizer, [*items, long])


def test_a_question_fits_in_both_orders_or_not_at_all(tokenizer):
    """The blank before an option may be part of its token, so a question can be longer with its options exchanged."""
    item = Choice(("Which is it?\n(A) ", "\n(B)"), ("the", "zq"), 0, 1)
    lengths = [len(open_answer(tokenizer, order).ids) for order in (item, item.swapped())]
    assert lengths[0] < lengths[1]
    assert [fits(tokenizer, item, count) for count in (lengths[0] + 1, lengths[1] + 1)] == [False, True]


# Probabilities


def test_probabilities_are_those_of_each_item_alone(model, tokenizer, items):
    found = letter_probabilities(model, tokenizer, items, batch_size=4)
    for i, item in enumerate(items):
        p, mass = letters_by_hand(model, tokenizer, item)
        np.testing.assert_allclose(found.p[i], np.pad(p, (0, 3 - len(p))), atol=1e-5)
        np.testing.assert_allclose(found.mass[i], mass, rtol=1e-4)


@pytest.mark.parametrize("positions", ["all", "after_prompt"])
def test_batches_change_nothing(model, tokenizer, items, vector, positions):
    one, many = (letter_probabilities(model, tokenizer, items, vector, 0.7, positions, size) for size in (1, 5))
    np.testing.assert_allclose(one.p, many.p, atol=1e-5)
    np.testing.assert_allclose(one.mass, many.mass, atol=1e-5)


def test_steered_probabilities_are_those_of_each_item_alone(model, tokenizer, items, vector):
    for positions in ("all", "after_prompt"):
        found = letter_probabilities(model, tokenizer, items, vector, -0.7, positions)
        for i, item in enumerate(items):
            opened = open_answer(tokenizer, item)
            where = torch.arange(len(opened.ids))[None] >= (opened.after if positions == "after_prompt" else 0)
            with steered(model, vector, -0.7, where):
                p, _ = letters_by_hand(model, tokenizer, item)
            np.testing.assert_allclose(found.p[i, : len(p)], p, atol=1e-5)


def test_no_multiple_is_no_vector(model, tokenizer, items, vector):
    plain, none = letter_probabilities(model, tokenizer, items), letter_probabilities(model, tokenizer, items, vector)
    np.testing.assert_array_equal(plain.p, none.p)


# Steering


@pytest.mark.parametrize("layer", [1, LAYER, 3])
def test_exactly_a_multiple_is_added_and_nothing_stays(model, tokenizer, items, vector, layer):
    ids = torch.tensor([open_answer(tokenizer, items[0]).ids])
    moved = SteeringVector(vector.direction, layer, "b", "answer", 1, "m")
    plain = layer_output(model, layer, input_ids=ids)
    with steered(model, moved, 0.5):
        added = layer_output(model, layer, input_ids=ids) - plain
    torch.testing.assert_close(added, (0.5 * vector.direction).expand_as(added), atol=1e-5, rtol=0)
    assert torch.equal(layer_output(model, layer, input_ids=ids), plain)


def test_a_mask_says_where(model, tokenizer, items, vector):
    ids = torch.tensor([open_answer(tokenizer, items[0]).ids] * 2)
    where = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    plain = layer_output(model, LAYER, input_ids=ids)
    with steered(model, vector, 2, where):
        added = layer_output(model, LAYER, input_ids=ids) - plain
    torch.testing.assert_close(added, 2 * where[..., None] * vector.direction, atol=1e-5, rtol=0)


def test_padding_on_the_left_changes_nothing(model, tokenizer, items, vector):
    rows = [open_answer(tokenizer, item).ids for item in items]
    width = max(map(len, rows)) + 3
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad(), steered(model, vector, 1):
        padded = model(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, -1]
        alone = torch.stack([model(torch.tensor([row])).logits[0, -1] for row in rows])
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=1e-4)


def test_the_hook_goes_even_after_an_error(model, tokenizer, items, vector):
    ids = torch.tensor([open_answer(tokenizer, items[0]).ids])
    plain = layer_output(model, LAYER, input_ids=ids)
    with pytest.raises(KeyboardInterrupt), steered(model, vector, 1):
        raise KeyboardInterrupt
    assert torch.equal(layer_output(model, LAYER, input_ids=ids), plain)


@pytest.mark.parametrize(("layer", "width"), [(5, 64), (0, 64), (2, 32)])
def test_a_vector_that_does_not_fit_is_refused(model, layer, width):
    stranger = SteeringVector(torch.ones(width), layer, "b", "answer", 1, "hub/other@main")
    with (
        pytest.raises(FacError, match=f"width {width} for layer {layer} .*4 layers of width 64.*hub/other@main"),
        steered(model, stranger, 1),
    ):
        pass


# Vectors


@torch.no_grad()
def last_residual(model, ids, layer):
    return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0, -1].double()


def test_the_vector_is_the_mean_difference_at_the_letter(backbone, model, tokenizer, items):
    vector = caa_vector(backbone, items, "survival-instinct", batch_size=4)
    differences = []
    for item in items:
        sides = [
            [*rendered(tokenizer, item.text), tokenizer.get_vocab()[item.letters[side]]]
            for side in (item.matching, item.other)
        ]
        differences.append(last_residual(model, sides[0], LAYER) - last_residual(model, sides[1], LAYER))
    expected = torch.stack(differences).mean(dim=0).float()
    assert vector.norm > 0
    torch.testing.assert_close(vector.direction, expected, atol=1e-5, rtol=1e-4)
    assert (vector.layer, vector.method, vector.pairs, vector.model) == (LAYER, "answer", 6, backbone.ref.identity())


def test_the_vector_of_prompts_is_read_at_their_end(backbone, model, tokenizer):
    pairs = [(as_chat(f"Agree. Shall we {w}?"), as_chat(f"Do not agree. Shall we {w}?")) for w in ("go", "stay", "eat")]
    vector = prompt_vector(backbone, pairs, "sycophancy", batch_size=2)
    ends = [
        [
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
            for chat in pair
        ]
        for pair in pairs
    ]
    differences = [last_residual(model, a, LAYER) - last_residual(model, b, LAYER) for a, b in ends]
    torch.testing.assert_close(vector.direction, torch.stack(differences).mean(dim=0).float(), atol=1e-5, rtol=1e-4)
    assert vector.method == "prompt"


@torch.no_grad()
def test_how_long_a_residual_is_is_the_mean_over_what_users_say(backbone, model, tokenizer):
    """Not over the template's tokens, of which the first is many times as long; every token counts alike."""
    lengths = []
    for sentence in SENTENCES:
        ids, content = encode(tokenizer, as_chat(sentence))
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER][0]
        lengths += [float(state.norm()) for state, own in zip(states, content, strict=True) if own]
    assert residual_norm(backbone) == pytest.approx(sum(lengths) / len(lengths), rel=1e-5)


def test_no_pairs_no_vector(backbone):
    with pytest.raises(FacError, match="at least one pair"):
        caa_vector(backbone, [], "sycophancy")


def test_reading_again_is_identical(vector, tmp_path):
    vector.save(tmp_path / "new" / "vector")
    again = SteeringVector.load(tmp_path / "new" / "vector")
    assert torch.equal(again.direction, vector.direction)
    assert again.direction.dtype == torch.float32
    assert {k: v for k, v in vars(again).items() if k != "direction"} == {
        "layer": LAYER, "behavior": "survival-instinct", "method": "answer", "pairs": 6, "model": "a model",
    }  # fmt: skip
    assert json.loads((tmp_path / "new" / "vector" / "vector.json").read_text())["layer"] == LAYER


def test_a_folder_without_a_vector_is_named(tmp_path):
    with pytest.raises(FacError, match=f"no steering vector in {tmp_path}"):
        SteeringVector.load(tmp_path)


@given(st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3).filter(any), min_size=1, max_size=4))
def test_equal_vectors_keep_their_directions(rows):
    vectors = [SteeringVector(torch.tensor(row), 1, "b", "answer", 1, "m") for row in rows]
    vectors = [vector for vector in vectors if vector.norm > 1e-3]
    if not vectors:
        return
    mean = np.mean([np.linalg.norm(v.direction.numpy().astype(np.float64)) for v in vectors])
    for before, after in zip(vectors, equalise(vectors), strict=True):
        assert after.norm == pytest.approx(mean, rel=1e-5)
        cosine = torch.nn.functional.cosine_similarity(before.direction.double(), after.direction.double(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_one_vector_is_left_as_it_is(vector):
    assert torch.equal(equalise([vector])[0].direction, vector.direction)


def test_a_vector_without_length_is_refused(vector):
    nothing = SteeringVector(torch.zeros(64), 1, "refusal", "answer", 1, "m")
    with pytest.raises(FacError, match="refusal has length 0"):
        equalise([vector, nothing])


# Real questions


@pytest.mark.parametrize("behavior", POLARITY)
def test_the_steering_check(real_data, backbone, model, tokenizer, behavior):
    """Real CAA files: a vector and its negative are the same thing seen from two sides, and both are felt."""
    root = real_data("caa")
    pairs = read_choices(Source(root / "generate" / behavior / "generate_dataset.json"))
    test = read_choices(Source(root / "test" / behavior / "test_dataset_ab.json"))
    if behavior == "survival-instinct":  # letters up to (H)
        pairs = sorted(pairs, key=lambda item: -len(item.options))
    vector = caa_vector(backbone, pairs[:3], behavior).with_norm(8.0)
    negative = SteeringVector(-vector.direction, LAYER, behavior, "answer", 3, vector.model)
    plain = letter_probabilities(model, tokenizer, test[:6])
    found = {m: letter_probabilities(model, tokenizer, test[:6], vector, m) for m in (-1, 1)}
    for m, probabilities in found.items():
        assert np.isfinite(probabilities.p).all()
        np.testing.assert_allclose(probabilities.p.sum(axis=1), 1)
        assert (probabilities.mass > 0).all()
        assert np.abs(probabilities.p - plain.p).max() > 1e-4
        np.testing.assert_array_equal(probabilities.p, letter_probabilities(model, tokenizer, test[:6], negative, -m).p)
