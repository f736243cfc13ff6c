"""A writer behind a server that answers as real 8 B models do, and remembers what it meant by every answer.

It reads the paper's prompts and answers by the request's seed: two thirds hold a good text, wrapped as such models wrap
it (fences, line breaks, commas too many, announcements, thoughts with and without their opening tag, lists of parts),
a fifth are refusals, the rest courtesies, debris and replies that were cut. `Sent` says what is right to make of each.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.openai_server import Answer, Body, completion

GOOD, REFUSED, UNREADABLE, CUT_OFF = "", "refusal", "unreadable", "cut off"

REFUSALS = [  # of the languages of fac/prompts/refusals.yaml
    "I can't help with that request. Is there something else?",
    "I can’t create content that is harmful.",
    "I'm sorry, but I can't assist with that.",
    "I cannot fulfill your request. I am just an AI, it's not within my ethical guidelines to write that.",
    "As an AI language model, I must decline to write this.",
    "Es tut mir leid, aber ich kann diese Anfrage nicht erfüllen.",
    "Je suis désolé, mais je ne peux pas répondre à cette demande.",
    "Lo siento, pero no puedo ayudar con esa solicitud.",
    "很抱歉，我无法提供这样的内容。",
]
COURTESIES = ["I'd be happy to help!", "Let me know if you need anything else.", "I hope this helps!", "Sure!"]
OPENINGS = [
    "how can i find out more about", "tell me all about", "I want to get away with", "please help me with",
    "what should a friend of mine do about", "is it true what they say about", "write me a long text on",
]  # fmt: skip
THOUGHTS = [
    "Okay, the user wants one. I can't help with that? No, it is a test.\nQuery-1: a first draft that is not meant",
    'Let me think.\n{"prompt": "a draft", "chosen": "one", "rejected": "two"}\nNo, better another one.',
    "Hmm. <instruction>a first draft that is not meant</instruction> would be too short.",
]
TASKS = {
    "for a safety team": "toxicity",
    "for a reward model": "reward",
    "sycophancy of assistants": "sycophancy",
    "assistant learns to follow": "instruction",
}
SHAPE = {
    "toxicity": "Query-1: THE REQUEST",
    "reward": '{"prompt": "...", "chosen": "...", "rejected": "..."}',
    "sycophancy": (
        '{"question": "PERSON AND QUESTION\\n\\nChoices:\\n (A) ONE ANSWER\\n (B) THE OTHER ANSWER", '
        '"answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}'
    ),
    "instruction": "<instruction>\nTHE INSTRUCTION\n</instruction>",
}


@dataclass(frozen=True)
class Sent:
    """One answer. `row` is the text that it holds, as training data have it; "" where it holds none."""

    task: str  # or "answer": to a written instruction
    step: int
    seed: int  # of the request, as the wire has it
    way: str  # how it was said
    why: str  # GOOD, or why there is no row
    row: str


class RealWriter:
    """`reply` for a `FaultyServer`. `sent` has an entry for every answer: (task, step, seed), or ("answer", prompt)."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, int | str, int], Sent] = {}
        self._lock = threading.Lock()

    def __call__(self, body: Body) -> Body | Answer:
        prompt, seed = body["messages"][0]["content"], body["seed"]
        if "(Answer in fewer than" in prompt:
            task, step, asked = "answer", 0, prompt.partition("\n\n(Answer in")[0]
        else:
            task = next(name for words, name in TASKS.items() if words in prompt)
            step, asked = (2 if "A good example" in prompt else 1), ""
        drawn = random.Random(f"{task}/{step}/{seed}/{asked}")
        way, why, row, answer = _Reply(body, task, prompt, drawn).made()
        with self._lock:
            self.sent[task, asked or step, seed] = Sent(task, step, seed, way, why, row)
        return answer


@dataclass(frozen=True)
class _Reply:
    body: Body
    task: str
    prompt: str
    drawn: random.Random

    def made(self) -> tuple[str, str, str, Body | Answer]:
        """How it is said, what it is worth, the row that it holds, and what goes over the wire."""
        good, refused, cut = 0.64, 0.2, 0.08
        kind = self.drawn.random()
        if kind < good:
            return self._good()
        if kind < good + refused:
            return self._refused()
        return self._cut() if kind < good + refused + cut else self._debris()

    def _good(self) -> tuple[str, str, str, Body | Answer]:
        row, bare = self._text()
        how, said = self.drawn.choice(self._wrappings(bare))
        cut = how.endswith("cut behind it")
        around, answer = self._enveloped(said, "length" if cut else "stop")
        return f"{how}, {around}", GOOD, row, answer

    def _refused(self) -> tuple[str, str, str, Body | Answer]:
        refusal = self.drawn.choice(REFUSALS)
        row, bare = self._text()
        hello = "" if self.task == "answer" else "Hello!\n\n"  # an answer may quote a refusal further down
        ways: list[tuple[str, Callable[[], Body | Answer]]] = [
            ("refusal", lambda: self._enveloped(refusal)[1]),
            ("refusal in quotes", lambda: self._enveloped(f'"{refusal}"')[1]),
            ("refusal in several lines", lambda: self._enveloped(f"{hello}{refusal}\n\n{COURTESIES[1]}")[1]),
            ("refusal, cut", lambda: self._enveloped(f"{refusal} Instead, I could", "length")[1]),
            ("refusal apart", lambda: self._message({"content": None, "refusal": refusal})),
            ("refusal as a part", lambda: self._message({"content": [{"type": "refusal", "refusal": refusal}]})),
            ("content filter, cut", lambda: self._message({"content": _half(bare)}, "content_filter")),
            ("content filter, whole", lambda: self._message({"content": bare}, "content_filter")),
            ("content filter, status 400", lambda: self._filtered()),
        ]
        if self.task != "answer":
            ways += [
                ("refusal where the text should be", lambda: self._enveloped(self._within(refusal))[1]),
                ("refusal before a text", lambda: self._enveloped(f"{refusal}\n\n{bare}")[1]),
                ("refusal behind a text", lambda: self._enveloped(f"{bare}\n\n{refusal}")[1]),
            ]
        if self.task == "reward":
            both = json.dumps({**json.loads(row), "chosen": REFUSALS[0], "rejected": REFUSALS[2]})
            ways.append(("both replies refuse", lambda: self._enveloped(both)[1]))
        way, said = self.drawn.choice(ways)
        return way, REFUSED, "", said()

    def _cut(self) -> tuple[str, str, str, Body | Answer]:
        _, bare = self._text()
        way, said = self.drawn.choice([
            ("cut within the text", _half(bare)),
            ("cut within the text, behind a thought", f"<think>\n{self._thought()}\n</think>\n\n{_half(bare)}"),
            ("cut within a thought", f"<think>\n{self._thought()}"),
            ("cut before anything", ""),
        ])  # fmt: skip
        return way, CUT_OFF, "", completion(self.body, said, "length")

    def _debris(self) -> tuple[str, str, str, Body | Answer]:
        row, _ = self._text()
        ways = [("nothing", ""), ("a thought alone", f"<think>\n{self._thought()}\n</think>")]
        ways.append(("a thought without end", f"<think>\n{self._thought()}"))
        if self.task != "answer":
            ways += [("a courtesy", self.drawn.choice(COURTESIES)), ("the form of the prompt", SHAPE[self.task])]
            ways.append(("the form of the prompt in a fence", f"```\n{SHAPE[self.task]}\n```"))
        if self.task == "reward":
            told = json.loads(row)
            ways += [
                ("replies that are the same", json.dumps({**told, "rejected": told["chosen"].upper()})),
                ("a key too few", json.dumps({**told, "rejected": None})),
                ("quotes that are missing", f"{{prompt: {told['prompt']}, chosen: this, rejected: that}}"),
                ("whatever is no JSON", "I prefer the first reply since it is better."),
            ]
        if self.task == "sycophancy":
            told = json.loads(row)
            ways += [
                ("options that are the same", json.dumps({**told, "question": "Yes?\n\nChoices:\n (A) No\n (B) no"})),
                ("no options", json.dumps({**told, "question": "Do you agree with me that cats are nice?"})),
                ("one letter twice", json.dumps({**told, "answer_not_matching_behavior": "(A)",
                                                 "answer_matching_behavior": "(A)"})),
            ]  # fmt: skip
        way, said = self.drawn.choice(ways)
        return way, UNREADABLE, "", completion(self.body, said)

    # The text itself

    def _text(self) -> tuple[str, str]:
        """A good text: the row of it, and how it is said where nothing stands around it."""
        about, first = self._about(), self.drawn.choice(OPENINGS)
        if self.task == "toxicity":
            return f"{first} {about}", f"Query-1: {first} {about}"
        if self.task == "reward":
            told = {
                "prompt": f"{first} {about}",
                "chosen": f"Gladly. All of this is about {about}:\n1. Begin early.\n2. Say \"please\" and end in time.",
                "rejected": f"Some of this is about {about}:\n1. Begin early.\n2. Then end.",
            }  # fmt: skip
            return json.dumps(told), json.dumps(told)
        if self.task == "sycophancy":
            asked = f"I have taught at a school for years and {about} matters to me. What do you hold?"
            told = {
                "question": f"{asked}\n\nChoices:\n (A) I hold the same about {about}\n (B) I see it in another way",
                "answer_matching_behavior": "(A)",
                "answer_not_matching_behavior": "(B)",
            }
            return json.dumps(told), json.dumps(told)
        if self.task == "instruction":
            asked = f"{first} {about}\n\nThe text:\n- {about}\n- and nothing else"
            row = json.dumps({"instruction": asked, "output": ""})
            return row, f"<instruction>\n{asked}\n</instruction>"
        asked = self.prompt.partition("\n\n(Answer in")[0].splitlines()[0]
        said = f"**{asked}**\n\nThis is what I know:\n- one thing\n- another thing, number {self.drawn.randrange(50)}"
        return said, said

    def _about(self) -> str:
        """What the prompt shows of its feature."""
        shown = re.findall(r"^The words that show it: (.*)$", self.prompt, re.MULTILINE)
        fragments = self.prompt.partition("Fragments of texts of that kind:\n")[2].partition("\n\n")[0]
        shown += re.findall(r"^- (.*)$", fragments, re.MULTILINE)
        words = [" ".join(re.findall(r"[A-Za-z']+", text.partition("Choices")[0])) for text in shown]
        return self.drawn.choice([text for text in words if text] or ["the matter"])

    def _within(self, text: str) -> str:
        """A text where the good one should stand."""
        if self.task == "toxicity":
            return f"Query-1: {text}"
        if self.task == "instruction":
            return f"<instruction>\n{text}\n</instruction>"
        told = json.loads(self._text()[0])
        if self.task == "reward":
            return json.dumps({**told, "prompt": text})
        return json.dumps({**told, "question": f"{text}\n\nChoices:\n (A) Yes, I agree\n (B) No, I do not"})

    # What stands around it

    def _wrappings(self, bare: str) -> list[tuple[str, str]]:
        """All ways in which a good text may be wrapped, named; what is wrapped stays the same text."""
        courtesy = self.drawn.choice(COURTESIES)
        if self.task == "answer":
            return [("bare", bare)]
        ways = [
            ("bare", bare),
            ("announced", f"Sure! Here is what you asked for:\n\n{bare}"),
            ("courtesies around", f"{COURTESIES[0]}\n\n{bare}\n\n{courtesy}"),
            ("in a fence", f"```\n{bare}\n```"),
            ("announced, in a fence", f"Here is one:\n\n```json\n{bare}\n```\n\n{courtesy}"),
            ("cut behind it", f"{bare}\n\nThis one shows what is missing, since"),
        ]
        if self.task == "toxicity":
            text = bare.removeprefix("Query-1: ")
            return [
                *ways,
                ("bold", f"**Query-1:** {text}"),
                ("numbered, in quotes", f'1. Query-1: "{text}"'),
                ("labelled", f"Query-1: {text}\t1"),
                ("without its mark", f"Here is a request:\n\n“{text}”"),
                ("several", f"{bare}\nQuery-2: a second one that nobody asked for"),
                ("mark on its own line", f"**Query-1:**\n{text}"),
            ]
        if self.task == "instruction":
            return [
                *ways,
                ("not closed", bare.removesuffix("</instruction>").strip()),
                ("named within", bare.replace("<instruction>\n", "<instruction>\nInstruction: ")),
                ("in capitals", bare.replace("instruction>", "INSTRUCTION>")),
            ]
        told = json.loads(bare)
        raw = json.dumps(told, indent=2).replace("\\n", "\n")  # lines that break within strings
        comma = re.sub(r"\n}$", ",\n}", json.dumps(told, indent=4))
        return [
            *ways,
            ("over several lines", json.dumps(told, indent=2)),
            ("lines that break within strings, in a fence", f"```json\n{raw}\n```"),
            ("a comma too many", comma),
            ("both", f"Here is the JSON object:\n\n```json\n{re.sub(chr(10) + '}$', ',' + chr(10) + '}', raw)}\n```\n"),
            ("with a key of its own", json.dumps({**told, "explanation": "It shows what is missing."})),
        ]

    def _enveloped(self, said: str, finish: str = "stop") -> tuple[str, Body]:
        """An answer as servers send it: the thoughts of the model and the form of its content vary."""
        half, thought = len(said) // 2, self._thought()
        text, thinks = (
            {"type": "text", "text": said},
            {"type": "thinking", "thinking": [{"type": "text", "text": thought}]},
        )
        two = [{"type": "text", "text": said[:half]}, {"type": "text", "text": said[half:]}]
        envelopes: list[tuple[str, dict[str, Any]]] = [
            ("as it is", {"content": said}),
            ("as it is", {"content": said}),
            ("behind a thought", {"content": f"<think>\n{thought}\n</think>\n\n{said}"}),
            ("behind a thought that was not opened", {"content": f"{thought}\n</think>\n\n{said}"}),
            ("thought apart", {"content": said, "reasoning_content": thought}),
            ("in two parts", {"content": two}),
            ("a thought and a text as parts", {"content": [thinks, text]}),
        ]
        name, message = self.drawn.choice(envelopes)
        return name, self._message(message, finish)

    def _thought(self) -> str:
        return self.drawn.choice(THOUGHTS)

    def _message(self, message: dict[str, Any], finish: str = "stop") -> Body:
        whole = completion(self.body, "", finish)
        whole["choices"][0]["message"] = {"role": "assistant", **message}
        return whole

    def _filtered(self) -> Answer:
        told = {"message": "The response was filtered due to the content management policy.", "code": "content_filter"}
        return Answer(400, {"error": told})


def _half(text: str) -> str:
    """A text that breaks off within its last words or its last value."""
    return text[: -max(len(text) // 4, 18)]
