"""Messages to token ids: the ONLY place where a chat becomes tokens.

It uses the tokenizer's own chat template, and finds which tokens of the rendering are the writer's words. Every engine,
trainer and evaluator gets ids from here, never a rendered string, so a second BOS cannot appear (the released code had
one) and no constant like "skip 31 tokens" is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from fac.errors import FacError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": "user" | "assistant" | "system", "content": ...}

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# What the paper trains base models with (App. J): LLaMA-Factory's `template alpaca`, word for word.
ALPACA_TEMPLATE = (
    "{{ bos_token }}{% if messages and messages[0]['role'] != 'system' %}{{ 'Below is an instruction that describes a "
    "task. Write a response that appropriately completes the request.\n\n' }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '### Instruction:\n' + m['content'] + '\n\n### Response:\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token + '\n\n' }}"
    "{% else %}{{ m['content'] + '\n\n' }}{% endif %}{% endfor %}"
)
_MARK = re.compile(r"\[/?[A-Z_]{2,}\]|<{1,2}[/|]?[^\s<>]+>{1,2}|#{2,} [A-Z][\w ]*:")
# "Today" of templates that write the date, on every day: what such models take it for where they are not told one.
DATE = datetime(2024, 7, 26)
TEMPLATES = {"plain": PLAIN_TEMPLATE, "alpaca": ALPACA_TEMPLATE}  # for tokenizers without a template of their own


class Encoded(NamedTuple):
    """Token ids of one chat, and which of them are content."""

    ids: list[int]
    content: list[bool]  # same length; False for template, role headers and special tokens


class Lesson(NamedTuple):
    """Token ids of one chat, and which of them a model is trained to write."""

    ids: list[int]
    trained: list[bool]  # same length; True for what follows a generation prompt, with the end-of-turn token


class Opening(NamedTuple):
    """A user's turn that is left open: what a model writes behind it is what users ask (Magpie, arXiv 2406.08464)."""

    ids: list[int]
    stops: frozenset[int]  # special tokens that the template writes behind a user's words
    mark: str  # the text that it writes there, if it has no special token; else ""


class _Rendering(NamedTuple):
    """A chat as text: where its contents stand, and the literal text of the template around them."""

    text: str
    spans: list[tuple[int, int]]  # of each message's content, in characters
    pieces: list[str]  # one more than messages
    roles: tuple[str, ...]


def as_chat(text: str) -> list[Message]:
    """One user turn: how every plain text of a data set is read (paper App. J)."""
    return [{"role": "user", "content": text}]


def exchange(user: str, assistant: str) -> list[Message]:
    """A user turn and the reply to it."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def check_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise FacError unless the tokenizer has a chat template."""
    if not tokenizer.chat_template:
        raise FacError(
            f"The tokenizer of {name} has no chat template: use its instruct version, "
            f"or set model.chat_template=plain to write chats as plain 'role: text' lines."
        )


def is_dated(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes today's date; it is rendered as on `DATE`."""
    return "strftime_now" in str(tokenizer.chat_template)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    max_tokens: int | None = None,
) -> Encoded:
    """Render `messages` with the tokenizer's own template and mark the content tokens.

    Content is what the messages say; template prefix, role headers and special tokens are not. (The paper pools from
    t0, the first token behind the prefix, to the end of the text: eq. 30. That includes the token that ends the turn,
    which says nothing and is left out here.) `continue_final_message` leaves the last turn open: nothing follows its
    words. `max_tokens` cuts on the right. Blanks around a content are dropped, also where the tokenizer's own
    `apply_chat_template` would keep them (Qwen2, Mistral). What would forge a role inside a text is broken by a space:
    the spelling of a special token, and tags and `### Headings:` that the template itself writes. Roles that a template
    tells by plain words alone ("user: ") can still be imitated. A template that writes today's date writes `DATE`.
    Raises FacError if the template drops or rewrites what the messages say.
    """
    rendering = _render(tokenizer, messages, add_generation_prompt, continue_final_message)
    (encoded,) = _encoded(tokenizer, [rendering])
    return Encoded(encoded.ids[:max_tokens], encoded.content[:max_tokens])


def encode_many(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Sequence[Message]]) -> list[Encoded]:
    """`encode` of each chat, in one call of the tokenizer. Raises FacError as it does."""
    return _encoded(tokenizer, [_render(tokenizer, messages) for messages in chats])


def _encoded(tokenizer: PreTrainedTokenizerBase, renderings: Sequence[_Rendering]) -> list[Encoded]:
    """Ids, and which of them are content: they reach into a message and are not special."""
    special = _special_tokens(tokenizer)
    said = [(r.text, [span for span in r.spans if span[1] > span[0]]) for r in renderings]
    return [
        Encoded(ids, [within and token not in special for token, within in zip(ids, inside, strict=True)])
        for ids, inside in _tokens(tokenizer, said)
    ]


def open_user_turn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message] = (), *, bare: bool = True
) -> Opening:
    """Ids of `messages` and of what the tokenizer's own template writes before a user's words, up to the first of them.

    `bare` leaves out what the template says before a first turn (a system turn of its own, with dates), where its later
    turns show what opens one; with `messages` the template decides. Blanks at the end are dropped, since they belong to
    the token of the word behind them. Raises FacError if the template refuses the roles.
    """
    roles = (*(m["role"] for m in messages), "user")
    template = str(tokenizer.chat_template)
    *pieces, closing = _pieces(tokenizer, template, roles, True)
    text = "".join(p + _defuse(tokenizer, m["content"]).strip() for p, m in zip(pieces, messages, strict=False))
    text += _bare(tokenizer, template, pieces[0]) if bare and not messages else pieces[-1]
    special = {
        token: spelled for token, spelled in _special_tokens(tokenizer).items() if spelled and spelled in closing
    }
    ((ids, _),) = _tokens(tokenizer, [(text.rstrip(" "), [])])
    return Opening(ids, frozenset(special), "" if special else closing.strip(" "))


def _bare(tokenizer: PreTrainedTokenizerBase, template: str, first: str) -> str:
    """What opens a user's turn: `first` without what stands before the first turn only, but for BOS."""
    with suppress(FacError):  # not every template takes several turns
        closed = _pieces(tokenizer, template, ("user", "assistant"), False)[-1]
        opening = _pieces(tokenizer, template, ("user", "assistant", "user"), False)[2].removeprefix(closed)
        if opening.strip() and first.endswith(opening):
            bos = str(tokenizer.bos_token or "")
            return (bos if bos and first.startswith(bos) else "") + opening
    return first


def encode_lesson(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, max_tokens: int | None = None
) -> Lesson:
    """`encode`'s ids of a chat with replies, and the mask of what supervised fine-tuning trains on.

    Trained is what a model has to write itself: all that stands between a generation prompt and the end of the
    assistant's turn, with the end-of-turn token and nothing behind it. Works for templates without {% generation %}.
    Raises FacError if the template ends the assistant's turns with no special token: a model would never learn to stop.
    """
    rendering = _render(tokenizer, messages)
    spans = []
    for i, role in enumerate(rendering.roles):
        if role == "assistant":
            # The opening counts from where the template, asked for a reply, would have left off.
            asked = _pieces(tokenizer, str(tokenizer.chat_template), rendering.roles[:i], True)[-1]
            opening, closing = rendering.pieces[i], rendering.pieces[i + 1]
            given = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(opening, asked, strict=False)))
            end = next((t for t in _special_tokens(tokenizer).values() if closing.lstrip().startswith(t)), None)
            if end is None:
                raise FacError(
                    f"The chat template of {tokenizer.name_or_path} writes no special token after an assistant's turn, "
                    f"so a model would not learn to stop: set chat_template=alpaca, or mend its chat_template.jinja."
                )
            start, stop = rendering.spans[i]
            spans.append((start - len(opening) + given, stop + closing.index(end) + len(end)))
    ((ids, trained),) = _tokens(tokenizer, [(rendering.text, spans)])
    return Lesson(ids[:max_tokens], trained[:max_tokens])


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    continue_final_message: bool = False,
) -> str:
    """The text that `encode` makes ids of, for engines that take nothing else; they must add no special token."""
    return _render(tokenizer, messages, add_generation_prompt, continue_final_message).text


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
) -> _Rendering:
    roles = tuple(m["role"] for m in messages)
    pieces = _pieces(tokenizer, str(tokenizer.chat_template), roles, add_generation_prompt)
    if continue_final_message:
        pieces = [*pieces[:-1], ""]
    text, spans = pieces[0], []
    for message, literal in zip(messages, pieces[1:], strict=True):
        content = _defuse(tokenizer, message["content"]).strip()
        spans.append((len(text), len(text) + len(content)))
        text += content + literal
    return _Rendering(text, spans, pieces, roles)


def _tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]]
) -> Iterator[tuple[list[int], list[bool]]]:
    """Ids of each rendered chat, and which of them reach into one of its spans (in characters, in order)."""
    if not texts:
        return
    batch = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    twice = [tokenizer.bos_token_id] * 2
    for (_, spans), ids, offsets in zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True):
        if tokenizer.bos_token_id is not None and ids[:2] == twice:
            raise FacError(
                f"The chat template of {tokenizer.name_or_path} writes BOS twice: mend its chat_template.jinja."
            )
        inside = []
        at = 0
        for start, stop in offsets:
            while at < len(spans) and spans[at][1] <= start:
                at += 1
            inside.append(at < len(spans) and stop > spans[at][0])
        yield ids, inside


def _defuse(tokenizer: PreTrainedTokenizerBase, content: str) -> str:
    """Break what would forge a role inside a text with a space after its first character."""
    for mark in (*_special_tokens(tokenizer).values(), *_role_marks(tokenizer, str(tokenizer.chat_template))):
        if mark in content:
            content = content.replace(mark, mark[0] + " " + mark[1:])
    return content


@lru_cache(maxsize=16)
def _role_marks(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """Tags and headings that the template writes around turns, special tokens or not ([INST] of Mistral v0.2)."""
    marks: set[str] = set()
    for roles in (("user",), ("user", "assistant", "user"), ("system", "user")):
        with suppress(FacError):  # not every template takes a system turn
            marks.update(_MARK.findall(" ".join(_pieces(tokenizer, template, roles, roles[-1] == "user"))))
    return tuple(sorted(marks - {"<think>", "</think>"}))  # these stand within an assistant's own words


@lru_cache(maxsize=16)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Every special token by id: those named in the configuration and those that only tokenizer.json marks special."""
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return named | {token: entry.content for token, entry in added.items() if entry.special}


@lru_cache(maxsize=256)
def _pieces(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    roles: tuple[str, ...],
    add_generation_prompt: bool,
) -> list[str]:
    """The literal text of the template around the contents of a chat with these roles; len(roles) + 1 pieces.

    Found by rendering marks no real text contains. (`template` is an argument so that a change of template is seen.)
    """
    marks = [f"\u2e28{i}\u2e29" for i in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    render: Any = tokenizer.apply_chat_template
    try:
        rest = render(messages, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=DATE.strftime)
    except Exception as error:  # a template raises what it likes (jinja2.TemplateError and others)
        raise FacError(
            f"The chat template of {tokenizer.name_or_path} refuses the roles {list(roles)}: {error}."
        ) from None
    pieces = []
    for role, mark in zip(roles, marks, strict=True):
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            raise FacError(
                f"The chat template of {tokenizer.name_or_path} does not write the {role} turn exactly once, "
                f"so its content cannot be told from the template: use another chat_template.jinja."
            )
        pieces.append(before)
    return [*pieces, rest]
