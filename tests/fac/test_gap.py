"""fac.encoder, fac.gap and fac.synthesis.generate as steps: what is missing by either rule, what is written for, keys.

A tiny model and SAE measure; the LLM is an engine behind a wire that answers by rule.
"""

import json
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.encoders import sentences, train_sae
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.coverage import Threshold, threshold_grid
from fac.data.corpus import Corpus, write_examples
from fac.data.example_set import load_examples, save_examples
from fac.data.examples import Example
from fac.data.held_out import HeldOut
from fac.data.schemas import QUERY, Query
from fac.encoder import CorpusFeatures, FeatureEncoder
from fac.errors import FacError
from fac.features.settings import FeatureSettings
from fac.gap import (
    InterpretSettings,
    Mining,
    MissingFeatures,
    Thresholds,
    load_relevant,
    load_tokens,
    mine,
    relevant_by_labels,
)
from fac.interpret import ROLES, load_interpretations
from fac.llm.base import Completion
from fac.prompts import Prompts
from fac.relevance import associated
from fac.sae.ref import SaeRef
from fac.store import Step, Store
from fac.synthesis.generate import Generated, synthesis
from fac.synthesis.methods import METHODS
from fac.synthesis.samples import HELD_OUT
from fac.synthesis.settings import Settings

THRESHOLDS = Thresholds(absolute=(0.0,), relative=(0.5,), default="0.0")
WRITING = Settings(n=2, m=2, max_new_tokens=8)
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


class World(NamedTuple):
    root: Path
    prompts: Prompts
    store: Store
    corpora: dict[str, Step]


def write_corpus(texts: list[tuple[str, int]], folder: Path) -> None:
    write_examples((Example(as_chat(text), label, str(i)) for i, (text, label) in enumerate(texts, 1)), folder)


def corpus(name: str, texts: list[tuple[str, int]]) -> Step:
    return Step("texts", partial(write_corpus, texts), {"of": name})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
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
    corpora = {name: corpus(name, [(text, 1) for text in texts]) for name, texts in TEXTS.items()}
    return World(root, Prompts(prompts), Store(root / "store"), corpora)


def encoder_of(world: World, features: FeatureSettings) -> FeatureEncoder:
    return FeatureEncoder(ModelRef(str(world.root / "model")), SaeRef(str(world.root / "sae")), None, features)


def mined(world: World, how: InterpretSettings, features: FeatureSettings | None = None) -> Mining:
    encoder = encoder_of(world, features or FeatureSettings(max_tokens=48))
    annotators: Any = dict.fromkeys(ROLES, Rules())
    return mine(encoder, world.corpora["anchor"], world.corpora["seed"], annotators, world.prompts, how, THRESHOLDS)


def missing_of(world: World, mining: Mining) -> MissingFeatures:
    return MissingFeatures.load(world.store.get(mining.missing))


def features_of(world: World, step: Step) -> CorpusFeatures:
    return CorpusFeatures.load(world.store.get(step))


def test_missing_by_annotation_by_hand(tmp_path):
    """By activation a feature is missing where no seed text activates it; by annotation, where the seed's own spans did
    not make it relevant, which without spans above the threshold they cannot."""
    anchor, seed = np.array([[5, 5, 5, 0, 5]]), np.array([[3, 3, 0, 2, 3]])
    relevant, annotated = np.array([1, 1, 1, 1, 0], bool), np.array([1, 0, 1, 1, 0], bool)
    grid = threshold_grid([0.0], [], np.ones(5, np.float32))

    def missing(seed_relevant):
        found = MissingFeatures(grid, 0, anchor, seed, np.ones(5, np.float32), np.ones(5), relevant, seed_relevant)
        found.save(tmp_path)
        again = MissingFeatures.load(tmp_path)
        assert again.grid.thresholds == grid.thresholds
        assert again.active().tolist() == [True, True, True, False, False]
        assert again.missing().tolist() == found.missing().tolist()
        return found.missing().tolist()

    assert missing(None) == [False, False, True, False, False]
    assert missing(annotated) == [False, True, True, False, False]


def test_the_annotation_rule_reads_the_seed_s_own_spans(world):
    mining = mined(world, InterpretSettings(missing="annotation", verified=True))
    found = missing_of(world, mining)
    told = [step for step in mining.wanted.inputs if step.name == "interpret"]
    anchor, seed = (load_interpretations(world.store.get(step)) for step in told)
    sides = [features_of(world, step) for step in (mining.anchor_features, mining.seed_features)]
    for row, threshold in enumerate(found.grid.thresholds):
        expected = []
        for feature in range(found.relevant.size):
            highest = [float(side.pooled.maxima()[feature]) for side in sides]
            above = [g > float(threshold.cut(found.anchor_max)[feature]) for g in highest]
            needed = feature in anchor and anchor[feature].relevance == "Yes" and anchor[feature].verification == "Yes"
            known = feature in seed and seed[feature].relevance == "Yes" and above[1]  # verified or not
            expected.append(above[0] and needed and not known)
        assert found.missing(row).tolist() == expected
        assert any(expected)
    by_activation = missing_of(world, mined(world, InterpretSettings(verified=True)))
    assert by_activation.seed_relevant is None
    assert not (by_activation.missing() & ~found.missing()).any()  # what the seed lacks has no spans there either
    assert (found.missing() & ~by_activation.missing()).any()
    assert by_activation.grid.thresholds[0] == Threshold(0.0)


def save_queries(texts: list[str], folder: Path) -> None:
    save_examples(QUERY, [Query(text) for text in texts], folder)


def save_held_out(texts: list[str], folder: Path) -> None:
    HeldOut.of(texts).save(folder)


def synthesis_of(
    world: World,
    method: str,
    settings: Settings,
    model: Rules | None = None,
    budget: int = 20,
    held_out: Sequence[str] = (),
) -> Step:
    """What a method adds to one seed query, where nothing of `held_out` may be written."""
    mining = mined(world, InterpretSettings(missing="annotation"))
    seed, human = (Step("queries", partial(save_queries, [f"a {who} text"]), {"of": who}) for who in ("seed", "human"))
    draw = Step("draw", partial(save_held_out, list(held_out)), {"held": list(held_out)})
    writer: Any = model or Rules()
    return synthesis(METHODS[method], mining, writer, world.prompts, QUERY, settings, budget, seed, human, draw)


def outcome_of(world: World, *how: Any, **more: Any) -> tuple[list[str], Generated]:
    folder = world.store.get(synthesis_of(world, *how, **more))
    return [query.text for query in load_examples(QUERY, [folder])], Generated.load(QUERY, folder)


@pytest.mark.parametrize("method", ["fac", "fac_one_step", "random_features"])
@pytest.mark.parametrize("filtered", [True, False])
def test_no_text_of_the_test_is_kept_and_others_take_its_place(world, method: str, filtered: bool):
    """Spelt otherwise, too; the texts are the same, since nobody is told what stands in the test."""
    settings = Settings(n=2, m=2, max_new_tokens=8, filter=filtered)
    free, told = outcome_of(world, method, settings, budget=2)
    shown = [free[0].upper() + "  ", "a text that nobody writes"]
    held, there = outcome_of(world, method, settings, budget=2, held_out=shown)
    assert free[0] not in held
    assert len(held) == len(free) == 2
    assert {s.rejected_because for s in there.samples if s.example == Query(free[0])} == {HELD_OUT}
    assert there.counts.in_the_test == sum(s.example == Query(free[0]) for s in there.samples) > 0
    assert told.counts.in_the_test == 0
    assert there.first_round is not None
    assert told.first_round is not None
    assert there.first_round.name == told.first_round.name  # the same requests


def test_a_share_of_the_missing_features_is_written_for(world):
    found = missing_of(world, mined(world, InterpretSettings(missing="annotation")))
    whole = np.flatnonzero(found.missing()).tolist()

    def written_for(settings: Settings) -> list[int]:
        _, generated = outcome_of(world, "fac_one_step", settings)
        return sorted({s.feature for s in generated.samples if s.feature is not None})

    assert written_for(Settings(n=1, m=1, max_new_tokens=8)) == whole
    for ratio in (0.2, 0.5):
        part = written_for(Settings(n=1, m=1, max_new_tokens=8, ratio=ratio))
        assert len(part) == round(ratio * len(whole)) > 0
        assert set(part) < set(whole)
    assert len(written_for(Settings(n=1, m=1, max_new_tokens=8, ratio=1e-6))) == 1
    half = [written_for(Settings(n=1, m=1, max_new_tokens=8, ratio=0.5, seed=seed)) for seed in (42, 1)]
    assert half[0] != half[1]


def test_the_activating_token_of_every_span_is_kept_for_those_who_show_it(world):
    mining = mined(world, InterpretSettings(spans=2))
    folder = world.store.get(mining.interpretations)
    told, tokens, measured = (
        load_interpretations(folder),
        load_tokens(folder),
        features_of(world, mining.anchor_features),
    )
    assert tokens.keys() == told.keys()
    texts = Corpus.load(world.store.get(mining.anchor))
    for feature, about in told.items():
        exact = mining.encoder.spans(texts, measured.tops, [feature], 2, 32)[feature]
        ends = [text[len(text) - n :] for text, n in zip(about.spans, tokens[feature], strict=True)]
        assert ends == [" ".join(span.text[span.start :].split()) for span in exact]
    assert load_tokens(folder.parent) == {}  # of a step that kept none


def test_the_writer_may_be_told_the_judge_s_analysis(world):
    told = {}
    mining = mined(world, InterpretSettings(missing="annotation"))
    interpretations = load_interpretations(world.store.get(mining.interpretations))
    missing = np.flatnonzero(missing_of(world, mining).missing()).tolist()
    for summary in ("explanation", "analysis"):
        model = Rules()
        outcome_of(world, "fac_one_step", Settings(n=1, m=1, max_new_tokens=9, summary=summary), model)
        told[summary] = {prompt.partition("|")[2] for prompt in model.asked}
    assert told["explanation"] == {interpretations[feature].explanation for feature in missing}
    assert told["analysis"] == {f"Concerns {text}." for text in told["explanation"]}


def test_without_the_filter_all_that_can_be_read_is_trained_on(world):
    unfiltered = Settings(n=2, m=2, max_new_tokens=8, filter=False)
    kept, with_filter = outcome_of(world, "fac", WRITING, budget=10**6)
    everything, without = outcome_of(world, "fac", unfiltered, budget=10**6)
    assert without.first_round is not None
    assert with_filter.first_round is not None
    assert without.first_round.name == with_filter.first_round.name  # the same texts, chosen otherwise
    texts = {s.text for s in without.samples if s.example}
    assert sorted(everything) == sorted(texts)  # each once
    assert set(kept) < texts
    assert any(s.kept and s.activation == 0 for s in without.samples)
    strengths = [s.relative_activation or 0.0 for s in without.chosen]
    assert strengths != sorted(strengths, reverse=True)  # not ranked


def test_what_people_wrote_needs_no_writer_and_no_features(world):
    """The key of a method that writes nothing holds neither the writer nor what is missing."""
    step = synthesis_of(world, "full", WRITING)
    assert [part.name for part in step.inputs] == ["queries", "queries"]
    assert step.key == synthesis_of(world, "full", Settings(n=5, temperature=0.1)).key
    assert outcome_of(world, "full", WRITING)[0] == ["a human text"]


def test_an_encoder_that_is_released_holds_no_model_and_measures_the_same(world):
    encoder = encoder_of(world, FeatureSettings())
    before, held = encoder.backbone.residual([[1, 2, 3]]), weakref.ref(encoder.backbone)
    sae = world.store.get(encoder.sae_step)
    assert encoder.extractor(sae) is encoder.extractor(sae)
    encoder.release()
    assert held() is None
    np.testing.assert_array_equal(encoder.backbone.residual([[1, 2, 3]]), before)


def test_a_step_s_key_holds_what_decides_it_and_no_more(world):
    plain = encoder_of(world, FeatureSettings()).identity()
    assert set(plain) == {"model", "layer", "rule", "max_tokens", "shift", "double_bos"}
    on = encoder_of(world, FeatureSettings(shift=31, double_bos=True, span_end="before")).identity()
    assert on == {**plain, "shift": 31, "double_bos": True}  # where a span ends is no matter of activations
    default = mined(world, InterpretSettings())
    before = mined(world, InterpretSettings(), FeatureSettings(max_tokens=48, span_end="before"))
    assert before.anchor_features.key == default.anchor_features.key
    assert before.interpretations.key != default.interpretations.key
    annotated = mined(world, InterpretSettings(missing="annotation"))
    assert annotated.interpretations.key == default.interpretations.key
    assert annotated.missing.key != default.missing.key


def test_an_sae_that_lies_somewhere_is_used_there(world):
    step = encoder_of(world, FeatureSettings()).sae_step
    told = json.loads((world.store.get(step) / "reference.json").read_text())
    assert told == {"path": str(world.root / "sae"), "release": None, "sae_id": None}


def test_the_statistical_judge_holds_length_fixed(world):
    """The labelled sample's lengths reach the test: the features are those of that test, not of a blind one."""
    encoder = encoder_of(world, FeatureSettings(max_tokens=48))
    short, long = sentences(300, seed=8, longest=6), sentences(300, seed=9, longest=30)
    chosen = [(t, 0) for t in short[:220] + long[:30]] + [
        (f"threaten {t} spy", 1) for t in short[220:260] + long[30:150]
    ]
    labelled = corpus("labelled", chosen)
    how = InterpretSettings(judge="statistical", spans=2, fdr=0.05)
    annotators: Any = {str(role): Rules() for role in ROLES}
    mining = mine(
        encoder, world.corpora["anchor"], world.corpora["seed"], annotators, world.prompts, how, THRESHOLDS, labelled
    )
    found = missing_of(world, mining).relevant
    measured = features_of(world, encoder.features(labelled))
    labels = np.array([label for _, label in chosen], bool)
    extractor = encoder.extractor(world.store.get(encoder.sae_step))
    assert measured.lengths.tolist() == [sum(extractor.encode(as_chat(t)).content) for t, _ in chosen]
    np.testing.assert_array_equal(found, associated(measured.pooled, labels, measured.lengths, fdr=0.05).relevant)
    np.testing.assert_array_equal(found, load_relevant(world.store.get(relevant_by_labels(encoder, labelled, 0.05))))
    blind = associated(measured.pooled, labels, np.ones(len(chosen), int), fdr=0.05).relevant
    assert 0 < found.sum() < 0.7 * blind.sum()

    frugal = mine(
        encoder, world.corpora["anchor"], world.corpora["seed"], annotators, world.prompts,
        replace(how, explained="missing"), THRESHOLDS, labelled,
    )  # fmt: skip
    wanted = MissingFeatures.load(world.store.get(frugal.wanted))
    np.testing.assert_array_equal(wanted.missing(), MissingFeatures.load(world.store.get(mining.wanted)).missing())
    np.testing.assert_array_equal(missing_of(world, frugal).relevant, found)
    told = load_interpretations(world.store.get(frugal.interpretations))
    assert sorted(told) == np.flatnonzero(wanted.missing()).tolist() != sorted(load_interpretations(
        world.store.get(mining.interpretations)
    ))  # fmt: skip
    assert {one.explanation for one in told.values()} != {""}


def test_only_the_statistical_judge_knows_what_is_missing_before_anything_is_explained():
    with pytest.raises(FacError, match="explained=missing goes with interpret.judge=statistical"):
        InterpretSettings(explained="missing")


def test_cut_texts_are_counted_in_what_was_measured(world):
    whole, cut = (
        features_of(world, encoder_of(world, FeatureSettings(max_tokens=n)).features(world.corpora["seed"]))
        for n in (200, 6)
    )
    assert whole.note("seed") == ""
    count = int(cut.pooled.meta["cut"])
    assert count > 0
    assert cut.note("seed") == f"{count} of 12 seed texts were cut at 6 tokens (features.max_tokens)."
