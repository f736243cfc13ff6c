"""experiments.doctor.needs and resources: the formulas against published numbers, real files, and each other."""

from dataclasses import replace
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification

from experiments.doctor import needs, resources, workload
from experiments.doctor.needs import GIB, Encoder, Shape
from experiments.doctor.resources import Machine
from experiments.run import CONF
from fac.lab import shipped
from fac.train.sequence import PROJECTIONS

TOKENS = (4, 64)


def composed(*overrides: str) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


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
    cfg = composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]")
    shape = paper_shape(LLAMA)
    encoder, loads = needs.paper_encoder(shape), workload.loads(cfg)
    parts = resources.memory_parts(cfg, shape, encoder, loads, 2, 80 * GIB, workers=1)
    assert parts["encoder"] > 2 * (shape.params // 2)  # half of the layers, in bfloat16
    assert parts["transformers"] > 2 * shape.params
    assert 2 * shape.params < parts["training in 1 process"] < 80 * GIB
    twice = resources.memory_parts(cfg, shape, encoder, loads, 2, 80 * GIB, workers=2)
    assert twice["training in 2 processes"] == 2 * parts["training in 1 process"]


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
    (load,) = workload.loads(composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]"))
    load = replace(load, batch=batch, train_tokens=tokens, checkpointed=checkpointed, dropout=0.0)
    assert needs.training_bytes(paper_shape(LLAMA), load, on_gpu=True) / GIB == pytest.approx(gib, rel=0.08)


def test_the_paper_s_tasks_fit_an_80_gib_card_only_with_what_the_doctor_names():
    shape = paper_shape(LLAMA)

    def found(*overrides: str):
        cfg = composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity,reward]", *overrides)
        card = Machine("a GPU", True, 80 * GIB, 1e15)
        return resources.memory(cfg, card, shape, needs.paper_encoder(shape), workload.loads(cfg))

    assert found().status == "ok"
    off = [f"tasks.{task}.train.gradient_checkpointing=false" for task in ("toxicity", "reward")]
    both = found(*off)
    assert both.status == "missing"
    assert both.said.endswith(
        "does not fit without tasks.toxicity.train.gradient_checkpointing=true "
        "tasks.reward.train.gradient_checkpointing=true"
    )
    assert found(off[1]).said.endswith("does not fit without tasks.reward.train.gradient_checkpointing=true")


def test_a_reward_model_alone_needs_the_memory_of_its_training(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("{}")
    given = [f"data.train.path={file}", f"data.test.path={file}"]
    cfg = composed("experiment=reward", "scale=paper", *given, "tasks.reward.train.gradient_checkpointing=false")
    shape = paper_shape(LLAMA)
    (size,) = resources.memory_parts(cfg, shape, needs.paper_encoder(shape), [], 2, 80 * GIB, 1).values()
    assert 60 * GIB < size < 80 * GIB  # 16 GiB of weights, and two pairs of 1,024 tokens with dropout


@pytest.mark.parametrize(("memory", "status"), [(24 * GIB, "missing"), (140 * GIB, "ok")])
def test_a_gpu_is_large_enough_or_not(memory: int, status: str):
    cfg = composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]")
    shape = paper_shape(LLAMA)
    found = resources.memory(
        cfg, Machine("a GPU", True, memory, 1e15), shape, needs.paper_encoder(shape), workload.loads(cfg)
    )
    assert found.status == status
    assert ("use a larger GPU" in found.said) == (status == "missing")


def test_engines_decide_what_stands_in_memory():
    shape = paper_shape(LLAMA)
    paper = ["experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]"]
    parts = {}
    for engine in ("transformers", "vllm", "openai"):
        cfg = composed(*paper, f"llm={engine}")
        loads = workload.loads(cfg)
        parts[engine] = resources.memory_parts(cfg, shape, needs.paper_encoder(shape), loads, 2, 80 * GIB, 1)
    assert "transformers" in parts["transformers"]
    assert parts["vllm"]["vllm"] == 40 * GIB  # gpu_memory_utilization of it
    assert parts["openai"].keys() == parts["transformers"].keys() - {"transformers"}


def test_the_lab_s_load_is_what_its_configuration_says():
    (load,) = workload.loads(composed("experiment=lab"))
    assert (load.anchor, load.test, load.budget, load.writing) == (4000, 5000, 200, 3)
    assert load.train_rows == 1000 + 200 + 200
    assert load.requests == 3 * 200 * 8
    assert load.from_lab


def test_the_paper_s_loads_are_counted_from_their_data_sets(tmp_path: Path):
    file = tmp_path / "test.jsonl"
    file.write_text("x" * 712_000)
    cfg = composed("experiment=main_results", "scale=paper", f"tasks.toxicity.data.test.path={file}")
    loads = {load.name: load for load in workload.loads(cfg)}
    assert loads["toxicity"].test == 1000  # by the size of the file
    assert loads["toxicity"].cells == 12
    assert loads["survival"].test == 50
    assert loads["instruction"].answered
    assert not loads["toxicity"].from_lab


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
    assert workload.sae_tokens(composed("experiment=lab"), []) == 0
    cfg = composed("experiment=lab", "sae=train")
    assert workload.sae_tokens(cfg, workload.loads(cfg)) == 3200 * 256
    cfg = composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]", "sae=train_paper")
    loads = workload.loads(cfg)
    assert workload.sae_tokens(cfg, loads) == 3 * 178 * loads[0].anchor


def test_every_part_of_a_mixture_counts_with_what_is_drawn_of_it():
    cfg = composed("experiment=sae", "scale=paper", "sae=train_paper", "+corpus@data.parts=paper")
    parts = {key: values for key, values in workload.sources(cfg) if key.startswith("data.parts.")}
    assert len(parts) == 6
    drawn = parts["data.parts.ultrachat"]["sample"]
    less = composed(
        "experiment=sae", "scale=paper", "sae=train_paper", "+corpus@data.parts=paper", "data.parts.ultrachat.sample=1"
    )
    assert workload.given_texts(cfg) - workload.given_texts(less) == drawn - 1
    assert workload.sae_tokens(cfg, []) == 3 * 178 * workload.given_texts(cfg)


def test_every_mined_model_is_read_and_every_judgement_counted():
    (alone,) = workload.loads(composed("experiment=main_results", "scale=paper", "experiment.tasks=[toxicity]"))
    (three,) = workload.loads(composed("experiment=cross_model", "scale=paper"))
    asked = [needs.asked_of_reader([load], 65536, 320, 1024).requests for load in (alone, three)]
    assert asked == [65536, 3 * 65536]
    lab, paper = (
        workload.loads(composed("experiment=main_results", f"scale={scale}", "experiment.tasks=[instruction]"))
        for scale in ("lab", "paper")
    )
    assert needs.asked_of_judge(lab).requests == 2 * needs.asked_of_trained(lab).requests
    assert needs.asked_of_judge(paper) == needs.asked_of_trained(paper)
