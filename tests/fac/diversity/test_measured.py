"""fac.diversity.measured: the diversity of a corpus as a step, and metrics of one's own."""

import json
from pathlib import Path

import pytest
from support.encoders import sentences
from support.models import tiny_model

from fac.backbone import ModelRef
from fac.chat import as_chat
from fac.data.corpus import corpus_step
from fac.data.source import Source
from fac.diversity import diversity, metrics
from fac.diversity.measured import load_diversity, measured_diversity
from fac.encoder import FeatureEncoder
from fac.features.means import content_means
from fac.features.settings import FeatureSettings
from fac.sae.ref import SaeRef
from fac.store import Step, Store

OWN = '''
"""Metrics of one's own."""
from fac.diversity.metric import Metric

METRICS = (Metric("longest", "Longest text", "texts", compute=lambda texts: float(max(map(len, texts))), unit="chars"),)
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return ModelRef(str(tiny_model(tmp_path_factory.mktemp("models") / "model")))


def encoder(model: ModelRef, rule: str = "paper") -> FeatureEncoder:
    """No SAE is read for embeddings, so none is there: its layer is said."""
    made = FeatureEncoder(model, SaeRef(path="/nowhere"), 2, FeatureSettings(rule=rule, max_tokens=64))
    made.__dict__["layer"] = 2
    return made


def corpus(folder: Path, texts: list[str]) -> Step:
    file = folder / f"{len(texts)}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return corpus_step(Source(file))


def test_the_first_texts_of_a_corpus_are_measured(model: ModelRef, tmp_path: Path):
    texts, own = sentences(14, 3), encoder(model)
    step = measured_diversity(own, corpus(tmp_path, texts), 9)
    found = load_diversity(Store(tmp_path / "store").get(step))
    embeddings = content_means(own.backbone, [as_chat(text) for text in texts[:9]], own.settings)
    assert found == pytest.approx(diversity(texts[:9], embeddings))
    assert found.keys() == {name for name, metric in metrics.METRICS.items() if metric.needs != "anchored"}


def test_one_text_has_no_diversity(model: ModelRef, tmp_path: Path):
    step = measured_diversity(encoder(model), corpus(tmp_path, sentences(1)), 9)
    assert load_diversity(Store(tmp_path / "store").get(step)) == {}


def test_the_sae_s_rule_decides_no_embedding(model: ModelRef, tmp_path: Path):
    texts = corpus(tmp_path, sentences(3))
    keys = {rule: measured_diversity(encoder(model, rule), texts, 9).key for rule in ("paper", "official")}
    assert keys["paper"] == keys["official"]
    assert measured_diversity(encoder(model), texts, 8).key != keys["paper"]


def test_a_metric_of_one_s_own_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    found = metrics.collect()
    assert found["longest"].compute(["a", "abc"]) == 3
    assert found["longest"].heading == "Longest text (chars)"
    assert found["longest"].told == "Longest text (chars), of texts; more is more diverse"
    bleu = "Self-BLEU-4, of texts; less is more diverse; arXiv 1802.01886"
    assert found["self_bleu_4"].told == bleu
    assert set(found) == {*metrics.METRICS, "longest"}
    (tmp_path / "again.py").write_text(OWN)
    with pytest.raises(ValueError, match="two metrics are called longest"):
        metrics.collect()
