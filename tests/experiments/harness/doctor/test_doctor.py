"""`fac doctor`: a line for everything a configuration needs, the way out where it is missing, and no secret in it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support.cli import Finished, fac_here, run_fac
from support.declared import MEASURING, TABLE10, declare
from support.hub_server import hub

from experiments.harness.doctor.base import Finding, checked
from fac.lab import shipped

SECRET = "sk-planted-0123456789"
PAPER = ["experiment=main_results", "scale=paper"]
STATUSES = ("ok", "warning", "missing")


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch):
    """No key in the environment, whoever runs the tests."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def _written_yesterday(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Two experiments that the doctor has never heard of."""
    folder = tmp_path_factory.mktemp("own")
    declare(folder, monkeypatch, two_steps_of_one=TABLE10, measuring=MEASURING)


def doctor(folder: Path, *arguments: str, code: int) -> dict[str, tuple[str, str]]:
    """(status, text) of every line by what it is about."""
    finished = fac_here("doctor", *arguments, cwd=folder)
    assert finished.code == code, finished.err + finished.out
    assert list(folder.iterdir()) == [], "a doctor writes nothing"
    return lines(finished)


def lines(finished: Finished) -> dict[str, tuple[str, str]]:
    assert finished.err == ""
    *rows, empty, summary = finished.out.splitlines()
    found = {}
    for row in rows:
        status, what, said = re.fullmatch(r"(\w+)\s+(\S.*?)\s{2,}(\S.*)", row).groups()  # type: ignore[union-attr]
        assert status in STATUSES
        found[what] = (status, said)
    assert empty == ""
    count = [sum(status == one for status, _ in found.values()) for one in STATUSES]
    assert summary.startswith("{} ok, {} warnings, {} missing: ".format(*count))
    return found


def test_the_lab_lacks_nothing(tmp_path: Path):
    found = doctor(tmp_path, code=0)
    for what in ("python", "packages", "model llama", "SAE for llama", "engine of writer, explain, judge"):
        assert found[what][0] == "ok", what
    for what in ("prompts", "data", "disk store", "disk outputs", "GPU memory", "time train", "assumed"):
        assert found[what][0] == "ok", what
    assert "layer 2, width 2048, K 8" in found["SAE for llama"][1]
    assert not any(status == "missing" for status, _ in found.values())


def test_a_model_that_the_run_makes_is_priced_and_not_missed(tmp_path: Path):
    once = doctor(tmp_path, "experiment=figure15", "experiment.worlds=[0]", code=0)
    assert once["model llama after round 1"] == ("ok", "the run makes it of llama")
    assert "llama after round 1" in once["engine of writer, explain, judge"][1]
    assert "steps without an estimate" not in once
    assert (
        requests(once["time write"][1]) == 2 * requests(doctor(tmp_path, "experiment=lab", code=0)["time write"][1]) / 3
    )


def requests(told: str) -> int:
    return int(re.search(r"\(([\d,]+) requests\)", told)[1].replace(",", ""))  # type: ignore[index]


def test_the_list_for_the_paper_s_scale_is_complete(tmp_path: Path):
    found = doctor(tmp_path, *PAPER, code=1)
    for what in ("model meta-llama/Llama-3.1-8B-Instruct", "model meta-llama/Meta-Llama-3-8B"):
        assert found[what][0] == "missing"
        assert "hf download meta-llama/" in found[what][1]
    assert "--revision 0e9e39f249a16976918f6564b8830bc894c89659" in found["model meta-llama/Llama-3.1-8B-Instruct"][1]
    assert found["SAE for meta-llama/Llama-3.1-8B-Instruct"][0] == "missing"
    assert found["key OPENAI_API_KEY"] == ("missing", "not in the environment: export OPENAI_API_KEY=...")
    for what in ("Anthropic/hh-rlhf", "nvidia/HelpSteer2", "lmsys/toxic-chat", "allenai/reward-bench"):
        assert found[f"data {what}"][0] == "missing"
    caa = found["data CAA/datasets/generate/survival-instinct/generate_dataset.json"]
    assert caa[0] == "missing"
    assert "git clone https://github.com/nrimsky/CAA" in caa[1]
    assert all(f"tasks.survival.data.{role}" in caa[1] for role in ("anchor", "seed", "human"))
    assert found["GPU memory"][0] in ("ok", "missing")
    assert "training in 1 process" in found["GPU memory"][1] or "GPU" in found["GPU memory"][1]
    for what in ("disk store", "time measure", "time write", "time train", "cost interpret: explain", "cost in all"):
        assert what in found
    beside = {"benchmark gsm8k": "datasets.load_dataset('openai/gsm8k', 'main')"}
    for what, way in beside.items():  # of the test of instruction following
        assert found[what][0] == "missing"
        assert way in found[what][1]
    assert found["cost in all"][0] == "ok"  # within llm.budget_usd
    assert "19,320" not in found["cost test: judge"][1]  # AlpacaEval asks once, not in both orders
    assert "cost interpret: verify" not in found  # decides nothing here


def test_at_paper_scale_it_is_the_main_table_that_is_looked_at(tmp_path: Path):
    """As `fac scale=paper` runs it. A budget below the estimate is said."""
    found = doctor(tmp_path, "scale=paper", "annotator.budget_usd=10", code=1)
    tasks = ("toxicity", "reward", "sycophancy", "survival", "instruction")
    assert found["prompts"] == ("ok", ", ".join(f"paper/{task}" for task in tasks))
    assert "above budget_usd=10" in found["cost in all"][1]


def test_every_model_of_a_grid_is_looked_for(tmp_path: Path):
    found = doctor(tmp_path, "experiment=cross_model", "scale=paper", code=1)
    for name in ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.2", "Qwen/Qwen2-7B-Instruct"):
        assert found[f"model {name}"][0] == found[f"SAE for {name}"][0] == "missing"


def test_an_experiment_written_yesterday_is_looked_at_as_fully(tmp_path: Path):
    """Its steps say what it needs; nothing here knows its name."""
    found = doctor(tmp_path, "experiment=two_steps_of_one", code=0)
    for what in ("model llama", "SAE for llama", "engine of writer, explain, judge", "prompts", "data", "disk store"):
        assert found[what][0] == "ok", what
    assert found["prompts"][1] == "lab/toxicity"
    for what in ("GPU memory", "time measure", "time interpret: explain", "time interpret: judge", "assumed"):
        assert found[what][0] == "ok", what
    assert "(3,200 requests)" in found["time write"][1]  # 200 missing features, two methods of 8 requests each
    assert not any(what.startswith(("time train", "time test")) for what in found)
    assert "training" not in found["GPU memory"][1]
    paper = doctor(tmp_path, "experiment=two_steps_of_one", "scale=paper", code=1)
    assert paper["model meta-llama/Llama-3.1-8B-Instruct"][0] == paper["data lmsys/toxic-chat"][0] == "missing"
    assert paper["key OPENAI_API_KEY"][0] == "missing"
    assert "USD for 65,536 requests" in paper["cost interpret: explain"][1]


def test_only_what_the_experiment_uses_is_looked_for(tmp_path: Path):
    """No model, SAE, engine or key where no step holds one; a file that a step reads."""
    (tmp_path / "truth.json").touch()
    (tmp_path / "run").mkdir()
    own = ["experiment=measuring", "experiment.only_file=true", "data.anchor.path=null", "data.seed.path=null"]
    bare = doctor(tmp_path / "run", *own, f"experiment.truth={tmp_path / 'truth.json'}", code=0)
    assert {what for what in bare if what.split()[0] in ("model", "SAE", "engine", "key", "data", "time")} == set()
    assert bare[f"file {tmp_path / 'truth.json'}"] == ("ok", "is there (experiment.truth)")
    lacking = doctor(tmp_path / "run", *own, "experiment.truth=/nowhere/truth.json", code=1)
    said = "is not there: set experiment.truth to a file that is (experiment.truth)"
    assert lacking["file /nowhere/truth.json"] == ("missing", said)


def test_what_a_plan_could_not_be_made_for_is_a_finding(tmp_path: Path):
    found = doctor(tmp_path, "experiment=lab", "tasks.toxicity.prompts=nowhere", code=1)
    assert found["plan"][0] == "missing"
    assert "There is no prompt folder nowhere" in found["plan"][1]


def test_a_base_model_that_is_trained_and_not_named_is_missing(tmp_path: Path):
    arguments = ["experiment=main_results", "experiment.tasks=[instruction]", "model.base=null"]
    said = "The instruction task trains a base model: set model.base to a folder or hub id"
    found = doctor(tmp_path, *arguments, code=1)["plan"]
    assert found[0] == "missing"
    assert found[1].startswith(said)


@pytest.mark.parametrize("arguments", [PAPER, ["llm=openai"]])
def test_a_key_is_found_and_never_shown(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    finished = fac_here("doctor", *arguments, cwd=tmp_path)
    assert lines(finished)["key OPENAI_API_KEY"] == ("ok", "set in the environment")
    assert SECRET not in finished.out + finished.err + caplog.text


def test_a_server_of_one_s_own_needs_no_key(tmp_path: Path):
    own = ["llm.url=http://localhost:8000/v1", "llm.model=mine", "llm.key_env=null", "llm.budget_usd=null"]
    found = doctor(tmp_path, "llm=openai", *own, code=0)
    assert found["engine of writer, explain, judge"] == ("ok", "openai: mine at http://localhost:8000/v1")
    assert not any(what.startswith("key ") for what in found)
    assert found["cost write"][0] == "warning"  # no price is known


def test_broken_paths_are_named_with_the_way_out(tmp_path: Path):
    found = doctor(
        tmp_path, "experiment=measuring", "model=local", "model.path=/nowhere", "sae.path=/nowhere/sae",
        "data.anchor.path=/nowhere/anchor.jsonl", "paths.store=/dev/null/store", code=1,
    )  # fmt: skip
    assert found["setting data.seed.path"][0] == "missing"
    assert "set model.path" in found["model /nowhere"][1]
    assert "There is no SAE folder /nowhere/sae" in found["SAE for /nowhere"][1]
    assert "set data.anchor.path" in found["data /nowhere/anchor.jsonl"][1]
    assert "paths.store=DIR" in found["disk store"][1]
    assert not any("not-set" in what + said for what, (_, said) in found.items())
    assert found["memory, time"] == ("warning", "cannot be computed before the model's config.json is here")


def test_data_files_are_opened_and_their_first_rows_read(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "good.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (folder / "bad.jsonl").write_text('{"text": "one"}\n{"text": \n')
    arguments = [
        "experiment=measuring",
        f"data.anchor.path={folder / 'good.jsonl'}",
        f"data.seed.path={folder / 'bad.jsonl'}",
    ]
    good, bad = f"data {folder / 'good.jsonl'}", f"data {folder / 'bad.jsonl'}"
    found = lines(fac_here("doctor", *arguments, cwd=tmp_path))
    assert found[good] == ("ok", "the first 2 rows can be read (for data.anchor)")
    assert found[bad][0] == "missing"
    assert "line 2" in found[bad][1]
    assert "data.seed.on_error=skip" in found[bad][1]
    assert found["time measure"][0] == "ok"
    skipped = lines(fac_here("doctor", *arguments, "data.seed.on_error=skip", cwd=tmp_path))
    assert skipped[bad][0] == "ok"
    listed = [*arguments[:2], f"data.seed.path=[{folder / 'good.jsonl'},{folder / 'bad.jsonl'}]"]
    found = lines(fac_here("doctor", *listed, cwd=tmp_path))
    assert found[f"data {folder / 'good.jsonl'}, {folder / 'bad.jsonl'}"][0] == "missing"
    pattern = [*arguments[:2], f"data.seed.path={folder}/g*.jsonl"]
    assert lines(fac_here("doctor", *pattern, cwd=tmp_path))[f"data {folder}/g*.jsonl"][0] == "ok"


def test_a_model_without_weights_and_an_sae_that_does_not_fit_are_said(tmp_path: Path):
    model, sae = tmp_path / "model", tmp_path / "sae"
    shutil.copytree(shipped("llama"), model)
    shutil.copytree(shipped("llama/sae"), sae)
    (model / "model.safetensors").unlink()
    told = json.loads((sae / "cfg.json").read_text())
    local = ["experiment=lab", "model=local", f"model.path={model}", f"sae.path={sae}"]

    def said(*arguments: str) -> tuple[str, str]:
        found = lines(fac_here("doctor", *local, *arguments, cwd=tmp_path))
        assert found["model model"][0] == "missing"
        assert "There are no weights in" in found["model model"][1]
        return found["SAE for model"]

    assert said()[0] == "ok"
    assert said("sae.layer=3") == ("missing", "trained on layer 2, not 3: leave sae.layer out, or use sae=train")
    (sae / "cfg.json").write_text(json.dumps({**told, "d_in": 64}))
    assert "reads 64 dimensions, the model has 128" in said()[1]
    (sae / "cfg.json").write_text(json.dumps(told))
    (sae / "sae_weights.safetensors").unlink()
    assert "it has no sae_weights.safetensors" in said()[1]
    weights = (shipped("llama/sae") / "sae_weights.safetensors").read_bytes()
    for held, why in (
        (weights[:-9], "cut off"),
        (weights[:-4] + b"\xff" * 4, "NaN"),
        (b"version https://git-lfs", "LFS"),
    ):
        (sae / "sae_weights.safetensors").write_bytes(held)
        assert said()[0] == "missing"
        assert why in said()[1]
    (sae / "cfg.json").write_text(json.dumps({**told, "metadata": {"hook_name": "blocks.1.hook_mlp_out"}}))
    assert "reads blocks.1.hook_mlp_out" in said()[1]
    (sae / "cfg.json").rename(sae / "ae.pth")
    (sae / "sae_weights.safetensors").unlink()
    assert "is no file of torch.save" in said()[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m"], "fac doctor takes settings only"),
        (["seeds.dat=1"], "no key seeds.dat: did you mean seeds.data"),
        (["experiment=lob"], "There is no experiment=lob"),
        (["llm=opnai"], "There is no llm=opnai: did you mean openai"),
    ],
)
def test_wrong_settings_are_one_sentence(arguments: list[str], sentence: str, tmp_path: Path):
    assert sentence in fac_here("doctor", *arguments, cwd=tmp_path).failure


def test_settings_that_cannot_be_are_all_named(tmp_path: Path):
    given = ["experiment=main_results", "tasks.reward.sizes.known=99", "llm.batch=0"]
    finished = fac_here("doctor", *given, cwd=tmp_path)
    assert finished.code == 1
    assert "known=99" in finished.err
    assert "llm.batch=0" in finished.err


def test_a_check_that_fails_is_a_finding_itself():
    def check():
        yield Finding("ok", "first", "fine")
        raise RuntimeError("something\nunforeseen")

    assert checked("second", check) == [
        Finding("ok", "first", "fine"),
        Finding("warning", "second", "could not be checked (RuntimeError: something unforeseen)"),
    ]


@pytest.mark.slow
def test_what_the_hub_has_is_told_from_what_it_keeps_behind_a_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    there = ["mistralai/Mistral-7B-Instruct-v0.2", "nvidia/HelpSteer2", "Zhongzhi1228/sae_mistral_l16_h65536"]
    with hub(there, gated=["lmsys/toxic-chat"]) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        finished = run_fac("doctor", *PAPER, "experiment.tasks=[toxicity]", "model=mistral_7b", cwd=tmp_path)
    assert finished.code == 1, finished.err
    found = lines(finished)
    assert found["model mistralai/Mistral-7B-Instruct-v0.2"] == ("ok", "on the hub: the run will download it")
    assert found["SAE for mistralai/Mistral-7B-Instruct-v0.2"][0] == "ok"
    assert found["data nvidia/HelpSteer2"][0] == "ok"
    assert "gated: accept its licence" in found["data lmsys/toxic-chat"][1]
    assert "not on the hub" in found["data Anthropic/hh-rlhf"][1]


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    finished = run_fac("doctor", *PAPER, "experiment.tasks=[survival]", cwd=tmp_path)
    assert finished.code == 1
    assert finished.err == "fac: the Hugging Face hub does not answer, so only what lies in its cache here is used.\n"
