"""fac.pipeline's choices of its own: what is missing by either rule, what is written for, what a store key says.

A tiny model and SAE measure; the LLM is an engine behind a wire that answers by rule.
"""

import weakref
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from support.encoders import sentences, train_sae
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.coverage import Threshold, threshold_grid
from fac.data.examples import Example
from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Query
from fac.features import FeatureSettings
from fac.interpret import ROLES, Interpretation, load_interpretations
from fac.llm.base import Completion
from fac.pipeline import Gap, Mined, ReadSettings, Thresholds, Workshop, computed_corpus, measure, mine, synthesis_of
from fac.pooled import Pooled
from fac.prompts import Prompts
from fac.relevance import associated
from fac.sae import SaeRef
from fac.store import Artifact, Store
from fac.synthesis.method import Outcome
from fac.synthesis.methods import METHODS
from fac.synthesis.samples import HELD_OUT
from fac.synthesis.settings import Settings

THRESHOLDS = Thresholds(absolute=(0.0,), relative=(0.5,), default="0.0")
WRITING = Settings(n=2, m=2, max_new_tokens=8)
NOTHING = HeldOut()
TEXTS = {"anchor": sentences(60, seed=5), "seed": sentences(12, seed=6)}


class Rules:
    """An engine that explains by the strongest span, judges by the explanation, and writes by the request's seed."""

    identity = "rules"
    batch = 64

    def __init__(self) -> None:
        self.asked: list[str] = []

    def chat(self, requests, sampling):
        replies = []
        for request in requests:
            role, _, text = request.messages[0]["content"].partition("|")
            self.asked.append(request.messages[0]["content"])
            weight = zlib.crc32(text.encode())
            replies.append(
                {
                    "explain": f"like {text}",
                    "verify": "[[Yes]]" if weight % 4 else "[[No]]",
                    "judge": f"Concerns {text}. Final Decision: [[{'Yes' if weight % 2 else 'No'}]]",
                }.get(role, TEXTS["anchor"][request.seed % 60])
            )
        return [Completion(reply, 1, 1, True) for reply in replies]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Prompts, Store, dict[str, Artifact]]:
    root = tmp_path_factory.mktemp("world")
    train_sae(tiny_model(root / "model", "llama"), root / "sae")
    prompts = root / "prompts" / "task"
    prompts.mkdir(parents=True)
    for role, asks in {
        "explain": "{{ spans[0] }}",
        "verify": "{{ summary }}",
        "judge": "{{ summary }}",
        "write": "{{ summary }}",
        "contrast": "{{ summary }}",
    }.items():
        (prompts / f"{role}.jinja").write_text(f"{role}|{asks}")
    store = Store(root / "store")
    corpora = {
        name: computed_corpus(
            store,
            "texts",
            lambda texts=texts: (Example(as_chat(t), 1, str(i)) for i, t in enumerate(texts, 1)),
            {"of": name},
        )
        for name, texts in TEXTS.items()
    }
    return root, Prompts(prompts), store, corpora


def shop_of(world, features: FeatureSettings) -> Workshop:
    root, _, store, _ = world
    return Workshop(store, ModelRef(str(root / "model")), SaeRef(str(root / "sae")), None, features)


def mined(world, read: ReadSettings, features: FeatureSettings | None = None) -> Mined:
    _, prompts, _, corpora = world
    shop = shop_of(world, features or FeatureSettings(max_tokens=48))
    return mine(shop, corpora["anchor"], corpora["seed"], dict.fromkeys(ROLES, Rules()), prompts, read, THRESHOLDS)


def interpretations_of(found: Mined, features: Artifact) -> dict[int, Interpretation]:
    """What the LLM read in one corpus, from the store."""
    key = f'"key": "{features.key}"'
    (folder,) = (r.parent for r in (found.source.path.parent).glob("*/stage.json") if key in r.read_text())
    return load_interpretations(folder)


def test_missing_by_annotation_by_hand():
    """By activation a feature is missing where no seed text activates it; by annotation, where the seed's own spans did
    not make it relevant, which without spans above the threshold they cannot."""
    anchor, seed = np.array([[5, 5, 5, 0, 5]]), np.array([[3, 3, 0, 2, 3]])
    relevant, annotated = np.array([1, 1, 1, 1, 0], bool), np.array([1, 0, 1, 1, 0], bool)
    grid = threshold_grid([0.0], [], np.ones(5, np.float32))

    def missing(seed_relevant):
        nothing = cast(Any, None)
        gap = Gap(
            nothing, nothing, grid, anchor, seed, np.ones(5, np.float32), np.ones(5), relevant, 0, {}, seed_relevant
        )
        return gap.missing().tolist()

    assert missing(None) == [False, False, True, False, False]
    assert missing(annotated) == [False, True, True, False, False]


def test_the_annotation_rule_reads_the_seed_s_own_spans(world):
    found = mined(world, ReadSettings(missing="annotation", verified=True))
    gap = found.gap
    anchor, seed = (interpretations_of(found, side.artifact) for side in (gap.anchor, gap.seed))
    assert gap.interpretations == anchor
    for row, threshold in enumerate(gap.grid.thresholds):
        expected = []
        for feature in range(gap.relevant.size):
            highest = [float(side.pooled.maxima()[feature]) for side in (gap.anchor, gap.seed)]
            above = [g > float(threshold.cut(gap.anchor_max)[feature]) for g in highest]
            needed = feature in anchor and anchor[feature].relevance == "Yes" and anchor[feature].verification == "Yes"
            known = feature in seed and seed[feature].relevance == "Yes" and above[1]  # verified or not
            expected.append(above[0] and needed and not known)
        assert gap.missing(row).tolist() == expected
        assert any(expected)
    by_activation = mined(world, ReadSettings(verified=True)).gap
    assert by_activation.seed_relevant is None
    assert not (by_activation.missing() & ~gap.missing()).any()  # what the seed lacks has no spans there either
    assert (gap.missing() & ~by_activation.missing()).any()
    assert by_activation.grid.thresholds[0] == Threshold(0.0)


def synthesis(world, settings: Settings, model: Rules, budget: int = 20, held_out: HeldOut = NOTHING):
    """What methods are given, what they write with, and the gap that it is of."""
    found = mined(world, ReadSettings(missing="annotation"))
    seed, human = [Query("a seed text")], [Query("a human text")]
    return *synthesis_of(found, model, world[1], QUERY, settings, seed, human, budget, held_out), found


def outcome_of(method: str, *how: Any, **more: Any) -> Outcome:
    given, writer, _ = synthesis(*how, **more)
    return METHODS[method].run(given, writer)


@pytest.mark.parametrize("method", ["fac", "fac_one_step", "random_features"])
@pytest.mark.parametrize("filtered", [True, False])
def test_no_text_of_the_test_is_kept_and_others_take_its_place(world, method: str, filtered: bool):
    """Spelt otherwise, too; the texts are the same, since nobody is told what stands in the test."""
    settings = Settings(n=2, m=2, max_new_tokens=8, filter=filtered)
    free = outcome_of(method, world, settings, Rules(), budget=2)
    first = free.examples[0]
    shown = [first.text.upper() + "  ", "a text that nobody writes"]
    held = outcome_of(method, world, settings, Rules(), budget=2, held_out=HeldOut.of(shown))
    assert first not in held.examples
    assert len(held.examples) == len(free.examples) == 2
    assert {s.rejected_because for s in held.samples if s.example == first} == {HELD_OUT}
    assert held.counts.in_the_test == sum(s.example == first for s in held.samples) > 0
    assert free.counts.in_the_test == 0
    assert held.written is not None
    assert free.written is not None
    assert held.written.artifact == free.written.artifact


def test_a_share_of_the_missing_features_is_written_for(world):
    whole, _, found = synthesis(world, WRITING, Rules())
    assert whole.missing == np.flatnonzero(found.gap.missing()).tolist()
    for ratio in (0.2, 0.5):
        part, _, _ = synthesis(world, Settings(n=2, m=2, max_new_tokens=8, ratio=ratio), Rules())
        assert len(part.missing) == round(ratio * len(whole.missing)) > 0
        assert set(part.missing) < set(whole.missing)
        assert list(part.missing) == sorted(part.missing)
    least, _, _ = synthesis(world, Settings(ratio=1e-6), Rules())
    assert len(least.missing) == 1
    other, _, _ = synthesis(world, Settings(ratio=0.5, seed=1), Rules())
    assert other.missing != synthesis(world, Settings(ratio=0.5), Rules())[0].missing


def test_the_writer_may_be_told_the_judge_s_analysis(world):
    told = {}
    for summary in ("explanation", "analysis"):
        model = Rules()
        given, writer, found = synthesis(world, Settings(n=1, m=1, max_new_tokens=9, summary=summary), model)
        METHODS["fac_one_step"].run(given, writer)
        explained = {found.gap.interpretations[f].explanation for f in given.missing}
        told[summary] = {prompt.partition("|")[2] for prompt in model.asked}
        if summary == "explanation":
            assert told[summary] == explained
    assert told["analysis"] == {f"Concerns {text}." for text in told["explanation"]}


def test_without_the_filter_all_that_can_be_read_is_trained_on(world):
    unfiltered = Settings(n=2, m=2, max_new_tokens=8, filter=False)
    with_filter, without = (
        outcome_of("fac", world, settings, Rules(), budget=10**6) for settings in (WRITING, unfiltered)
    )
    assert without.written is not None
    assert with_filter.written is not None
    assert without.written.artifact == with_filter.written.artifact  # the same texts, chosen otherwise
    texts = {s.text for s in without.samples if s.example}
    assert sorted(query.text for query in without.examples) == sorted(texts)  # each once
    assert {query.text for query in with_filter.examples} < texts
    assert any(s.kept and s.activation == 0 for s in without.samples)
    strengths = [s.relative_activation or 0.0 for s in without.chosen]
    assert strengths != sorted(strengths, reverse=True)  # not ranked
    assert outcome_of("fac", world, unfiltered, Rules(), budget=10**6).examples == without.examples


def test_a_shop_that_is_released_holds_no_model_and_measures_the_same(world):
    shop = shop_of(world, FeatureSettings())
    before, held = shop.backbone.residual([[1, 2, 3]]), weakref.ref(shop.backbone)
    assert shop.extractor is shop.extractor
    shop.release()
    assert held() is None
    np.testing.assert_array_equal(shop.backbone.residual([[1, 2, 3]]), before)


def test_a_step_s_key_holds_what_decides_it_and_no_more(world):
    plain = shop_of(world, FeatureSettings()).encoder
    assert set(plain) == {"model", "sae", "layer", "rule", "max_tokens", "shift", "double_bos"}
    on = shop_of(world, FeatureSettings(shift=31, double_bos=True, span_end="before")).encoder
    assert on == {**plain, "shift": 31, "double_bos": True}  # where a span ends is no matter of activations
    default = mined(world, ReadSettings())
    before = mined(world, ReadSettings(), FeatureSettings(max_tokens=48, span_end="before"))
    assert before.gap.anchor.artifact == default.gap.anchor.artifact
    assert before.source != default.source
    assert mined(world, ReadSettings(missing="annotation")).source == default.source
    assert isinstance(default.gap.anchor.pooled, Pooled)


def test_the_statistical_judge_holds_length_fixed(world):
    """The labelled sample's lengths reach the test: the features are those of that test, not of a blind one."""
    _, prompts, store, corpora = world
    shop = shop_of(world, FeatureSettings(max_tokens=48))
    short, long = sentences(300, seed=8, longest=6), sentences(300, seed=9, longest=30)
    chosen = [(t, 0) for t in short[:220] + long[:30]] + [
        (f"threaten {t} spy", 1) for t in short[220:260] + long[30:150]
    ]
    labelled = computed_corpus(
        store, "texts", lambda: (Example(as_chat(t), label, str(i)) for i, (t, label) in enumerate(chosen)), {"of": "l"}
    )
    read = ReadSettings(judge="statistical", spans=2, fdr=0.05)
    annotators = {str(role): Rules() for role in ROLES}
    found = mine(shop, corpora["anchor"], corpora["seed"], annotators, prompts, read, THRESHOLDS, labelled).gap.relevant
    measured = measure(shop, labelled)
    labels = np.array([label for _, label in chosen], bool)
    assert measured.lengths.tolist() == [sum(shop.extractor.encode(as_chat(t)).content) for t, _ in chosen]
    np.testing.assert_array_equal(found, associated(measured.pooled, labels, measured.lengths, fdr=0.05).relevant)
    blind = associated(measured.pooled, labels, np.ones(len(chosen), int), fdr=0.05).relevant
    assert 0 < found.sum() < 0.7 * blind.sum()


def test_cut_texts_are_counted_in_what_was_measured(world):
    _, _, _, corpora = world
    whole, cut = (measure(shop_of(world, FeatureSettings(max_tokens=n)), corpora["seed"]) for n in (200, 6))
    assert (whole.cut, whole.note("seed")) == (0, "")
    assert cut.cut > 0
    assert cut.note("seed") == f"{cut.cut} of 12 seed texts were cut at 6 tokens (features.max_tokens)."
