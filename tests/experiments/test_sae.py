"""experiments.sae end to end: an SAE trained by each recipe, or named, measured on what it was not trained on."""

import json
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from support.cli import Finished, fac_here
from support.encoders import sentences
from support.models import tiny_model

from experiments.harness import labels
from experiments.harness.config import read_config
from experiments.harness.results import Table
from experiments.sae import parts_of
from fac.backbone import Backbone, ModelRef
from fac.chat import as_chat
from fac.data.corpus import Corpus
from fac.data.hub import is_hub
from fac.sae.load import load
from fac.sae.quality import quality
from fac.sae.ref import SaeRef

PAPER = (
    *("sae=train_paper", "sae.train.width=64", "sae.train.k=4", "sae.train.k_start=12", "sae.train.anneal_steps=6"),
    *("sae.train.batch_size=20", "sae.train.lr=1e-2", "sae.train.epochs=3"),
)
TEXTS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sae")
    tiny_model(folder / "model")
    texts = [*sentences(TEXTS, 1), *sentences(5, 1)]  # five repeats
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def sae(folder: Path, *overrides: str) -> Finished:
    named = ("experiment=sae", "model=local", "model.path=model", "data.corpus.path=texts.jsonl")
    return fac_here(*named, "tracking.uri=sqlite:///mlflow.db", *overrides, cwd=folder)


@pytest.fixture(scope="module")
def paper(folder: Path) -> Finished:
    planned = sae(folder, *PAPER, "out=paper", "dry_run=true")
    done = sae(folder, *PAPER, "out=paper")
    assert done.code == 0, done.err
    assert "5 steps to do" in planned.out  # the texts, their two sides, the SAE and its quality
    assert done.err.count("built in") == 5
    return done


def table(folder: Path) -> Table:
    return Table.from_json((folder / "table.json").read_text())


def trained_by(folder: Path, settings: str) -> Path:
    """The folder of the SAE in the store that was trained with such settings."""
    stages = (folder / "outputs" / "store" / "sae").glob("*/stage.json")
    return next(file.parent for file in stages if json.loads(file.read_text())["params"].get("training") == settings)


def held_out(folder: Path, keep: str) -> list[str]:
    """The texts of one side of the corpus."""
    stages = list(folder.glob("outputs/store/mixture_split/*/stage.json"))
    found = [file.parent for file in stages if json.loads(file.read_text())["params"]["side"] == keep]
    return max(([e.text for e in Corpus.load(place)] for place in found), key=len)


def test_the_corpus_is_cut_without_repeats_in_nine_parts_and_one(paper: Finished, folder: Path):
    train, rest = held_out(folder, "train"), held_out(folder, "held_out")
    assert (len(train), len(rest)) == (108, 12)
    assert sorted(train + rest) == sorted(set(sentences(TEXTS, 1)))


def test_the_table_says_how_well_held_out_texts_are_reconstructed(paper: Finished, folder: Path):
    made = table(folder / "paper")
    assert made.rows == ("64_k4",)
    backbone = Backbone(ModelRef(str(folder / "model")), 2)
    encoder = load(SaeRef(str(trained_by(folder, "RecipeSettings"))), backbone)
    texts = [as_chat(text) for text in held_out(folder, "held_out")]
    expected = quality(encoder, backbone, texts, len(texts), max_tokens=256, tokens="all")
    cells = {column: made.cell("64_k4", column) for column in made.columns}
    assert {column: cell.mean for column, cell in cells.items() if cell} == pytest.approx(
        {
            "l0": expected.l0,
            "l2": expected.l2,
            "explained_variance": 100 * expected.explained_variance,
            "active": expected.active,
        },
        rel=1e-4,
    )
    assert cells["l2"] is not None
    assert cells["l2"].seeds == (42,)
    assert "All tokens of a text count" in (folder / "paper" / "table.md").read_text()
    page = (folder / "paper" / "report.html").read_text()
    for shown in ("Training: reconstruction L2", "Training: dead features", "120 texts", "12 texts"):
        assert shown in page, shown


def test_the_training_is_tracked_step_by_step(paper: Finished, folder: Path):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("sae")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'sae'")
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    curve = json.loads((trained_by(folder, "RecipeSettings") / "curve.json").read_text())
    assert len(curve) == 3 * 108 // 20
    for name in ("l2", "explained_variance", "l0", "k", "dead_features", "tokens_per_second"):
        points = client.get_metric_history(parent.info.run_id, f"sae/{name}")
        assert [point.step for point in points] == list(range(1, len(curve) + 1))
        assert [point.value for point in points] == pytest.approx([step[name] for step in curve])
    assert "l2/64_k4" in parent.data.metrics


def test_a_second_run_trains_nothing(paper: Finished, folder: Path):
    again = sae(folder, *PAPER, "out=again", "sae.train.batch_tokens=100")  # which decides nothing
    assert again.code == 0
    assert "built in" not in again.err
    first, second = (table(folder / out).to_json(with_provenance=False) for out in ("paper", "again"))
    assert json.loads(first)["cells"] == json.loads(second)["cells"]


def test_sae_lens_and_an_sae_that_exists(paper: Finished, folder: Path):
    lens = ("sae=train", "sae.train.width=64", "sae.train.k=4", "sae.train.steps=60")
    done = sae(folder, *lens, "out=lens")
    assert done.code == 0, done.err
    assert "Content tokens count" in (folder / "lens" / "table.md").read_text()
    path = trained_by(folder, "TrainSettings")
    named = sae(folder, f"sae.path={path}", "out=named")
    assert named.code == 0, named.err
    assert "sae_quality" in named.err  # another step, of the same numbers
    assert [c.mean for c in table(folder / "named").cells] == [c.mean for c in table(folder / "lens").cells]


def test_a_checkpoint_on_texts_of_one_s_own(folder: Path):
    """Of a size that Table 7 has: a basis of the residual stream, its negative, and features that never fire."""
    basis = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))[0]
    weight = {"W_enc": torch.zeros(64, 2**14), "b_enc": torch.full((2**14,), -9.0), "b_dec": torch.zeros(64)}
    weight["W_enc"][:, :128], weight["b_enc"][:128] = torch.cat([basis, -basis], dim=1), 0.0
    torch.save({"weight": weight, "config": {"d_inp": 64, "d_hide": 2**14, "topK": 20}}, folder / "sae_l2.pth")
    parts = "data.parts={own: {path: own.jsonl, on_error: skip}, drawn: {path: texts.jsonl, sample: 3}}"
    rows = [{"text": text} for text in [*sentences(7, 9), ""]]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = sae(folder, "sae.path=sae_l2.pth", "data.corpus.path=null", parts, "experiment.held_out=0.2", "out=pth")
    assert done.code == 0, done.err
    made = table(folder / "pth")
    l0, l2, active = (made.cell("16384_k20", column) for column in ("l0", "l2", "active"))
    assert l0 is not None
    assert l2 is not None
    assert active is not None
    assert (l0.mean, l0.paper) == (20, None)  # Table 7 has this size, but of other texts
    assert 0 < l2.mean < 0.5
    text = (folder / "pth" / "table.md").read_text()
    assert "own: 7 texts, 1 malformed rows skipped" in text
    assert "OWN DATA AND MODEL: model model on own own.jsonl, drawn texts.jsonl" in text
    assert 20 <= active.mean <= 128
    page = (folder / "pth" / "report.html").read_text()
    for shown in ("Texts of own", "Texts of drawn", "2 texts,"):
        assert shown in page, shown


def test_the_paper_s_corpus_is_its_six_data_sets():
    parts = parts_of(read_config(["experiment=sae", "scale=paper", "+corpus@data.parts=paper"]))
    assert len(parts) == 6
    assert parts["ultrachat"].sample == 400_000
    assert labels.is_papers_corpus({name: part.source for name, part in parts.items()})
    assert all(is_hub(part.source.paths[0]) for part in parts.values())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sae=train", "data.corpus.path=null"], "No texts are named: give a data set, data.corpus.path=FILE, or the"),
        (["sae=train", "experiment.held_out=1.0"], "experiment.held_out=1.0 will not do"),
        (["sae=train", "experiment.held_out=0.001"], "held_out=0.001 of 120 texts leaves one side empty"),
        (
            ["sae=train", "data.parts={a: {path: texts.jsonl, pth: x}}"],
            "data.parts.a.pth is no setting: did you mean path",
        ),
        ([*PAPER, "sae.train.epochs=1"], "108 texts make 5 steps"),
        ([*PAPER, "sae.train.k_start=2"], "sae.train: k=4 (at the end), k_start=2 and width=64 must not decrease"),
        ([*PAPER, "sae.train.recipe=papre"], "There is no sae.train.recipe=papre: did you mean paper"),
        ([*PAPER, "sae.train.eps=0"], "sae.train.eps=0 will not do: it must be above 0"),
        ([*PAPER, "sae.train.tokens=some"], "sae.train.tokens='some' will not do"),
        (["sae.path=missing.pth"], "There is no SAE checkpoint missing.pth: set sae.path to the file, or to hub:"),
        (["sae.path=null", "sae.release=r"], "sae.release=r holds several SAEs: name one of them with sae.id"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(folder: Path, overrides: list[str], said: str):
    assert said in sae(folder, "tracking.enabled=false", *overrides, "out=wrong").failure
