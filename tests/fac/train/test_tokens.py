"""fac.train.tokens: ids are those of fac.chat.encode, and no chat is encoded twice."""

import pytest
from support.models import tiny_model
from transformers import AutoTokenizer

from fac.backbone import load_tokenizer
from fac.chat import as_chat, encode, exchange
from fac.model_ref import ModelRef
from fac.train import tokens

CHATS = [as_chat("How do I bake bread?"), exchange("Say it", "I say it."), as_chat("How do I bake bread?")]


@pytest.fixture
def asked(monkeypatch):
    """How many chats were encoded, by call; nothing is remembered from before."""
    counts, real = [], tokens.encode_many
    monkeypatch.setattr(tokens, "_SEEN", {})
    monkeypatch.setattr(tokens, "encode_many", lambda tok, chats: counts.append(len(chats)) or real(tok, chats))
    return counts


def test_a_chat_is_encoded_once_for_all_tokenizers_that_are_the_same(tmp_path, asked):
    tokenizer = load_tokenizer(ModelRef(str(tiny_model(tmp_path / "llama"))))
    expected = [encode(tokenizer, chat).ids for chat in CHATS]
    found = tokens.ids_of(tokenizer, CHATS)
    assert found == expected
    found[0].clear()  # whoever asked may change what was given
    tokenizer.save_pretrained(tmp_path / "trained")
    again = AutoTokenizer.from_pretrained(tmp_path / "trained")
    assert tokens.ids_of(again, CHATS) == expected
    assert asked == [2, 0]


def test_another_tokenizer_or_template_has_ids_of_its_own(tmp_path, asked):
    folder = str(tiny_model(tmp_path / "llama"))
    other = ModelRef(str(tiny_model(tmp_path / "qwen2", "qwen2")))
    for ref in (ModelRef(folder), ModelRef(folder, chat_template="plain"), other):
        tokenizer = load_tokenizer(ref)
        assert tokens.ids_of(tokenizer, CHATS) == [encode(tokenizer, chat).ids for chat in CHATS]
    assert asked == [2, 2, 2]


def test_what_is_remembered_is_bounded(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 4)
    tokenizer = load_tokenizer(ModelRef(str(tiny_model(tmp_path / "llama"))))
    for number in range(10):
        chats = [as_chat(f"{number}"), as_chat(f"more of {number}")]
        assert tokens.ids_of(tokenizer, chats) == [encode(tokenizer, chat).ids for chat in chats]
        assert len(tokens._SEEN) <= 4
