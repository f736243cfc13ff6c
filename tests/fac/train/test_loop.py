"""fac.train.loop against transformers' Trainer: in float64, the same losses."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from fac.train.loop import optimise
from fac.train.settings import ClassifierSettings

ITEMS, WIDTH = 23, 5
SETTINGS = ClassifierSettings(
    epochs=3, learning_rate=0.3, batch_size=2, gradient_accumulation=2, weight_decay=0.2, warmup=0.3, schedule="cosine"
)


class Net(nn.Module):
    """With norm and biases, which do not decay."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.norm = nn.LayerNorm(WIDTH)
        self.score = nn.Linear(WIDTH, 2)
        self.double()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.score(self.norm(states))


def data() -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    drawn = torch.Generator().manual_seed(0)
    states = 3 * torch.randn(ITEMS, WIDTH, generator=drawn, dtype=torch.float64)
    return states, torch.arange(ITEMS) % 2, torch.randint(1, 50, (ITEMS,), generator=drawn).tolist()


def by_trainer(grouped: bool, folder: Any) -> tuple[list[float], Net]:
    (states, labels, lengths), net, losses = data(), Net(), list[float]()

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        picked = [row["place"] for row in rows]
        return {"states": states[picked], "labels": labels[picked]}

    class Plain(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
            loss = nn.functional.cross_entropy(model(inputs["states"]), inputs["labels"], reduction="sum")
            losses.append(loss.item() / int(num_items_in_batch))
            return loss / num_items_in_batch

    arguments = TrainingArguments(
        str(folder), num_train_epochs=3, learning_rate=0.3, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, weight_decay=0.2, warmup_steps=0.3, lr_scheduler_type="cosine", seed=5,
        use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
        train_sampling_strategy="group_by_length" if grouped else "random",
    )  # fmt: skip
    rows = [{"place": place, "input_ids": [0] * length} for place, length in enumerate(lengths)]
    trainer = Plain(net, arguments, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
    trainer.model_accepts_loss_kwargs = True
    trainer.train()
    return losses, net


@pytest.mark.parametrize("grouped", [False, True])
def test_order_batches_optimizer_decay_schedule_and_clipping_are_the_trainer_s(grouped: bool, tmp_path: Any):
    losses, expected = by_trainer(grouped, tmp_path)
    (states, labels, lengths), net, seen = data(), Net(), list[float]()

    def passes(batch: list[int]) -> Any:
        for first in range(0, len(batch), 2):
            part = batch[first : first + 2]
            loss = nn.functional.cross_entropy(net(states[part]), labels[part], reduction="sum") / len(batch)
            seen.append(loss.item())
            yield loss

    log = optimise(list(net.parameters()), passes, lengths, SETTINGS, seed=5, grouped=grouped)
    assert seen == pytest.approx(losses, abs=1e-12)
    assert len(log.losses) == log.steps == 3 * 6
    assert sum(log.losses) == pytest.approx(sum(losses), abs=1e-9)
    for one, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
