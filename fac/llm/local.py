"""What the engines with a tokenizer of their own share: drawn ids become a reply."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from fac.llm.base import Completion, marks_thought, opens_thought

OPENING = 16  # tokens at the end of a prompt in which a template may open a thought


def completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], drawn: Sequence[int], stops: Collection[int]
) -> Completion:
    """The reply to a prompt: the ids drawn up to the first stop, as text without special tokens.

    Marks of thoughts are kept although some tokenizers call them special, and a thought that the template opened in
    the prompt is opened in the reply: else it would be taken for what the model says.
    """
    length = next((i for i, token in enumerate(drawn) if token in stops), len(drawn))
    special = set(tokenizer.all_special_ids)
    marks = {token for token in special if marks_thought(str(tokenizer.convert_ids_to_tokens(token)))}
    text = tokenizer.decode([token for token in drawn[:length] if token not in special - marks])
    opened = "<think>\n" if opens_thought(str(tokenizer.decode(list(prompt[-OPENING:])))) else ""
    return Completion(opened + str(text).strip(), len(prompt), length, length < len(drawn))
