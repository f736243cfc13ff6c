"""A steered model in lm-eval: `fac-steered`, with a vector of `fac.train.steering` added at every position.

    python -m eval.steered run --model fac-steered --model_args pretrained=DIR,vector=DIR,multiplier=1 \
        --apply_chat_template --include_path eval/tasks --tasks caa_sycophancy --metadata '{"caa": "DIR"}'

which is lm-eval's own command line after this model is registered. Without `vector` it is the model alone. (lm-eval has
a `steered` of its own; it reads other files, and finds no letter after "(" where a tokenizer has a token for "(A".)
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from eval.harness import rendered
from fac.backbone import load_config
from fac.model_ref import ModelRef
from fac.model_weights import check_weights
from fac.train.steering import SteeringVector, steered

_Base: Any = HFLM  # its decorator hides its type


@register_model("fac-steered")
class SteeredLM(_Base):
    """lm-eval's Hugging Face model, steered, its chats rendered by `fac.chat`.

    `vector` is a folder that `SteeringVector.save` wrote; the other arguments are those of lm-eval's `hf`. Raises
    FacError if the weights are not those of the model (`fac.model_weights`), or the vector does not fit it.
    """

    def __init__(self, pretrained: Any, vector: str | None = None, multiplier: float = 1.0, **options: Any) -> None:
        if isinstance(pretrained, str):
            ref = ModelRef(pretrained, options.get("revision"))
            check_weights(AutoModelForCausalLM, ref, load_config(ref))
            if not ref.is_local:
                options["revision"] = ref.commit
        super().__init__(pretrained=pretrained, **options)
        self._vector = None if vector is None else SteeringVector.load(Path(vector).expanduser())
        self._multiplier = float(multiplier)
        with self._steer():  # a vector that does not fit is said at once
            pass

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return rendered(self.tokenizer, chat_history, add_generation_prompt)

    def _steer(self) -> Any:
        return nullcontext() if self._vector is None else steered(self.model, self._vector, self._multiplier)

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        with self._steer():
            return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
        with self._steer():
            return super()._model_generate(*args, **kwargs)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """A bare letter after an open turn is its own token; everything else as lm-eval does it."""
        letter = self.tokenizer.get_vocab().get(continuation)
        if len(continuation) == 1 and letter is not None:
            return self.tok_encode(context), [letter]
        return super()._encode_pair(context, continuation)


if __name__ == "__main__":
    cli_evaluate()
