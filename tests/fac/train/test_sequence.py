"""fac.train.sequence: what its users' tests (test_classifier, test_reward) do not see."""

import pytest
from support.models import Family, tiny_model
from transformers import AutoTokenizer

from fac.errors import FacError
from fac.train.sequence import pad_id


def test_the_end_of_a_chat_is_scored_even_if_the_tokenizer_pads_with_it(tmp_path):
    """Llama and Mistral are released with no padding token; many set EOS for it."""
    pads: dict[Family, str] = {"llama": "<|finetune_right_pad_id|>", "mistral": "<pad>", "qwen2": "<|endoftext|>"}
    for family, expected in pads.items():
        tokenizer = AutoTokenizer.from_pretrained(tiny_model(tmp_path / family, family))
        assert pad_id(tokenizer) == tokenizer.convert_tokens_to_ids(expected)
        if family != "qwen2":
            for pad in (None, tokenizer.eos_token):
                tokenizer.pad_token = pad
                assert pad_id(tokenizer) == tokenizer.convert_tokens_to_ids(expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "qwen2")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.unk_token = None
    with pytest.raises(FacError, match="pad_token"):
        pad_id(tokenizer)
