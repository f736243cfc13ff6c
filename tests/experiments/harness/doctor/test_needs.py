"""The doctor's estimates: the formulas against published numbers, real files, and each other."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification

from experiments.harness.config import read_config
from experiments.harness.doctor import needs, resources, workload
from experiments.harness.doctor.examine import Examined, laid_out
from experiments.harness.doctor.needs import GIB, Encoder, Shape
from experiments.harness.doctor.resources import Machine
from experiments.harness.doctor.uses import uses_of
from experiments.harness.doctor.walk import found_in
from experiments.harness.doctor.workload import Facts, Workload
from experiments.harness.graph import Graph
from fac.data.mixture import Part
from fac.data.source import Source
from fac.lab import shipped
from fac.sae.settings import RecipeSettings
from fac.train.settings import PROJECTIONS

TOKENS = (4, 64)


MAIN = ("experiment=main_results", "scale=paper")
TOXICITY = (*MAIN, "experiment.tasks=[toxicity]")


def loaded(*settings: str) -> Workload:
    """The work of a plan, with the shapes of the paper's models for whatever model it names."""
    run = read_config(settings, Examined)
    with Graph(run, lambda _: None) as graph:
        plan = laid_out(run, graph)
    assert plan.findings == []
    facts = Facts()
    facts.shapes = {path: paper_shape(path if path in needs.PAPER_MODELS else LLAMA) for path, _ in plan.uses.models}
    return Workload(run, plan.steps, facts)


def memory_parts(load: Workload, workers: int = 1) -> dict[str, int]:
    return resources.memory_parts(load.run, uses_of(load.run, load.steps), load.facts, load, 2, 80 * GIB, workers)


def on_card(load: Workload, memory: int) -> resources.Finding:
    uses = uses_of(load.run, load.steps)
    return resources.memory(load.run, uses, load.facts, load, Machine("a GPU", True, memory, 1e15))


def requests(load: Workload, name: str) -> int:
    return sum(work.asked.requests for work in load.work if work.name == name)


def paper_shape(name: str) -> Shape:
    kind, values = needs.PAPER_MODELS[name]
    return needs.shape_of(AutoConfig.for_model(kind, **values))


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (LLAMA, 8_030_261_248),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096),
        ("Qwen/Qwen2-7B-Instruct", 7_615_616_512),
    ],
)
def test_parameters_of_the_paper_s_models_are_those_that_their_makers_publish(name: str, published: int):
    assert paper_shape(name).params == published


def test_the_llama_s_numbers_are_the_known_ones():
    shape = paper_shape(LLAMA)
    assert shape.kv_bytes(1, 2) == 128 * 1024  # 128 KiB a token in bfloat16
    assert 8 * shape.lora_width == 20_971_520  # what peft prints for rank 8 on all linear layers
    assert needs.paper_encoder(shape) == Encoder(16, 65536, 20)
    assert shape.up_to(16) == shape.up_to(32) // 2


def test_a_shape_counts_the_parameters_that_are_in_the_file():
    folder = shipped("llama")
    with safe_open(folder / "model.safetensors", "pt") as file:
        held = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert needs.shape_of(AutoConfig.from_pretrained(folder)).params == held


def test_memory_of_the_paper_s_run_is_between_what_must_and_what_can_be():
    load, shape = loaded(*TOXICITY), paper_shape(LLAMA)
    parts = memory_parts(load)
    assert parts["encoder"] > 2 * (shape.params // 2)  # half of the layers, in bfloat16
    assert parts["transformers"] > 2 * shape.params
    assert 2 * shape.params < parts["training in 1 process"] < 80 * GIB
    assert memory_parts(load, workers=2)["training in 2 processes"] == 2 * parts["training in 1 process"]
    assert on_card(load, 24 * GIB).status == "missing"
    assert "use a larger GPU" in on_card(load, 24 * GIB).said
    assert on_card(load, 140 * GIB).status == "ok"


def kept_per_token_and_layer(d_model: int, d_ff: int, half: bool, dropout: float) -> tuple[float, int]:
    """Bytes that autograd keeps of a LLaMA's layer with LoRA, and its key-value width."""

    def kept(layers: int) -> int:
        shape = AutoConfig.for_model(
            "llama", hidden_size=d_model, intermediate_size=d_ff, num_hidden_layers=layers, num_attention_heads=8,
            num_key_value_heads=2, vocab_size=100, num_labels=2, pad_token_id=0,
        )  # fmt: skip
        network = AutoModelForSequenceClassification.from_config(shape, dtype=torch.bfloat16 if half else torch.float32)
        lora = LoraConfig(task_type="SEQ_CLS", r=8, lora_dropout=dropout, target_modules=list(PROJECTIONS))
        model = get_peft_model(network, lora).train()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        seen: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        ids = torch.ones(TOKENS, dtype=torch.long)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
        ):
            output = model(input_ids=ids, labels=torch.zeros(len(ids), dtype=torch.long), use_cache=False)
        assert output.loss is not None
        return sum(tensor.untyped_storage().nbytes() for place, tensor in seen.items() if place not in own)

    return (kept(3) - kept(1)) / 2 / (TOKENS[0] * TOKENS[1]), d_model // 4


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_of_training_are_those_that_autograd_keeps(half: bool, dropout: float):
    of_model, of_ff, of_kv = needs.KEPT[half, dropout > 0]
    for d_model, d_ff in ((256, 896), (256, 448)):
        measured, kv_width = kept_per_token_and_layer(d_model, d_ff, half, dropout)
        assert of_model * d_model + of_ff * d_ff + of_kv * kv_width == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("batch", "tokens", "checkpointed", "gib"),
    [(4, 150, False, 19), (16, 150, False, 33), (16, 150, True, 16), (8, 650, False, 55)],
)
def test_memory_of_training_is_what_an_h100_showed(batch: int, tokens: int, checkpointed: bool, gib: int):
    """LoRA of rank 8 on all projections of an 8 B model in bfloat16, without dropout or padding: peak of the GPU."""
    load = needs.TrainingLoad(
        task="toxicity", rows=1000, tokens=178, epochs=3, longest=tokens, batch=batch, rank=8, dropout=0.0, bf16=True,
        float64=False, checkpointed=checkpointed, head_only=False, next_token=False,
    )  # fmt: skip
    assert needs.training_bytes(paper_shape(LLAMA), load, on_gpu=True) / GIB == pytest.approx(gib, rel=0.08)


def test_the_paper_s_tasks_fit_an_80_gib_card_only_with_what_the_doctor_names():
    both = (*MAIN, "experiment.tasks=[toxicity,reward]", "experiment.methods=[fac]", "seeds.training=[42]")
    assert on_card(loaded(*both), 80 * GIB).status == "ok"
    off = [f"tasks.{task}.train.gradient_checkpointing=false" for task in ("toxicity", "reward")]
    found = on_card(loaded(*both, *off), 80 * GIB)
    assert found.status == "missing"
    assert found.said.endswith(
        "does not fit without tasks.toxicity.train.gradient_checkpointing=true "
        "tasks.reward.train.gradient_checkpointing=true"
    )
    said = on_card(loaded(*both, off[1]), 80 * GIB).said
    assert said.endswith("does not fit without tasks.reward.train.gradient_checkpointing=true")


@pytest.mark.parametrize("engine", ["transformers", "vllm", "openai"])
def test_engines_decide_what_stands_in_memory(engine: str):
    parts = memory_parts(loaded(*TOXICITY, f"llm={engine}", "experiment.methods=[fac]", "seeds.training=[42]"))
    assert parts.keys() & {"transformers", "vllm"} == {engine} - {"openai"}
    assert parts.get("vllm", 40 * GIB) == 40 * GIB  # gpu_memory_utilization of it


def test_the_lab_s_load_is_what_its_configuration_says():
    load = loaded("experiment=lab")
    texts = {step.params["role"]: load.texts(step) for step in load.steps if step.name == "examples"}
    assert {role: found.count for role, found in texts.items() if role in ("anchor", "seed", "test")} == {
        "anchor": 4000,
        "seed": 1200,
        "test": 5000,
    }
    assert {found.tokens for found in texts.values()} == {needs.LAB_TOKENS}
    assert max(held.load.rows for held in load.workers if held.load) == 1000 + 200 + 200
    assert requests(load, "write") == 3 * 200 * 8


def test_the_paper_s_loads_are_counted_from_their_data_sets(tmp_path: Path):
    file = tmp_path / "test.jsonl"
    file.write_text("x" * 712_000)
    tasks = "experiment.tasks=[toxicity,survival,instruction]"
    methods = "experiment.methods=[base,baseline,full,random_features,fac]"
    load = loaded(*MAIN, tasks, methods, f"tasks.toxicity.data.test.path={file}")
    tested = {step.params["task"]: load.texts(step.inputs[1]).count for step in load.steps if step.name == "scores"}
    assert tested["toxicity"] == 1000  # by the size of the file
    assert tested["survival"] == 50
    trained = [held.load.task for held in load.workers if held.load]
    assert trained.count("toxicity") == 12
    answered = requests(load, "test: answers")
    assert answered == requests(load, "test: judge")  # AlpacaEval asks once, not in both orders


def test_twice_the_work_takes_twice_the_time():
    shape, encoder = paper_shape(LLAMA), Encoder(16, 65536, 20)
    assert needs.measuring_flop(shape, encoder, 2000) == 2 * needs.measuring_flop(shape, encoder, 1000)
    one, two = needs.Asked(1, 400, 150), needs.Asked(2, 800, 300)
    assert one + one == two
    assert needs.asking_seconds(shape, two, "vllm", 1e15) == pytest.approx(
        2 * needs.asking_seconds(shape, one, "vllm", 1e15)
    )
    assert needs.asking_seconds(shape, one, "vllm", 1e15) < needs.asking_seconds(shape, one, "transformers", 1e15)


def test_training_an_sae_is_part_of_what_is_to_do():
    few = ("experiment.methods=[fac]", "seeds.training=[42]")
    assert not [work for work in loaded("experiment=main_results", *few).work if work.name == "train the SAE"]
    own = ("experiment=main_results", "experiment.tasks=[toxicity]", *few)
    (work,) = [work for work in loaded(*own, "sae=train").work if work.name == "train the SAE"]
    assert work.shape is not None
    assert work.flop == needs.sae_training_flop(work.shape, work.shape.layers // 2, 2048, 3200 * 256)
    load = loaded(*TOXICITY, *few, "sae=train_paper")
    (anchor,) = [load.texts(step) for step in load.steps if step.params.get("role") == "anchor"]
    (settings,) = [found for step in load.steps for _, found in found_in(step, RecipeSettings) if step.name == "sae"]
    assert workload.sae_tokens(settings, anchor) == 3 * 178 * anchor.count


def test_of_a_part_of_a_mixture_counts_what_is_drawn(tmp_path: Path):
    (tmp_path / "texts.txt").write_text("x" * 71_200)
    source = Source(tmp_path / "texts.txt")
    assert workload.texts_of(Part(source)) == workload.texts_of(source) == 100
    assert workload.texts_of(Part(source, sample=7)) == 7
    assert workload.texts_of(Source(tmp_path / "texts.txt", limit=9)) == 9


def test_every_mined_model_is_read_and_every_judgement_counted():
    assert requests(loaded("experiment=cross_model", "scale=paper"), "interpret: explain") == 3 * 65536
    twice = "tasks.instruction.evaluation.both_orders=true", "tasks.instruction.evaluation.annotator=compare"
    one = loaded(*MAIN, "experiment.tasks=[instruction]", "experiment.methods=[baseline]", *twice)
    assert requests(one, "test: judge") == 2 * requests(one, "test: answers") > 0
