"""fac.sae.quality: the numbers of Table 7, against plain formulas over all texts at once."""

import dataclasses

import pytest
import torch
from support.encoders import LAYER, WIDTH, sentences
from transformers import AutoModelForCausalLM, AutoTokenizer

from fac.chat import as_chat, encode
from fac.errors import FacError
from fac.sae.load import load
from fac.sae.quality import quality, token_rows
from fac.sae.ref import SaeRef

LONGEST = 20  # cuts some texts


@pytest.fixture(scope="module")
def sae(trained, backbone):
    return load(SaeRef(str(trained)), backbone)


@pytest.fixture(scope="module")
def chats():
    return [*map(as_chat, sentences(60, seed=5)), []]  # an empty one has no tokens


def rows_of(model, chats, tokens):
    """Each text's residuals, by transformers alone, one at a time."""
    tokenizer, whole = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).eval()
    for chat in filter(None, chats):
        encoded = encode(tokenizer, chat)
        with torch.no_grad():
            hidden = whole(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states[LAYER][0]
        kept = torch.tensor(encoded.content if tokens == "content" else [True] * len(encoded.ids))[:LONGEST]
        yield hidden[:LONGEST][kept]


@pytest.mark.parametrize("tokens", ["all", "content"])
def test_the_numbers_are_those_of_the_formulas(model, backbone, sae, chats, tokens):
    texts = list(rows_of(model, chats, tokens))
    x = torch.cat(texts).double()
    z = sae.encode(x.float())
    rebuilt = sae.reconstruct(x.float())[1].double()
    lost = (rebuilt - x).pow(2)
    relative = (lost.mean(dim=1) / x.pow(2).mean(dim=1)).split([len(t) for t in texts])
    found = quality(sae, backbone, chats, len(chats), max_tokens=LONGEST, tokens=tokens)
    assert found.tokens == len(x)
    assert found.l2 == pytest.approx(float(torch.stack([r.mean() for r in relative]).mean()), rel=1e-4)
    assert found.explained_variance == pytest.approx(float(1 - lost.sum() / (x - x.mean(0)).pow(2).sum()), rel=1e-4)
    assert found.l0 == pytest.approx(float((z > 0).sum(1).double().mean()), abs=0.05)
    assert found.active == int((z > 0).any(0).sum())


def test_neither_batches_nor_blocks_change_them(backbone, sae, chats):
    whole = quality(sae, backbone, chats, len(chats))
    for batch_tokens, elements in ((1, 1), (100, 7 * WIDTH), (10_000, 1 << 25)):
        cut = quality(sae, backbone, iter(chats), len(chats), batch_tokens=batch_tokens, encode_elements=elements)
        assert dataclasses.asdict(cut) == pytest.approx(dataclasses.asdict(whole), rel=1e-3)


def test_the_shares_of_each_text_add_up_to_one(backbone, chats):
    batches = list(token_rows(backbone, chats, max_tokens=LONGEST, tokens="all", batch_tokens=64))
    assert len(batches) > 10
    assert sum(float(rows.share.sum()) for rows in batches) == pytest.approx(60)
    assert all(len(rows.x) == len(rows.share) <= 64 for rows in batches)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_no_texts_are_said(backbone, sae, texts):
    with pytest.raises(FacError, match="no tokens to measure the SAE on: name a data set with texts"):
        quality(sae, backbone, map(as_chat, texts), len(texts))
