"""Rows to preference pairs: a conversation and two replies to it, of which people (or a judge) chose one.

Layouts are those of UltraFeedback, HH-RLHF, LLMBar, RM-Bench, RewardBench and trl's preference data sets. How a
benchmark adds up its subsets is in `eval.reward`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fac.chat import Message, exchange
from fac.data.examples import LoadReport, check_characters, id_of, sift
from fac.data.files import data_files, fingerprint, read_rows
from fac.data.source import Malformed, Row, Source, listing
from fac.data.turns import string_of, turns_of
from fac.errors import FacError, closest

ECHO = 3  # words: replies that both begin with a prompt longer than this hold it
STYLES = 3  # RM-Bench's versions of a reply: 0 concise, 1 detailed and plain, 2 detailed in Markdown
LLMBAR = {  # folders of the LLMBar repository -> the subsets that RewardBench made of them
    "Natural": "llmbar-natural",
    "Neighbor": "llmbar-adver-neighbor",
    "GPTInst": "llmbar-adver-GPTInst",
    "GPTOut": "llmbar-adver-GPTOut",
    "Manual": "llmbar-adver-manual",
}


@dataclass(frozen=True)
class Pair:
    """Two replies to one conversation."""

    prompt: list[Message]  # ends with the user's turn
    chosen: str
    rejected: str
    subset: str = ""  # the part of a benchmark that the pair belongs to
    id: str = ""

    @property
    def chosen_chat(self) -> list[Message]:
        return [*self.prompt, {"role": "assistant", "content": self.chosen}]

    @property
    def rejected_chat(self) -> list[Message]:
        return [*self.prompt, {"role": "assistant", "content": self.rejected}]


def read_pairs(source: Source, layout: str = "auto", report: LoadReport | None = None) -> Iterator[Pair]:
    """Yield the preference pairs of `source`, in order; `report` is filled on the way.

    Layouts (`auto` recognises them by the columns of the first row):

    - `pair`: columns `chosen` and `rejected`, each a reply, a list of messages or an HH-RLHF transcript; `prompt`, a
      text or a list of messages, unless the two conversations hold it; `system`, a text that stands before them, and
      `subset` where there are such. UltraFeedback, HH-RLHF, RewardBench, trl's preference data sets, and what
      `write_pairs` writes. Where there is no `prompt` and the replies hold none, `question` (Orca), `instruction`
      (with `input`) or `input` is it. A `prompt` beside conversations that hold the user's turns is only looked for in
      them, blanks aside.
    - `llmbar`: `input`, `output_1`, `output_2`, and `label`, the number of the better one. The subset is the folder,
      called as in RewardBench.
    - `rm_bench`: `prompt`, and three `chosen` and three `rejected` versions of rising style, which make nine pairs.
      As in the repository's `compute_accuracy`, chosen i against rejected j is "hard" if i < j (the good reply is the
      plainer one), "normal" if i = j and "easy" if i > j; the subset is DOMAIN/hard and so on, where the domain is the
      row's `domain`, otherwise the name of the file ("chat" for chat_filtered.json).

    Turns of one speaker in a row are joined by a blank line, since chat templates refuse them. Ids as `read_examples`
    gives them; of a row's nine pairs they are ID/ij. `text`, `label` and `turns` of the source have no meaning here;
    `limit` counts pairs.

    Raises FacError for an unknown layout, for a malformed row (unless `on_error` is skip): conversations that differ
    before the last reply or do not hold the row's `prompt`, replies that are empty, the same, or begin with the prompt
    themselves; for unusable files, and if nothing is left.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise FacError(f"There is no layout {layout!r} of preference pairs{closest(layout, ['auto', *LAYOUTS])}.")
    chosen = None if layout == "auto" else LAYOUTS[layout]

    def convert(row: Row, values: dict[str, Any], position: int) -> list[Pair]:
        nonlocal chosen
        if chosen is None:
            chosen = LAYOUTS[_recognise(values, source)]
        pairs = chosen(values, row, id_of(values, position))
        for pair in pairs:
            check_characters("".join([*(turn["content"] for turn in pair.chosen_chat), pair.rejected, pair.id]))
        return pairs

    return sift(
        source, read_rows(source), convert, lambda pair: [pair.prompt, pair.chosen, pair.rejected], report, "pair"
    )


def pairs_fingerprint(source: Source) -> dict[str, Any]:
    """`fingerprint`, with the names of files and folders that `llmbar` and `rm_bench` call subsets by."""
    paths = [] if source.on_hub else data_files(source)
    return {**fingerprint(source), "subsets": [[LLMBAR.get(path.parent.name, ""), _domain(path)] for path in paths]}


def write_pairs(pairs: Iterable[Pair], file: Path) -> None:
    """Write `pairs` as JSON lines, which `load_pairs` reads exactly and `read_pairs` reads as the layout `pair`."""
    with file.open("w", encoding="utf-8") as stream:
        for pair in pairs:
            stream.write(json.dumps(asdict(pair), ensure_ascii=False) + "\n")


def load_pairs(file: Path) -> list[Pair]:
    """What `write_pairs` wrote."""
    with file.open(encoding="utf-8") as stream:
        return [Pair(**json.loads(line)) for line in stream]


# ---------------------------------------------------------------------------------------------------------- layouts


def _recognise(values: dict[str, Any], source: Source) -> str:
    """The layout of a source whose first well-formed row is `values`."""
    if {"input", "output_1", "output_2", "label"} <= values.keys():
        return "llmbar"
    if {"chosen", "rejected"} <= values.keys():
        sides = values["chosen"], values["rejected"]
        return "rm_bench" if all(_are_texts(side) for side in sides) else "pair"
    raise FacError(
        f"The columns of {source} ({listing(values)}) are of no known layout of preference pairs: name them "
        f"prompt, chosen and rejected."
    )


def _of_pair(values: dict[str, Any], _: Row, identity: str) -> list[Pair]:
    sides = [_turns(_column(values, side), side, "assistant") for side in ("chosen", "rejected")]
    told = string_of(values.get("system"), "system")
    system: list[Message] = [{"role": "system", "content": told}] if told.strip() else []
    held = next((side[:-1] for side in sides if _asks(side)), None)
    if held is None:
        prompt = before = _prompt(values)
        if len(_words(prompt[-1:]).split()) > ECHO and all(_begins(side, prompt) for side in sides):
            raise Malformed("chosen and rejected begin with the prompt: cut it from them, they are to be replies")
    else:  # the conversation is there already: a prompt beside it must not be put before it again
        prompt, before = _turns(values.get("prompt"), "prompt", "user"), held
        system = system or [turn for turn in prompt[:1] if turn["role"] == "system"]
    chats = [_under(system, side if _asks(side) else _before(before, side)) for side in sides]
    pair = _pair(*chats, subset=string_of(values.get("subset"), "subset"), identity=identity)
    if _words(prompt) not in _words(pair.prompt):
        raise Malformed("the prompt stands nowhere in the conversations of chosen and rejected")
    return [pair]


def _prompt(values: Mapping[str, Any]) -> list[Message]:
    """What stands before replies that are nothing but replies."""
    for name in ("prompt", "question"):
        if name in values:
            return _turns(values[name], "prompt", "user")
    parts = [string_of(values[name], name) for name in ("instruction", "input") if name in values]
    if not parts:
        raise Malformed(
            f"there is no turn of the user before the replies: name its column prompt (found: {listing(values)})"
        )
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part.strip())}]


def _before(prompt: list[Message], replies: list[Message]) -> list[Message]:
    """The prompt and what follows it, with a system turn that stands before the replies first."""
    count = 1 if replies and replies[0]["role"] == "system" else 0
    return [*replies[:count], *prompt, *replies[count:]]


def _under(system: list[Message], chat: list[Message]) -> list[Message]:
    """The conversation with its system turn. Raises Malformed if it has another one."""
    own = [turn for turn in chat if turn["role"] == "system"]
    if system and own and _words(own) != _words(system):
        raise Malformed("the conversations have another system turn than the row")
    return chat if own else [*system, *chat]


def _begins(reply: list[Message], prompt: list[Message]) -> bool:
    return _words(reply[:1]).startswith(_words(prompt[-1:]))


def _asks(chat: list[Message]) -> bool:
    return any(turn["role"] == "user" for turn in chat)


def _words(chat: list[Message]) -> str:
    """All that is said, for comparisons that are blind to line breaks and blanks."""
    return " ".join(" ".join(turn["content"] for turn in chat).split())


def _of_llmbar(values: dict[str, Any], row: Row, identity: str) -> list[Pair]:
    label = str(values.get("label"))
    if label not in ("1", "2"):
        raise Malformed(f"the label is {listing([label])}, neither 1 nor 2")
    prompt, first, second = (string_of(_column(values, name), name) for name in ("input", "output_1", "output_2"))
    subset = string_of(values.get("subset"), "subset") or LLMBAR.get(Path(row.file).parent.name, "")
    chats = [exchange(prompt, first), exchange(prompt, second)]
    return [_pair(*(chats if label == "1" else reversed(chats)), subset=subset, identity=identity)]


def _of_rm_bench(values: dict[str, Any], row: Row, identity: str) -> list[Pair]:
    prompt = string_of(_column(values, "prompt"), "prompt")
    chosen, rejected = (_column(values, side) for side in ("chosen", "rejected"))
    if not all(_are_texts(side) and len(side) == STYLES for side in (chosen, rejected)):
        raise Malformed(f"chosen and rejected are not {STYLES} texts each")
    domain = string_of(values.get("domain"), "domain") or _domain(Path(row.file))
    pairs = []
    for i, j in itertools.product(range(STYLES), repeat=2):
        level = "hard" if i < j else "normal" if i == j else "easy"
        chats = exchange(prompt, chosen[i]), exchange(prompt, rejected[j])
        pairs.append(_pair(*chats, subset=f"{domain}/{level}", identity=f"{identity}/{i}{j}"))
    return pairs


def _domain(file: Path) -> str:
    """The domain of RM-Bench that a file is called after."""
    return file.name.partition(".")[0].removesuffix("_filtered")


LAYOUTS: dict[str, Callable[[dict[str, Any], Row, str], list[Pair]]] = {
    "pair": _of_pair,
    "llmbar": _of_llmbar,
    "rm_bench": _of_rm_bench,
}


def _pair(chosen: list[Message], rejected: list[Message], subset: str, identity: str) -> Pair:
    """Two conversations that differ in their last turn as a pair. Raises Malformed if they are none."""
    chosen, rejected = _joined(chosen, "chosen"), _joined(rejected, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise Malformed("chosen and rejected differ before the last reply")
    prompt = chosen[:-1]
    if not prompt or prompt[-1]["role"] != "user":
        raise Malformed("there is no turn of the user before the replies")
    replies = [chat[-1]["content"] for chat in (chosen, rejected)]
    if replies[0].strip() == replies[1].strip():
        raise Malformed("chosen and rejected are the same")
    return Pair(prompt, *replies, subset=subset, id=identity)


def _joined(chat: list[Message], side: str) -> list[Message]:
    """A conversation without two turns of one speaker in a row. Raises Malformed unless it ends with a reply."""
    if not chat or chat[-1]["role"] != "assistant":
        raise Malformed(f"{side} does not end with a reply of the assistant")
    joined: list[Message] = []
    for turn in chat:
        if not turn["content"].strip():
            raise Malformed(f"a turn of the {turn['role']} in {side} is empty")
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = {**turn, "content": f"{joined[-1]['content']}\n\n{turn['content']}"}
        else:
            joined.append(turn)
    return joined


def _turns(value: Any, name: str, role: str) -> list[Message]:
    """A list of messages, a transcript, or a plain text said by `role`."""
    turns = turns_of(value, name)
    return [{"role": role, "content": string_of(value, name)}] if turns is None else turns


def _column(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise Malformed(f"there is no column {name!r} (found: {listing(values)})")
    return values[name]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
