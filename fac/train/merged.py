"""What was trained with a head, as a language model: the trained layers under the head that the model wrote with."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

from fac.backbone import load_causal_lm
from fac.model_weights import quiet
from fac.train.sequence import SequenceModel


def save_as_causal_lm(trained: SequenceModel, folder: Path) -> None:
    """Write the model that `trained` was made of to `folder`, with its layers as they were trained.

    Adapters are merged into the weights; the language model's own head stays as it was, and the trained one is left
    out. Weights have the dtype in which the model writes on this machine.
    """
    model, tokenizer = load_causal_lm(trained.ref)
    network = trained.model.merge_and_unload() if isinstance(trained.model, PeftModel) else trained.model
    model.base_model.load_state_dict(network.base_model.state_dict())  # type: ignore[operator]
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
