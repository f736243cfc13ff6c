"""fac.llm.transformers against generate() itself, and its sampling against the probabilities."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.models import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.backbone import ModelRef
from fac.chat import PLAIN_TEMPLATE, as_chat, encode, open_user_turn
from fac.errors import FacError
from fac.llm.base import Completion, Request, Sampling, request_seed
from fac.llm.generation import _SeededChoice
from fac.llm.local import completion
from fac.llm.transformers import TransformersChat

FAMILIES = ("llama", "mistral", "qwen2")
TEXTS = ["hi", "How do I bake bread at home?", "user", "Write a short letter to my landlord. " * 4]
TEXTS += [f"Tell me {'why ' * n}the sky is blue" for n in range(4)]
GREEDY = Sampling(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: tiny_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def writer(models):
    return TransformersChat(ModelRef(str(models["llama"])))


def requests(texts, seed=42):
    return [Request(str(n), as_chat(text), request_seed(seed, n)) for n, text in enumerate(texts)]


def plain_greedy(folder, text, tokens):
    """(prompt ids, new ids) of the model's own generate(), one prompt alone and unpadded."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(as_chat(text), add_generation_prompt=True, return_dict=False)
    out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=tokens)
    return ids, out[0, len(ids) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_replies_are_generates_own(models, family):
    texts = [text.strip() for text in TEXTS]
    replies = TransformersChat(ModelRef(str(models[family]))).chat(requests(texts), GREEDY)
    tokenizer = AutoTokenizer.from_pretrained(models[family])
    for text, reply in zip(texts, replies, strict=True):
        prompt, new = plain_greedy(models[family], text, GREEDY.max_new_tokens)
        assert reply.text == tokenizer.decode(new, skip_special_tokens=True).strip()
        assert reply.prompt_tokens == len(prompt)
        assert reply.finished == (tokenizer.eos_token_id in new)
        assert reply.completion_tokens == len(new) - reply.finished


@pytest.mark.parametrize("family", FAMILIES)
def test_a_users_turn_is_continued_up_to_what_the_template_writes_behind_it(models, family):
    """Greedy, beside generate() itself: the first token that ends a user's turn ends the reply."""
    tokenizer = AutoTokenizer.from_pretrained(models[family])
    opened = open_user_turn(tokenizer)
    model: Any = AutoModelForCausalLM.from_pretrained(models[family])
    out = model.generate(torch.tensor([opened.ids]), do_sample=False, max_new_tokens=24)[0, len(opened.ids) :].tolist()
    request = Request("1", [], 0, "bare user")
    (reply,) = TransformersChat(ModelRef(str(models[family]))).chat([request], GREEDY)
    stops = {*opened.stops, tokenizer.eos_token_id}
    until = next((n for n, token in enumerate(out) if token in stops), len(out))
    assert reply.text == tokenizer.decode(out[:until], skip_special_tokens=True).strip()
    assert (reply.prompt_tokens, reply.completion_tokens) == (len(opened.ids), until)


def test_a_user_who_is_answered_has_ended(writer, models, tmp_path):
    """A template that ends a user's turn in plain words: the reply ends where they begin, and is whole."""
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    tokenizer.chat_template = PLAIN_TEMPLATE
    opened = open_user_turn(tokenizer)
    drawn = tokenizer.encode("how do I bake\nassistant: like that", add_special_tokens=False)
    said = completion(tokenizer, opened.ids, drawn, set(), opened.mark)
    assert (said.raw, said.finished) == ("how do I bake", True)
    assert not completion(tokenizer, opened.ids, drawn, set()).finished


def test_different_turns_are_not_opened_together(writer):
    mixed = [Request("1", as_chat("hi"), 0), Request("2", [], 0, "user")]
    with pytest.raises(ValueError, match="open the same turn"):
        writer.chat(mixed, GREEDY)


def test_a_reply_is_finished_iff_a_stop_token_was_drawn(models, tmp_path):
    """A token of the greedy reply is made a stop token: limits below, at and above it."""
    text = "How do I bake bread at home?"
    _, new = plain_greedy(models["llama"], text, 12)
    at = next(n for n in range(3, 11) if new[n] not in new[:n])
    folder = shutil.copytree(models["llama"], tmp_path / "stops")
    config = json.loads((folder / "generation_config.json").read_text())
    config["eos_token_id"] = [config["eos_token_id"], new[at]]
    (folder / "generation_config.json").write_text(json.dumps(config))
    writer = TransformersChat(ModelRef(str(folder)))
    expected = AutoTokenizer.from_pretrained(folder).decode(new[:at], skip_special_tokens=True).strip()
    for limit, finished in ((at, False), (at + 1, True), (12, True)):
        # A longer neighbour, so that the finished reply is padded.
        reply, _ = writer.chat(requests([text, "hi"]), Sampling(temperature=0, max_new_tokens=limit))
        assert (reply.text, reply.completion_tokens, reply.finished) == (expected, at, finished)


def test_a_reply_depends_on_its_own_seed_only(writer):
    sampling = Sampling(max_new_tokens=32)
    asked = requests(TEXTS)
    together = writer.chat(asked, sampling)
    assert writer.chat(asked, sampling) == together
    assert writer.chat(asked[::-1], sampling)[::-1] == together
    assert [writer.chat([request], sampling)[0] for request in asked] == together
    other = writer.chat(requests(TEXTS, seed=43), sampling)
    assert all(a.text != b.text for a, b in zip(together, other, strict=True))


def test_one_prompt_with_other_seeds_gives_other_replies(writer):
    asked = [Request(str(n), as_chat(TEXTS[1]), request_seed(n)) for n in range(8)]
    assert len({reply.text for reply in writer.chat(asked, Sampling(max_new_tokens=16))}) == 8


@pytest.mark.parametrize("step", [0, 3])
def test_the_seeded_choice_follows_the_probabilities(step):
    rows, prompt = 20_000, 2
    logits = torch.tensor([0.0, 1.0, -1.0, 2.5, -torch.inf, 0.5, 1.5])
    choice = _SeededChoice([request_seed(42, n) for n in range(rows)], prompt, 5)
    ids: torch.LongTensor = torch.zeros(rows, prompt + step, dtype=torch.long)  # pyright: ignore[reportAssignmentType]
    chosen = choice(ids, logits.expand(rows, -1))  # pyright: ignore[reportArgumentType]
    assert ((chosen == 0).sum(dim=1) == 1).all()
    assert (torch.isneginf(chosen).sum(dim=1) == len(logits) - 1).all()
    drawn = np.bincount(chosen.argmax(dim=1).numpy(), minlength=len(logits))
    expected = logits.softmax(dim=0).double().numpy() * rows
    assert drawn[4] == 0
    possible = expected > 0
    assert stats.chisquare(drawn[possible], expected[possible] * (rows / expected.sum())).pvalue > 0.001


def test_choices_of_successive_steps_are_independent():
    rows = 20_000
    choice = _SeededChoice([request_seed(42, n) for n in range(rows)], 0, 2)
    scores: torch.FloatTensor = torch.zeros(rows, 4)  # pyright: ignore[reportAssignmentType]
    first, second = (
        choice(torch.zeros(rows, step, dtype=torch.long), scores).argmax(dim=1).numpy()  # pyright: ignore[reportArgumentType]
        for step in (0, 1)
    )
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    result: Any = stats.chi2_contingency(table)
    assert result.pvalue > 0.001


def test_temperature_and_top_p_shape_what_is_drawn(models, writer):
    """The first token of 2,000 replies: only the nucleus is drawn, and as often as its probabilities say."""
    temperature, top_p, count, text = 0.3, 0.7, 2000, TEXTS[1]
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    model = AutoModelForCausalLM.from_pretrained(models["llama"])
    with torch.inference_mode():
        ids = encode(tokenizer, as_chat(text), add_generation_prompt=True).ids
        logits = model(torch.tensor([ids])).logits[0, -1].double().numpy()
    probability = np.exp(logits / temperature)
    probability /= probability.sum()
    order = np.argsort(-probability)
    nucleus = order[: int(np.searchsorted(np.cumsum(probability[order]), top_p)) + 1]
    assert 4 < len(nucleus) < 200
    expected: dict[str, float] = {}  # by what a reader sees: tokens that differ in blanks only read alike
    for token in nucleus:
        seen = tokenizer.decode([token], skip_special_tokens=True).strip()
        expected[seen] = expected.get(seen, 0.0) + count * probability[token] / probability[nucleus].sum()
    asked = [Request(str(n), as_chat(text), request_seed(1, n)) for n in range(count)]
    sampling = Sampling(temperature, top_p, max_new_tokens=1)
    replies = [r.text for start in range(0, count, 500) for r in writer.chat(asked[start : start + 500], sampling)]
    assert set(replies) <= set(expected)
    common = [seen for seen, n in expected.items() if n >= 5]
    rare = count - sum(expected[seen] for seen in common)
    observed = [replies.count(seen) for seen in common]
    assert rare < 0.5 or rare >= 5
    if rare >= 5:
        observed, wanted = [*observed, count - sum(observed)], [*(expected[seen] for seen in common), rare]
    else:
        wanted = [expected[seen] for seen in common]
    assert stats.chisquare(observed, wanted).pvalue > 0.001


def test_identity_names_engine_and_weights(models):
    identities = {TransformersChat(ModelRef(str(folder))).identity for folder in models.values()}
    assert len(identities) == 3
    assert all(identity.startswith("transformers:") for identity in identities)


def test_the_batch_is_part_of_the_identity_where_replies_depend_on_it(models, monkeypatch):
    """On a CPU, in float32, they do not (test_a_reply_depends_on_its_own_seed_only)."""
    ref = ModelRef(str(models["llama"]))
    assert TransformersChat(ref, 4).identity == TransformersChat(ref, 64).identity
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TransformersChat(ref, 4).identity != TransformersChat(ref, 64).identity


def test_a_thought_that_the_template_opens_is_no_reply_and_marks_that_are_special_are_kept(models):
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    stop = tokenizer.eos_token_id
    assert completion(tokenizer, ids("hi <think>\n"), ids("a draft"), {stop}).text == ""
    assert completion(tokenizer, ids("hi <think>\n"), [*ids("a draft</think>bread"), stop], {stop}).text == "bread"
    marked = [*ids("[THINK]a draft[/THINK]bread"), stop]
    assert completion(tokenizer, ids("hi"), marked, {stop}) == Completion(
        "[THINK]a draft[/THINK]bread", len(ids("hi")), len(marked) - 1, True
    )
    assert completion(tokenizer, ids("hi"), marked, {stop}).text == "bread"


# Models that cannot end, prompts that are too long


def test_a_tokenizer_without_padding_writes_the_same(models, tmp_path):
    folder = shutil.copytree(models["llama"], tmp_path / "nopad")
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in told.items() if k not in ("pad_token", "eos_token")}))
    asked = requests(["hello", "How do I bake bread at home without an oven?"])
    same = [TransformersChat(ModelRef(str(path))).chat(asked, GREEDY) for path in (models["llama"], folder)]
    assert same[0] == same[1]


def test_a_model_ends_its_replies_by_its_tokenizer_if_nothing_else_says_how_or_is_refused(models, tmp_path):
    folder = shutil.copytree(models["llama"], tmp_path / "endless")

    def drop(name, *keys):
        told = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({k: v for k, v in told.items() if k not in keys}))

    drop("generation_config.json", "eos_token_id")
    drop("config.json", "eos_token_id")
    usual, by_tokenizer = (TransformersChat(ModelRef(str(path))) for path in (models["llama"], folder))
    assert by_tokenizer.chat(requests(TEXTS), GREEDY) == usual.chat(requests(TEXTS), GREEDY)
    drop("tokenizer_config.json", "pad_token", "eos_token")
    with pytest.raises(FacError, match=r"has no end-of-text token.*set eos_token .*eos_token_id"):
        TransformersChat(ModelRef(str(folder))).chat(requests(["hello"]), GREEDY)


def test_prompt_and_reply_stay_within_the_models_positions(models, tmp_path):
    folder = shutil.copytree(models["llama"], tmp_path / "short")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_position_embeddings": 40}))
    long, short = TransformersChat(ModelRef(str(models["llama"]))), TransformersChat(ModelRef(str(folder)))
    asked = requests(["hello", "hello hello"])
    for whole, cut in zip(long.chat(asked, GREEDY), short.chat(asked, GREEDY), strict=True):
        room = 40 - cut.prompt_tokens
        assert cut.completion_tokens == min(room, whole.completion_tokens)
        assert whole.text.startswith(cut.text[:-1])
    with pytest.raises(FacError, match=r"A prompt of \d+ tokens leaves no room .* in 40 tokens \(its max_position"):
        short.chat(requests(["hello " * 80]), GREEDY)
