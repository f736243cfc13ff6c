"""fac.data.mixture against a plain reading of the same files: who is kept, who is drawn, who is held out."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fac.data.corpus import Corpus
from fac.data.examples import read_examples
from fac.data.mixture import Mixture, Part, load_reports, mix
from fac.data.source import Source
from fac.errors import FacError
from fac.store import Step, Store

WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=14)


def part(folder: Path, name: str, texts: list[str], sample: int | None = None, **options) -> Part:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Part(Source(file, name=name, **options), sample)


def texts(store: Store, corpus: Step) -> list[str]:
    return [example.text for example in Corpus.load(store.get(corpus))]


def all_texts(store: Store, mixed: Mixture) -> list[str]:
    return texts(store, mixed.train) + texts(store, mixed.held_out)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(first=WORDS, second=WORDS, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_every_text_stands_once_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], second: list[str], share: float, seed: int
):
    folder = tmp_path_factory.mktemp("mix")
    parts = {name: part(folder, name, held) for name, held in (("one", first), ("two", second)) if held}
    store = Store(folder / "store")
    different = list(dict.fromkeys(first + second))
    if not 0 < round(len(different) * share) < len(different):
        with pytest.raises(FacError):
            store.get(mix(parts, held_out=share, seed=seed).train)
        return
    mixed = mix(parts, held_out=share, seed=seed)
    assert sorted(all_texts(store, mixed)) == sorted(different)
    assert len(texts(store, mixed.held_out)) == round(len(different) * share)
    reports = load_reports(store.get(mixed.whole))
    counts = {name: (report.rows, report.duplicates) for name, report in reports.items()}
    if first:
        assert counts["one"] == (len(set(first)), len(first) - len(set(first)))
    if second:
        new = set(second) - set(first)
        assert counts["two"] == (len(new), len(second) - len(new))


def test_ids_say_where_a_text_came_from_first(tmp_path: Path):
    parts = {"one": part(tmp_path, "one", ["a", "b"]), "two": part(tmp_path, "two", ["c", "b", "d"])}
    mixed, store = mix(parts, held_out=0.3), Store(tmp_path / "store")
    found = {e.text: e.id for side in (mixed.train, mixed.held_out) for e in Corpus.load(store.get(side))}
    assert found == {"a": "one/1", "b": "one/2", "c": "two/1", "d": "two/3"}


def test_a_sample_is_drawn_from_different_texts_alike(tmp_path: Path):
    """Over many seeds every text is drawn about as often as any other, however often it stands in the source."""
    held = ["rare"] + [f"text {i}" for i in range(9)] + ["often"] * 40
    drawn: Counter[str] = Counter()
    store = Store(tmp_path / "store")
    for seed in range(300):
        parts = {"all": part(tmp_path, "all", held, sample=4)}
        mixed = mix(parts, held_out=0.25, seed=seed)
        found = all_texts(store, mixed)
        assert len(found) == len(set(found)) == 4
        assert load_reports(store.get(mixed.whole))["all"].rows == 4
        drawn.update(found)
    assert set(drawn) == set(held)
    assert all(70 < count < 150 for count in drawn.values())  # 109 expected, standard deviation 8


def test_the_same_seed_is_the_same_mixture_and_another_is_another(tmp_path: Path):
    parts = {"all": part(tmp_path, "all", [f"text {i}" for i in range(60)], sample=30)}
    first, again, other = (mix(parts, seed=seed) for seed in (1, 1, 2))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    assert first.train.key == again.train.key != other.train.key
    assert texts(one, first.train) == texts(two, again.train)
    assert set(all_texts(one, first)) != set(all_texts(one, other))
    assert texts(one, first.train) != sorted(texts(one, first.train))


def test_what_cannot_be_mixed_is_said(tmp_path: Path):
    store = Store(tmp_path / "store")
    with pytest.raises(FacError, match=r"sample.few=5 will not do: .*few.jsonl has 2 different texts"):
        store.get(mix({"few": part(tmp_path, "few", ["a", "b", "a"], sample=5)}).train)
    with pytest.raises(FacError, match="sample.few=0 will not do"):
        mix({"few": part(tmp_path, "few", ["a"], sample=0)})
    with pytest.raises(FacError, match=r"held_out=0.1 of 2 texts leaves one side empty"):
        store.get(mix({"few": part(tmp_path, "few", ["a", "b"])}).held_out)
    with pytest.raises(FacError, match="line 1: .*no column 'question'"):
        store.get(mix({"few": part(tmp_path, "few", ["a", "b"], text="question")}).train)


def test_real_data_sets(real_data, tmp_path: Path):
    """Sets of four layouts, among them two halves of ToxicChat, which share texts."""
    chat = real_data("toxicchat")
    sources = {
        "alpaca": Source(real_data("alpaca") / "alpaca_5000.json"),
        "lima": Source(real_data("lima") / "lima.json"),
        "hh_rlhf": Source(real_data("hh_rlhf") / "harmless-base_test.jsonl.gz", text="chosen", on_error="skip"),
        "toxic_train": Source(chat / "toxic_chat_train.json", text="instance"),
        "toxic_test": Source(chat / "toxic_chat_test.json", text="instance"),
    }
    parts = {name: Part(source, 400 if name == "alpaca" else None) for name, source in sources.items()}
    mixed, store = mix(parts), Store(tmp_path)
    plain = {name: {e.text for e in read_examples(source)} for name, source in sources.items()}
    found = all_texts(store, mixed)
    others = set().union(*(plain[name] for name in list(plain)[1:]))
    assert len(found) == len(set(found))
    assert others <= set(found)
    assert len(set(found) & plain["alpaca"]) >= 400
    assert len(texts(store, mixed.held_out)) == round(0.1 * len(found))
    assert load_reports(store.get(mixed.whole))["toxic_test"].duplicates > 40
