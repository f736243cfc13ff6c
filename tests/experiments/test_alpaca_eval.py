"""experiments.alpaca_eval from annotations to table and page: the published numbers, and every way to go wrong."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.cli import COMMAND, environment, fac_here
from support.openai_server import Answer, FaultyServer, completion, logprobs

from eval.alpaca import HUB_FILE, length_controlled, minimal_length_control, read_annotations
from experiments.harness.results import LAB_LABEL, Table
from fac.data.files import content_digest
from fac.prompts import Prompts

UNTRACKED = "tracking.enabled=false"
WEIGHTED = ("experiment=alpaca_eval", "experiment.outputs=outputs.json", "experiment.reference=reference.json")
COMPARED = (*WEIGHTED, "experiment.judging.annotator=compare")
OWN_PROMPT = "experiment.judging.annotator=compare"


@pytest.fixture
def annotations(real_data):
    return real_data("alpaca_eval") / "annotations" / "NullModel.json.gz"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and nothing of it on disk."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def only(table: Table, column: str) -> float:
    cell = table.cell(table.rows[0], column)
    assert cell is not None
    return cell.mean


def test_offline_the_published_rates_and_the_minimal_length_control(annotations: Path, offline, tmp_path: Path):
    done = fac_here("experiment=alpaca_eval", f"experiment.annotations={annotations}", "out=out", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out == f"OWN DATA: answers of example, as the files hold them\nresults: {tmp_path / 'out'}\n"
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.rows == ("example",)  # as the annotations call NullModel
    assert table.columns == ("minimal_length_control", "wr", "sd", "n")
    assert only(table, "wr") == pytest.approx(76.920, abs=5e-4)
    assert only(table, "sd") == pytest.approx(0.909, abs=5e-4)
    assert only(table, "n") == 805
    assert only(table, "minimal_length_control") == pytest.approx(
        minimal_length_control(read_annotations(annotations)), abs=1e-6
    )
    text = (tmp_path / "out" / "table.md").read_text()
    heading = next(line for line in text.splitlines() if line.startswith("| |"))
    assert re.findall(r"\bLC\b", heading) == []
    assert "minimal length control (%)" in heading
    assert "set experiment.calibration=FILE" in text
    assert "FAC Synthesis 20.27 / 21.26 / 1.44" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "76.920 %, standard error 0.909" in page
    assert LAB_LABEL not in text + page
    assert "OWN DATA: answers of " in text
    assert "experiment:\n  name: alpaca_eval\n" in (tmp_path / "out" / "config.yaml").read_text()


def test_with_a_calibration_there_is_lc(annotations: Path, offline, tmp_path: Path):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"model": "gamed", "index": np.arange(805), "preference": rng.random(805)})
    frame["std_delta_len"], frame["instruction_difficulty"] = rng.normal(size=(2, 805))
    frame.assign(not_gamed_baseline=False).to_csv(tmp_path / HUB_FILE)
    done = fac_here(
        "experiment=alpaca_eval",
        f"experiment.annotations={annotations}",
        f"experiment.calibration={HUB_FILE}",
        "out=out",
        UNTRACKED,
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.columns == ("lc", "lc_error", "wr", "sd", "n")
    expected = length_controlled(read_annotations(annotations), tmp_path / HUB_FILE)
    assert only(table, "lc") == pytest.approx(expected.rate, abs=1e-6)
    assert only(table, "lc_error") == pytest.approx(expected.standard_error, abs=1e-6)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "minimal length control" not in text
    assert f"calibrated with {HUB_FILE} (SHA-256 {content_digest(tmp_path / HUB_FILE)[:12]})" in text
    assert "For context, LC / WR / SD of the paper's models" in text


def test_other_instructions_are_the_labs_and_need_a_word(offline, tmp_path: Path):
    texts = {"output_1": "Hello", "generator_1": "a", "output_2": "Hi", "generator_2": "b"}
    rows = [{"instruction": f"task {n}", "preference": 1 + n % 2, **texts} for n in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    arguments = ("experiment=alpaca_eval", "experiment.annotations=rows.json", "out=out", UNTRACKED)
    refused = fac_here(*arguments, cwd=tmp_path)
    assert refused.code == 1
    assert "none of AlpacaEval's 805 instructions" in refused.err
    assert not (tmp_path / "out" / "table.json").exists()
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.json").rename(tmp_path / "folder" / "annotations.json")
    arguments = (arguments[0], "experiment.annotations=folder", *arguments[2:])
    done = fac_here(*arguments, "experiment.instructions=any", cwd=tmp_path)
    assert done.code == 0, done.err
    table = Table.from_json((tmp_path / "out" / "table.json").read_text())
    assert table.columns == ("wr", "sd", "n")  # nothing to tell the effect of length from
    assert only(table, "wr") == 50
    assert table.scale == "lab"
    assert any("effect of length cannot be told" in note for note in table.notes)
    assert table.names["wr"] == "WR by an annotator that the file does not name"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "Set experiment.annotations=FILE to what a judge said, or experiment.outputs=FILE and experiment.reference",
        ),
        (["experiment.outputs=x.json"], "Set experiment.annotations=FILE to what a judge said, or "),
        (
            ["experiment.outputs=x.json", "experiment.reference=y.json"],
            "tells no log-probabilities: name a server that does",
        ),
        (
            ["experiment.outputs=x.json", "experiment.reference=y.json", OWN_PROMPT],
            "There is no file x.json: set experiment.outputs=FILE",
        ),
        (
            ["experiment.outputs=x.json", "experiment.reference=y.json", OWN_PROMPT, "experiment.judging.prompts=no"],
            "There is no prompt folder no",
        ),
        (
            [
                "experiment.outputs=ours.json",
                "experiment.reference=ours.json",
                "experiment.instructions=any",
                "annotator=openai",
            ],
            "no key for https://api.openai.com/v1: export OPENAI_API_KEY",
        ),
        (["experiment.annotations=nowhere.json"], "There is no file nowhere.json: set experiment.annotations=FILE"),
        (["experiment.annotations=bad.json"], "bad.json, row 1: there is no text 'instruction'"),
        (
            ["annotations=bad.json", "experiment.annotations=bad.json"],
            "no key annotations: set experiment.annotations",
        ),
        (
            ["experiment.annotations=bad.json", "experiment.instructions=some"],
            "experiment.instructions='some' will not do",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], said: str, tmp_path: Path):
    (tmp_path / "bad.json").write_text('[{"preference": 1}]')
    (tmp_path / "ours.json").write_text('[{"instruction": "a", "output": "b", "generator": "c"}]')
    done = fac_here("experiment=alpaca_eval", *arguments, "out=out", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_key_by_its_old_name_and_what_is_not_set_for_it_are_both_said(tmp_path: Path):
    done = fac_here("experiment=alpaca_eval", "annotations=bad.json", "out=out", cwd=tmp_path)
    assert done.failure == "fac: 2 settings will not do:"
    both = done.err.splitlines()[1:]
    assert "no key annotations: set experiment.annotations" in both[0]
    assert "Set experiment.annotations=FILE to what a judge said" in both[1]
    assert len(both) == 2


def test_a_calibration_that_is_none_stops_the_run(annotations: Path, tmp_path: Path):
    done = fac_here(
        "experiment=alpaca_eval", f"experiment.annotations={annotations}", "experiment.calibration=no.csv", cwd=tmp_path
    )
    assert done.code == 1
    assert (
        done.err
        == "fac: There is no file no.csv: set experiment.calibration=FILE to df_gamed.csv of tatsu-lab/alpaca_eval.\n"
    )


@pytest.mark.parametrize("named", ["annotations.json", "folder"])
def test_the_doctor_says_whether_a_file_or_its_folder_is_there(named: str, offline, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "annotations.json").write_text("[]")
    done = fac_here("doctor", "experiment=alpaca_eval", f"experiment.annotations={named}", cwd=tmp_path)
    found = re.search(rf"^(\w+) +file \S*{re.escape(named)} .*\(experiment\.annotations\)$", done.out, re.MULTILINE)
    assert found is not None, done.out
    assert found[1] == ("ok" if named == "folder" else "missing")


def test_the_annotator_judges_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A judge behind a URL that prefers the answer b; what it said is asked for once, and kept as alpaca_eval does."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-55aa")

    def prefers_b(body):
        prompt = body["messages"][0]["content"]
        return f"It is better. [[{'first' if prompt.index('reply-b') < prompt.index('reply-a') else 'second'}]]"

    for name, answer in (("outputs", "b"), ("reference", "a")):
        rows = [{"instruction": f"task {n}", "output": f"reply-{answer}", "generator": name} for n in range(12)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    with FaultyServer(prefers_b) as server:
        command = [*COMPARED, "out=out", UNTRACKED,
                   "experiment.instructions=any", "annotator=openai", f"annotator.url={server.url}"]  # fmt: skip
        judge = f"openai:gpt-4o-mini-2024-07-18@{server.url}"
        for both, asked in ((False, 12), (True, 24)):
            done = fac_here(*command, f"experiment.judging.both_orders={both}", cwd=tmp_path)
            assert done.code == 0, done.err
            assert sum(server.asked.values()) == asked
            table = Table.from_json((tmp_path / "out" / "table.json").read_text())
            assert table.rows == ("outputs",)
            assert only(table, "wr") == 100
            digest = Prompts("paper/instruction").digest("compare")
            assert table.names["wr"] == f"WR by {judge}, asked with paper/instruction/compare.jinja {digest}"
            text = (tmp_path / "out" / "table.md").read_text()
            assert "There is no LC: its difficulties and calibration are those of AlpacaEval's own annotator" in text
            assert "For context, LC / WR / SD of the paper's models" not in text
            assert f"{asked} answers held no verdict and count as draws" in text
            assert any(f"Judged by {judge}" in note for note in table.notes)
            assert len(read_annotations(tmp_path / "out" / "annotations.json", alpaca_eval_only=False)) == 12
        bodies = [json.loads(name) for name in server.asked]
    assert all(body["temperature"] == 0 for body in bodies)
    shown_first = ["reply-a" in body["messages"][0]["content"].split("Second answer")[0] for body in bodies]
    assert 0 < sum(shown_first) < 24


def replies_of(kind: str, body: dict) -> dict | Answer:
    """What servers of reasoning models answer: the thought names one verdict, the reply another."""
    if kind == "null usage":
        return completion(body, "[[second]]") | {"usage": dict.fromkeys(("prompt_tokens", "completion_tokens"))}
    if kind == "error":
        return Answer(200, {"error": {"message": "the quota of the upstream is used up"}})
    answer = completion(body, "<think>[[first]]</think>[[second]]", finish="length" if "cut" in kind else "stop")
    message = answer["choices"][0]["message"]
    if kind == "parts":
        message["content"] = [{"type": "thinking", "thinking": "[[first]]"}, {"type": "text", "text": "[[second]]"}]
    elif kind == "cut in thought":
        message["content"] = "<think>I think it is [[first]]"
    elif kind == "cut reasoning":
        message |= {"content": None, "reasoning_content": "I think it is [[first]]"}
    return answer


@pytest.mark.parametrize("kind", ["think", "parts", "null usage", "cut in thought", "cut reasoning", "error"])
def test_only_what_a_judge_says_in_the_end_is_its_verdict(kind: str, tmp_path: Path):
    for name in ("outputs", "reference"):
        rows = [{"instruction": f"task {n}", "output": name, "generator": name} for n in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    with FaultyServer(lambda body: replies_of(kind, body)) as server:
        done = fac_here(
            *COMPARED, "out=out", UNTRACKED,
            "experiment.instructions=any", "annotator=openai", f"annotator.url={server.url}", "annotator.key_env=null",
            "experiment.judging.both_orders=true", "annotator.budget_usd=null", "annotator.retries=0", cwd=tmp_path,
        )  # fmt: skip
    if kind == "error":
        assert '("the quota of the upstream is used up"): mend what it says' in done.failure
    elif "cut" in kind:
        assert "None of the 12 answers of openai:" in done.failure
        assert "12 were cut off at 512 tokens: raise experiment.judging.max_new_tokens" in done.failure
        assert not (tmp_path / "out" / "table.json").exists()
    else:  # always the second: a liking for a place, so all are draws, and all were read
        assert done.code == 0, done.err
        assert "0 of 12 answers held no verdict" in (tmp_path / "out" / "table.md").read_text()
        annotations = json.loads((tmp_path / "out" / "annotations.json").read_text())
        assert [(a["preference"], a["readable"]) for a in annotations] == [(1.5, True)] * 6


def test_a_second_server_is_asked_although_the_first_one_s_model_has_the_same_name(tmp_path: Path):
    for name in ("outputs", "reference"):
        rows = [{"instruction": f"task {n}", "output": name, "generator": name} for n in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    rates = []
    with FaultyServer(lambda _: "[[first]]") as one, FaultyServer(lambda _: "[[second]]") as two:
        for server in (one, two):
            done = fac_here(
                *COMPARED, "out=out", UNTRACKED,
                "experiment.instructions=any", "annotator=openai", f"annotator.url={server.url}",
                "annotator.key_env=null", "annotator.model=local", "annotator.budget_usd=null", cwd=tmp_path,
            )  # fmt: skip
            assert done.code == 0, done.err
            assert sum(server.answered.values()) == 6
            rates.append(only(Table.from_json((tmp_path / "out" / "table.json").read_text()), "wr"))
    assert sum(rates) == pytest.approx(100)
    assert rates[0] != rates[1]


@pytest.mark.slow
def test_an_interrupt_while_a_server_hangs_ends_the_command_within_seconds(tmp_path: Path):
    for name in ("outputs", "reference"):
        rows = [{"instruction": f"task {n}", "output": name, "generator": name} for n in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    with FaultyServer(lambda _: "[[first]]", always="hang") as server:
        command = [
            COMMAND,
            UNTRACKED, *COMPARED, "out=out",
            "experiment.instructions=any", "annotator=openai", f"annotator.url={server.url}", "annotator.key_env=null",
            "annotator.budget_usd=null",
        ]  # fmt: skip
        run = subprocess.Popen(command, env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while len(server.times) < 6:
            assert run.poll() is None, run.communicate()[1]
            time.sleep(0.05)
        start = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert time.monotonic() - start < 15
    assert "stopping: up to 5 seconds for 6 replies under way" in said
    assert "stopped; run the same command again and it continues where it stopped" in said
    assert len(server.times) == 6


def likely(body: dict) -> dict:
    """A judge who names the answer that says b with a probability of .8 and something else with .1."""
    prompt = body["messages"][-1]["content"]
    first = prompt.index("reply-b") < prompt.index("reply-a")
    return logprobs(body, {"m": 0.8 if first else 0.1, "M": 0.1 if first else 0.8, "Both": 0.1})


def test_alpaca_eval_s_own_annotator_weighs_its_answers_and_asks_for_each_once(tmp_path: Path):
    write_outputs(tmp_path)
    with FaultyServer(likely, faults={2: "500"}) as server:
        command = [*WEIGHTED, UNTRACKED, "experiment.instructions=any", "annotator=openai",
                   f"annotator.url={server.url}", "annotator.key_env=null"]  # fmt: skip
        spent = []
        for out in ("one", "two"):
            done = fac_here(*command, f"out={out}", cwd=tmp_path)
            assert done.code == 0, done.err
            spent.append(len(server.times))
        bodies = [json.loads(name) for name in server.asked]
    assert spent == [13, 13]  # twelve, and the one that failed
    assert {json.dumps({k: v for k, v in body.items() if k != "messages"}, sort_keys=True) for body in bodies} == {
        '{"logprobs": true, "max_tokens": 1, "model": "gpt-4o-mini-2024-07-18", "temperature": 1, "top_logprobs": 5}'
    }
    assert [m["role"] for m in bodies[0]["messages"]] == ["system", "user"]
    table = Table.from_json((tmp_path / "two" / "table.json").read_text())
    assert only(table, "wr") == pytest.approx(100 * 0.8 / 0.9)
    assert table.names["wr"] == (
        f"WR by openai:gpt-4o-mini-2024-07-18@{server.url} with the prompt of weighted_alpaca_eval_gpt4_turbo"
    )
    assert not {"lc", "lc_error"} & {*table.columns}
    assert "0 of 12 answers held no verdict and are left out" in (tmp_path / "two" / "table.md").read_text()


def test_a_server_without_log_probabilities_is_named(tmp_path: Path):
    write_outputs(tmp_path)
    with FaultyServer(lambda _: "m") as server:
        done = fac_here(
            *WEIGHTED, UNTRACKED, "out=out", "experiment.instructions=any", "annotator=openai",
            f"annotator.url={server.url}", "annotator.key_env=null", cwd=tmp_path,
        )  # fmt: skip
    assert f"{server.url} sends no log-probabilities of gpt-4o-mini-2024-07-18" in done.failure
    assert "set annotator.url and annotator.model" in done.failure


def write_outputs(folder: Path) -> None:
    for name, answer in (("outputs", "b"), ("reference", "a")):
        rows = [{"instruction": f"task {n}", "output": f"reply-{answer}", "generator": name} for n in range(12)]
        (folder / f"{name}.json").write_text(json.dumps(rows))
