"""eval.steered and eval/tasks/caa: lm-eval's answers are those of fac.train.steering."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.caa import write_caa
from support.cli import environment
from support.models import Family, tiny_model
from tokenizers import Tokenizer, pre_tokenizers

from eval.steering import Answers, evaluate, score
from fac.backbone import ModelRef, load_causal_lm
from fac.data.choices import POLARITY, read_choices
from fac.data.source import Source
from fac.errors import FacError
from fac.train.steering import SteeringVector, open_answer

REPO = Path(__file__).resolve().parents[2]
TASKS = REPO / "eval" / "tasks"
TASK = "caa_survival_instinct"
MULTIPLIER = 1.5


@pytest.fixture
def caa(tmp_path: Path) -> Path:
    write_caa(tmp_path / "caa", "survival-instinct", questions=6)
    return tmp_path / "caa"


@pytest.fixture
def vector(tmp_path: Path) -> SteeringVector:
    direction = torch.randn(64, generator=torch.Generator().manual_seed(1))
    made = SteeringVector(direction, 2, "survival-instinct", "answer", 1, "m")
    made.save(tmp_path / "vector")
    return made


def run(model: Path, caa: Path, **arguments: Any) -> dict[str, Any]:
    """What lm-eval makes of the task."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    import eval.steered  # noqa: F401  (registers the model)

    simple_evaluate: Any = lm_eval.simple_evaluate  # its decorator hides its type
    return simple_evaluate(
        model="fac-steered",
        model_args={"pretrained": str(model), "dtype": "float32", **arguments},
        device="cpu",
        batch_size=3,
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"caa": str(caa)}),
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )


def agree(found: dict[str, Any], asked: Answers) -> None:
    """Every letter's probability to 1e-4, and the metrics made of them."""
    samples = found["samples"][TASK]
    assert len(samples) == 2 * asked.p.shape[1]
    seen: dict[int, int] = {}
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        item = sample["doc"]["item"]
        order = seen[item] = seen.get(item, -1) + 1  # as it stands, then swapped
        p = np.exp([float(loglikelihood) for loglikelihood, _ in sample["filtered_resps"]])
        np.testing.assert_allclose(p / p.sum(), asked.p[order, item, : len(p)], atol=1e-4)
        np.testing.assert_allclose(p.sum(), asked.mass[order, item], rtol=1e-3)
        assert sample["doc"]["matching"] == asked.matching[order, item]
    expected = score(asked)
    assert found["results"][TASK]["robust,none"] == pytest.approx(expected.robust)
    assert found["results"][TASK]["p_matching,none"] == pytest.approx(expected.p_matching, abs=1e-4)


def questions(caa: Path):
    return read_choices(Source(caa / "test" / "survival-instinct" / "test_dataset_ab.json"))


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_lm_eval_answers_as_we_do(tmp_path: Path, caa: Path, vector: SteeringVector, family: Family):
    folder = tiny_model(tmp_path / family, family)
    model, tokenizer = load_causal_lm(ModelRef(str(folder)))
    plain, moved = (evaluate(model, tokenizer, questions(caa), vector, m) for m in (0, MULTIPLIER))
    assert np.abs(plain.p - moved.p).max() > 1e-2  # otherwise the agreement below would say nothing
    agree(run(folder, caa), plain)
    agree(run(folder, caa, vector=str(tmp_path / "vector"), multiplier=MULTIPLIER), moved)


def test_a_token_for_bracket_and_letter_is_not_in_the_way(tmp_path: Path, caa: Path, vector: SteeringVector):
    """Llama 3 has a token "(A", so that "(" and "A" written together are another text than the open turn."""
    folder = tiny_model(tmp_path / "llama")
    file = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, merges = file["model"]["vocab"], file["model"]["merges"]
    vocabulary["(A"] = vocabulary.pop("".join(merges.pop()))
    merges.append(["(", "A"])
    core = Tokenizer.from_str(json.dumps(file))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.save(str(folder / "tokenizer.json"))
    model, tokenizer = load_causal_lm(ModelRef(str(folder)))
    assert tokenizer.tokenize("(A") == ["(A"]
    assert tokenizer.convert_ids_to_tokens(open_answer(tokenizer, questions(caa)[0]).ids)[-1] == "("
    found = run(folder, caa, vector=str(tmp_path / "vector"), multiplier=MULTIPLIER)
    agree(found, evaluate(model, tokenizer, questions(caa), vector, MULTIPLIER))


def test_a_vector_of_another_model_is_refused(tmp_path: Path):
    from eval import steered

    lm: Any = steered.SteeredLM
    SteeringVector(torch.ones(8), 2, "b", "answer", 1, "hub/other@main").save(tmp_path / "vector")
    folder = tiny_model(tmp_path / "llama")
    with pytest.raises(FacError, match="width 8 for layer 2 does not fit"):
        lm(str(folder), vector=str(tmp_path / "vector"), device="cpu")


def test_data_that_are_not_named(tmp_path: Path):
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    with pytest.raises(FacError, match=r"""caa_survival-instinct are not named: add --metadata '\{"caa": "DIR"\}'"""):
        manager.load(TASK)


def test_every_behaviour_has_a_valid_task(real_data):
    """As `lm-eval validate` does it, without the wait for lm-eval's own tasks; and all documents are built."""
    from lm_eval.tasks import TaskManager

    root = real_data("caa")
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"caa": str(root)})
    names = manager.match_tasks(["caa_*"])
    loaded = manager.load(names)["tasks"]
    assert {task.config.dataset_kwargs["behavior"] for task in loaded.values()} == set(POLARITY)
    assert all(len(list(task.eval_docs)) == 100 for task in loaded.values())  # 50 questions in both orders


@pytest.mark.slow
def test_the_command_line(tmp_path: Path, caa: Path, vector: SteeringVector):
    folder = tiny_model(tmp_path / "llama")
    command = [
        *(sys.executable, "-m", "eval.steered", "run", "--model", "fac-steered", "--device", "cpu"),
        *("--model_args", f"pretrained={folder},vector={tmp_path / 'vector'},multiplier={MULTIPLIER},dtype=float32"),
        *("--include_path", str(TASKS), "--tasks", TASK, "--metadata", json.dumps({"caa": str(caa)})),
        *("--apply_chat_template", "--output_path", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    model, tokenizer = load_causal_lm(ModelRef(str(folder)))
    expected = score(evaluate(model, tokenizer, questions(caa), vector, MULTIPLIER))
    found = json.loads(file.read_text())["results"][TASK]
    assert found["p_matching,none"] == pytest.approx(expected.p_matching, abs=1e-4)
    assert found["robust,none"] == pytest.approx(expected.robust)
