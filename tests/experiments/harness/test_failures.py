"""What a user can get wrong about data, models, SAEs and disks: one sentence and exit status 1, and nothing is lost."""

import json
import shutil
import subprocess
import sys

import pytest
from support.cli import Finished, environment, fac_here, run_fac
from support.encoders import LAYER, sentences, train_sae
from support.models import tiny_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with two small corpora, two models and their SAEs."""
    folder = tmp_path_factory.mktemp("bench")
    for name, texts in (("anchor", sentences(60, 1)), ("seed", sentences(20, 2))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for number, name in enumerate(("one", "two")):
        tiny_model(folder / name, "llama", seed=number)
        (folder / f"sae-{name}").mkdir()
        train_sae(folder / name, folder / f"sae-{name}")
    return folder


def coverage(bench, *overrides: str, model: str = "one", sae: str = "one") -> list[str]:
    return [
        "experiment=coverage",
        "model=local",
        f"model.path={bench / model}",
        f"sae.path={bench / f'sae-{sae}'}",
        f"data.anchor.path={bench / 'anchor.jsonl'}",
        f"data.seed.path={bench / 'seed.jsonl'}",
        "thresholds.default=0.1max",
        "tracking.enabled=false",
        *overrides,
    ]


def test_the_console_script_fails_without_a_traceback(tmp_path):
    done = run_fac("model=llma", cwd=tmp_path)
    assert done.failure == "fac: There is no model=llma: did you mean lab_llama."
    assert done.err.count("\n") == 1


def test_a_missing_file_names_its_neighbour(bench, tmp_path):
    wrong = f"data.anchor.path={bench / 'ancor.jsonl'}"
    assert "anchor.jsonl" in fac_here(*coverage(bench, wrong), cwd=tmp_path).failure
    odd = fac_here(*coverage(bench, "data.anchor.path=it's [1] ü,b.txt"), cwd=tmp_path)
    assert "data.anchor.path is the pattern it's [1] ü,b.txt, but no file fits it" in odd.failure


def test_a_sweep_keeps_the_results_of_every_job(bench, tmp_path):
    (tmp_path / "both ways [1].jsonl").write_text((bench / "anchor.jsonl").read_text())
    swept = f"data.seed.path={bench / 'seed.jsonl'},both ways [1].jsonl"
    done = fac_here("-m", *(a for a in coverage(bench) if "seed" not in a), swept, "out=swept", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "#1" not in done.err
    tables = [json.loads((tmp_path / "swept" / job / "table.json").read_text()) for job in "01"]
    seeds = [(tmp_path / "swept" / job / "config.yaml").read_text() for job in "01"]
    assert tables[0]["cells"] != tables[1]["cells"]
    wrong = fac_here("-m", *coverage(bench, "features.max_tokens=0,x"), cwd=tmp_path)
    assert wrong.failure.startswith("fac: job 0: features.max_tokens=0 will not do")
    assert ["both ways [1].jsonl" in text for text in seeds] == [False, True]


def test_a_broken_line_is_named_or_counted(bench, tmp_path):
    broken = tmp_path / "broken.jsonl"
    lines = (bench / "anchor.jsonl").read_text().splitlines()
    broken.write_text("\n".join([*lines[:4], '{"text": "cut', *lines[4:]]) + "\n")
    path = f"data.anchor.path={broken}"
    failure = fac_here(*coverage(bench, path), cwd=tmp_path).failure
    assert "line 5" in failure
    assert "data.anchor.on_error=skip" in failure
    done = fac_here(*coverage(bench, path, "data.anchor.on_error=skip", "out=out"), cwd=tmp_path)
    assert done.code == 0
    assert "anchor: 60 texts, 1 malformed rows skipped" in done.err
    assert "1 malformed rows skipped" in (tmp_path / "out" / "report.html").read_text()


def test_an_empty_data_set_is_said(bench, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert (
        "There is no text in"
        in fac_here(*coverage(bench, f"data.seed.path={tmp_path / 'empty.jsonl'}"), cwd=tmp_path).failure
    )


def test_an_sae_of_another_model_width_or_layer_is_refused(bench, tmp_path):
    assert "trained on the weights of another model" in fac_here(*coverage(bench, sae="two"), cwd=tmp_path).failure
    other_layer = fac_here(*coverage(bench, f"sae.layer={LAYER + 1}"), cwd=tmp_path).failure
    assert f"trained on layer {LAYER}, not on layer {LAYER + 1}" in other_layer
    shipped = fac_here(*coverage(bench, "sae.path=lab:llama/sae"), cwd=tmp_path).failure
    assert "reads 128 dimensions but" in shipped
    assert "sae=train" in shipped


def test_a_model_without_a_chat_template_can_be_read_plainly(bench, tmp_path):
    bare = shutil.copytree(bench / "one", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    path = f"model.path={bare}"
    assert "model.chat_template=plain" in fac_here(*coverage(bench, path), cwd=tmp_path).failure
    plain = ["model.chat_template=plain", "~sae.train", "sae=train", "++sae.train.steps=40", "++sae.train.width=64"]
    arguments = [a for a in coverage(bench, path, *plain) if not a.startswith(("sae.path", "~"))]
    assert fac_here(*arguments, cwd=tmp_path).code == 0


def test_a_threshold_that_nothing_passes_is_said(bench, tmp_path):
    high = ["thresholds.absolute=[1e9]", "thresholds.default=1e9"]
    assert (
        "passes the threshold 1000000000.0: lower thresholds.default"
        in fac_here(*coverage(bench, *high), cwd=tmp_path).failure
    )


def test_a_folder_that_cannot_be_written_is_said(bench, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "choose another folder with out=DIR" in fac_here(*coverage(bench, "out=file/x"), cwd=tmp_path).failure
    store = fac_here(*coverage(bench, "paths.store=file/x"), cwd=tmp_path).failure
    assert "choose another store" in store


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_loses_nothing(bench, tmp_path):
    arguments = coverage(bench, "features.top_spans=40")
    full = (
        "import resource, signal, sys\n"
        "import experiments.coverage, sae_lens\n"  # a library may write caches while it is imported
        "from experiments.harness.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "main()\n"
    )
    command = [sys.executable, "-c", full, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    failure = Finished(done.returncode, done.stdout, done.stderr).failure
    assert "ran out of space" in failure
    assert "continues where it stopped" in failure
    kept = {path.name for path in (tmp_path / "outputs" / "store" / "corpus").glob("[!.]*")}
    assert len(kept) == 2
    done = fac_here(*arguments, cwd=tmp_path)
    assert done.code == 0
    assert {path.name for path in (tmp_path / "outputs" / "store" / "corpus").glob("[!.]*")} == kept
    assert "corpus" not in [line.split()[3] for line in done.err.splitlines() if "built in" in line]
