"""fac.features against brute force: every text alone, no batches, the maximum over its content tokens."""

import os
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import LAYER, WIDTH, sentences, train_sae
from support.models import tiny_model

from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat, encode
from fac.corpus_features import Tops, cut_note
from fac.features import batches
from fac.features.extract import Extractor
from fac.features.means import content_means
from fac.features.settings import FeatureSettings
from fac.features.texts import encode_measured
from fac.pooled import Pooled
from fac.sae.load import load
from fac.sae.ref import SaeRef

SETTINGS = FeatureSettings(max_tokens=48, top_spans=5)
CHATS = [as_chat(text) for text in sentences(40, seed=3)]
CHATS[4:4] = [
    [],  # a reply that could not be read
    as_chat("   "),  # a text without content
    as_chat("very long text " * 60),
    [{"role": "user", "content": "Grüße 🍞"}, {"role": "assistant", "content": "bread"}, *as_chat("oven")],
]


@pytest.fixture(scope="module")
def extractors(tmp_path_factory):
    """One extractor per rule."""
    model, folder = tiny_model(tmp_path_factory.mktemp("model"), "llama"), tmp_path_factory.mktemp("sae")
    backbone = Backbone(ModelRef(str(model)), LAYER)
    ref = SaeRef(str(train_sae(model, folder)))
    return {r: Extractor(backbone, load(ref, backbone, r), replace(SETTINGS, rule=r)) for r in ("paper", "official")}


@pytest.fixture(scope="module")
def brute(extractors):
    """Per rule: activations [tokens, width] of each chat at each of its tokens; -1 where a token is no content."""

    def one(extractor, chat):
        if not chat:
            return np.full((1, WIDTH), -1.0)
        ids, content = encode(extractor.backbone.tokenizer, chat, max_tokens=SETTINGS.max_tokens)
        activations = extractor.sae.encode(extractor.backbone.residual([ids])[0]).numpy()
        return np.where(np.array(content)[:, None], activations, -1.0)

    return {rule: [one(extractor, chat) for chat in CHATS] for rule, extractor in extractors.items()}


def dense(folder):
    pooled = Pooled.load(folder)
    return np.array([pooled.row(text) for text in range(pooled.n_texts)])


@pytest.mark.parametrize("rule", ["paper", "official"])
def test_pooled_values_are_the_maxima_over_content_tokens(extractors, brute, tmp_path, rule):
    extractors[rule].extract(CHATS, tmp_path)
    expected = np.array([tokens.max(axis=0).clip(min=0) for tokens in brute[rule]])
    np.testing.assert_allclose(dense(tmp_path), expected, atol=1e-4)
    assert (expected[0] > 0).any()
    assert not expected[4:6].any()  # the unread reply and the blank text
    assert Pooled.load(tmp_path).meta["rule"] == rule


@pytest.mark.parametrize("rule", ["paper", "official"])
def test_tops_are_the_strongest_texts_and_their_tokens(extractors, brute, tmp_path, rule):
    extractors[rule].extract(CHATS, tmp_path)
    tops, values = Tops.load(tmp_path), dense(tmp_path)
    assert tops.values.shape == tops.texts.shape == tops.tokens.shape == (WIDTH, SETTINGS.top_spans)
    for feature in range(WIDTH):
        column = values[:, feature].tolist()
        order = [text for _, text in sorted((-g, text) for text, g in enumerate(column) if g > 0)][: SETTINGS.top_spans]
        padding = SETTINGS.top_spans - len(order)
        assert tops.texts[feature].tolist() == order + [-1] * padding
        np.testing.assert_array_equal(tops.values[feature], [*values[order, feature], *[0] * padding])
        for text, token in zip(order, tops.tokens[feature], strict=False):
            assert brute[rule][text][token, feature] == pytest.approx(values[text, feature], abs=1e-4)


@pytest.mark.parametrize(
    ("batch_tokens", "encode_elements", "window"),
    [(1, 1 << 25, 2048), (100, 1, 2048), (4096, 60 * WIDTH, 2048), (300, 200 * WIDTH, 1), (4096, 1 << 25, 7)],
)
def test_how_the_work_is_cut_changes_nothing(
    extractors, brute, tmp_path, monkeypatch, batch_tokens, encode_elements, window
):
    monkeypatch.setattr(batches, "TOGETHER", min(window, batches.TOGETHER))
    monkeypatch.setattr(batches, "WINDOW_TOKENS", min(40 * window, batches.WINDOW_TOKENS))
    extractor = extractors["paper"]
    cut = replace(extractor.settings, batch_tokens=batch_tokens, encode_elements=encode_elements)
    Extractor(extractor.backbone, extractor.sae, cut).extract(CHATS, tmp_path)
    expected = np.array([tokens.max(axis=0).clip(min=0) for tokens in brute["paper"]])
    np.testing.assert_allclose(dense(tmp_path), expected, atol=1e-4)
    tops, rows = Tops.load(tmp_path), np.arange(WIDTH)[:, None]
    strongest = np.sort(expected.T)[:, ::-1][:, : SETTINGS.top_spans]
    np.testing.assert_allclose(tops.values, strongest, atol=1e-4)
    found = np.where(tops.texts < 0, 0, expected[tops.texts, rows])  # each value belongs to the text that is named
    np.testing.assert_allclose(tops.values, found, atol=1e-4)


def test_watch_follows_one_feature_per_chat(extractors, brute, tmp_path):
    features = random.Random(0).choices(range(WIDTH), k=len(CHATS))
    features[0] = int(brute["official"][0].max(axis=0).argmax())
    watched = extractors["official"].extract(CHATS, tmp_path, watch=features)
    np.testing.assert_array_equal(watched.values, dense(tmp_path)[range(len(CHATS)), features])
    assert watched.values[0] > 0
    for tokens, feature, g, token in zip(brute["official"], features, *watched, strict=True):
        if g > 0:
            assert tokens[token, feature] == pytest.approx(g, abs=1e-4)


@pytest.mark.parametrize("length", [1, 4, 32])
def test_a_span_ends_with_the_activating_token(extractors, tmp_path, length):
    extractor = extractors["paper"]
    tokenizer = extractor.backbone.tokenizer
    extractor.extract(CHATS, tmp_path)
    tops = Tops.load(tmp_path)
    for text, token in {(int(t), int(p)) for t, p in zip(tops.texts.flat, tops.tokens.flat, strict=True) if t >= 0}:
        ids, content = extractor.encode(CHATS[text])
        assert content[token]
        span = extractor.span(CHATS[text], token, length)
        among = [i for n, i in enumerate(ids) if content[n] and token - length < n <= token]
        assert span.text == tokenizer.decode(among).strip()
        if (word := tokenizer.decode([ids[token]]).strip()) and "�" not in word:
            assert span.text[span.start :] == word


@pytest.mark.parametrize("quirks", [{"shift": 7}, {"double_bos": True}, {"shift": 7, "double_bos": True}])
def test_the_released_code_s_content_and_bos(extractors, tmp_path, quirks):
    """From index n on every token counts, those of the template too; a second BOS moves everything by one."""
    plain = extractors["official"]
    official = Extractor(plain.backbone, plain.sae, replace(plain.settings, **quirks))
    official.extract(CHATS, tmp_path)
    values = dense(tmp_path)
    for row, chat in zip(values, CHATS, strict=True):
        if not chat:
            assert not row.any()
            continue
        ids, content = encode(plain.backbone.tokenizer, chat)
        if quirks.get("double_bos"):
            ids, content = [plain.backbone.tokenizer.bos_token_id, *ids], [False, *content]
        ids = ids[: SETTINGS.max_tokens]
        counted = list(range(7, len(ids))) if "shift" in quirks else [i for i in range(len(ids)) if content[i]]
        activations = plain.sae.encode(plain.backbone.residual([ids])[0]).numpy()
        expected = activations[counted].max(axis=0, initial=0)
        np.testing.assert_allclose(row, expected, atol=1e-4)
    plain.extract(CHATS, tmp_path)
    assert not np.allclose(values, dense(tmp_path), atol=1e-3)


def test_no_second_bos_where_a_template_writes_none(tmp_path):
    tokenizer = Backbone(ModelRef(str(tiny_model(tmp_path, "qwen2"))), 1).tokenizer
    chat = as_chat("learn to play the piano")
    assert encode_measured(tokenizer, chat, FeatureSettings(double_bos=True)) == encode(tokenizer, chat)


def test_a_span_may_end_before_the_activating_token(extractors):
    plain = extractors["paper"]
    official = Extractor(plain.backbone, plain.sae, replace(plain.settings, span_end="before"))
    chat = as_chat("play the piano near the river")
    ids, content = plain.encode(chat)
    decode = plain.backbone.tokenizer.decode
    first, last = content.index(True), len(content) - 1 - content[::-1].index(True)
    assert official.span(chat, last, 3) == (
        decode(ids[last - 3 : last]).strip(),
        len(decode(ids[last - 3 : last]).strip()),
    )
    assert plain.span(chat, last, 3).text == decode(ids[last - 2 : last + 1]).strip()
    assert official.span(chat, first, 3) == ("", 0)  # nothing of the text stands before its first token


def test_an_empty_corpus_and_one_of_empty_chats(extractors, tmp_path):
    for chats in ([], [[], []]):
        extractors["paper"].extract(chats, tmp_path)
        assert Pooled.load(tmp_path).n_texts == len(chats)
        assert not Pooled.load(tmp_path).maxima().any()
        assert (Tops.load(tmp_path).texts == -1).all()


def test_content_means_are_those_of_each_text_alone(extractors):
    backbone = extractors["paper"].backbone
    chats = [chat for chat in CHATS if chat]
    means = content_means(backbone, chats, replace(SETTINGS, batch_tokens=200))
    for chat, mean in zip(chats, means, strict=True):
        ids, content = encode(backbone.tokenizer, chat, max_tokens=SETTINGS.max_tokens)
        own = backbone.residual([ids])[0].numpy()[np.array(content)]
        np.testing.assert_allclose(mean, own.mean(axis=0) if any(content) else np.zeros(64), atol=1e-4)


@pytest.mark.parametrize(("settings", "more"), [({}, 0), ({"double_bos": True}, 1), ({"shift": 2}, 0)])
def test_lengths_and_cut_texts_are_counted(extractors, tmp_path, settings, more):
    """A text counts as cut if content of it is behind `max_tokens`, not if the template's closing tokens are."""
    plain = extractors["paper"]
    chat = as_chat("How do I bake bread at home without an oven?")
    ids, content = encode(plain.backbone.tokenizer, chat)
    last = max(i for i, inside in enumerate(content) if inside)
    assert last + 1 < len(ids)  # the turn is closed by a token of the template
    start = content.index(True) if "shift" not in settings else 2
    for most, cut in ((len(ids) + more, 0), (last + 1 + more, int("shift" in settings)), (last + more, 1)):
        folder = tmp_path / str(most)
        folder.mkdir()
        extractor = Extractor(plain.backbone, plain.sae, FeatureSettings(max_tokens=most, **settings))
        extractor.extract([chat, [], chat], folder)
        assert Pooled.load(folder).meta["cut"] == 2 * cut
        lengths = np.load(folder / "lengths.npy")
        end = min(most - more, len(ids) if "shift" in settings else last + 1)
        assert lengths.tolist() == [end - start, 0, end - start]


def test_what_is_said_of_cut_texts():
    assert cut_note("seed", 12, 1200, 512) == "12 of 1,200 seed texts were cut at 512 tokens (features.max_tokens)."
    assert cut_note("seed", 0, 12, 512) == ""


COPIES = ("cpu", "to", "item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__array__")


@pytest.mark.parametrize("rule", ["paper", "official"])
@pytest.mark.parametrize("watched", [False, True])
def test_nothing_is_copied_to_the_host_for_each_text(extractors, tmp_path, monkeypatch, rule, watched):
    """Eight times the texts in one batch take as many copies as before; more batches take more."""
    calls: list[str] = []

    def count(name):
        plain = getattr(torch.Tensor, name)

        def counted(*args, **kwargs):
            calls.append(name)
            return plain(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)

    for name in COPIES:
        count(name)
    counts = {}
    for texts, budget in ((25, 1 << 20), (200, 1 << 20), (200, 500)):
        settings = replace(extractors[rule].settings, batch_tokens=budget)
        chats = [as_chat(f"{n % 10} river dog") for n in range(texts)]
        calls.clear()
        extractor = Extractor(extractors[rule].backbone, extractors[rule].sae, settings)
        extractor.extract(chats, tmp_path, watch=[3] * texts if watched else None)
        counts[texts, budget] = len(calls)
    assert counts[25, 1 << 20] == counts[200, 1 << 20] < counts[200, 500]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Ten times the texts: peak memory stays within 10 %, though their dense activations would add far more."""
    model = tiny_model(tmp_path / "model", "llama")
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from sae_lens import TopKSAE, TopKSAEConfig
        from experiments.bench.clock import peak_mib
        from fac.backbone import Backbone, ModelRef
        from fac.chat import as_chat
        from fac.features.extract import Extractor
        from fac.features.settings import FeatureSettings
        from fac.features import batches
        from fac.sae.load import Sae

        batches.WINDOW_TOKENS = 2000
        torch.manual_seed(0)
        module = TopKSAE(TopKSAEConfig(d_in=64, d_sae=32768, k=8))
        torch.nn.init.normal_(module.W_enc)
        extractor = Extractor(Backbone(ModelRef(sys.argv[1]), 1), Sae(module, {}), FeatureSettings(batch_tokens=512))
        for count in (300, 3000):
            extractor.extract((as_chat(f"text {n}") for n in range(count)), Path(sys.argv[2]))
            print(round(1024 * peak_mib()))
    """)
    repo = Path(batches.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repo)}
    run = subprocess.run(
        [sys.executable, "-c", script, str(model), str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    small, large = map(int, run.stdout.split())  # KiB
    dense = 3000 * 32768 * 4 / 1024
    assert 0.1 * small < dense / 2  # holding half of the dense matrix would already be seen
    assert large < 1.1 * small
