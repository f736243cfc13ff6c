"""What features mean, said by an LLM: explain, verify and judge them (paper App. K).

Verdicts are on the scale Yes / Probably / Maybe / No; those that cannot be read count as none
(`interpretation_note`).
The judge that needs no LLM is `fac.relevance`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fac.errors import FacError
from fac.llm.base import ChatModel, Completion, Request, Sampling, ask, request_seed
from fac.prompts import Prompts

SCALE = ("Yes", "Probably", "Maybe", "No")
RELEVANT = SCALE[:3]  # paper App. K: relevant iff Yes, Probably or Maybe
ROLES = ("explain", "verify", "judge")
_WORD = "(yes|probably|maybe|no)"
_DECISION = re.compile(  # [[Yes]]; and what is said without brackets: "**Final Decision:** Yes", "My verdict is no."
    rf"\[\[[\s*_]*{_WORD}[\s*_]*\]\]"
    r"|\b(?:decision|verdict|answer|choice|judge?ment)[\s*_]*(?:\bis\b|[:：=])[\s*_:\"'“(\[]*"
    rf"{_WORD}(?=[*_\])\"'” ]*(?:[.,;:!(–—-]|\n|\Z|because\b|since\b))",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"^\W*{_WORD}\W*\Z", re.IGNORECASE | re.MULTILINE)  # the last line is a verdict and nothing else
_VERDICT = re.compile(  # what `with_analyses` leaves out
    rf"[\s*_#]*(?:final decision[\s:*_]*)?\[\[[^\]]*\]\][\s*_.]*|[\s*_#]*final decision[\s:*_\[]*{_WORD}\b[\s*_.\]]*",
    re.IGNORECASE,
)
_NAMED = re.compile(r"^[\s*_#>]*(?:answer|explanation|description|summary)[\s*_]*[:：][\s*_]*", re.IGNORECASE)
_CANNOT_TELL = re.compile(r"^\W*(?:i )?(?:cannot|can't|can’t) tell\b", re.IGNORECASE)


@dataclass(frozen=True)
class Interpretation:
    """What the annotator said of one feature. Verdicts are on SCALE, or "" where the reply held none."""

    feature: int
    spans: tuple[str, ...]  # strongest first, each ending with the activating token
    explanation: str  # "" if the annotator cannot tell
    verification: str = ""  # do the spans fit the explanation? "" also if that was not asked
    relevance: str = ""  # is it relevant to the task?

    def is_relevant(self, verified: bool) -> bool:
        """Whether the task needs the feature; with `verified`, the explanation must also have passed verification."""
        return self.relevance in RELEVANT and (not verified or self.verification in RELEVANT)


def parse_decision(reply: str) -> str:
    """The last verdict of a reply, or "" if there is none: [[Yes]], [[Probably]], [[Maybe]] or [[No]].

    Judges leave the brackets out: "Final Decision: Yes", or a last line that is one of the words, is a verdict, too.
    """
    found = [*_DECISION.finditer(reply), *_ALONE.finditer(reply)]
    return next(filter(None, found[-1].groups())).capitalize() if found else ""


def interpret_features(
    annotators: Mapping[str, ChatModel],
    prompts: Prompts,
    spans: Mapping[int, Sequence[str]],
    sampling: Sampling,
    seed: int,
    folder: Path,
) -> list[Interpretation]:
    """Explain every feature from its spans, verify the explanation against them, judge its relevance to the task.

    `annotators` maps each of ROLES to a model; without one for `verify` nothing is verified, without one for `judge`
    nothing is judged. Every request and reply
    is kept in `folder` (replies-ROLE.jsonl), where a killed run continues; what comes of it is written to
    interpretations.jsonl.
    """

    def said(role: str, features: Sequence[int], prompt: Callable[[int], str]) -> dict[int, str]:
        requests = [
            Request(str(f), [{"role": "user", "content": prompt(f)}], request_seed(seed, role, f)) for f in features
        ]
        what = {"explain": "explaining features", "verify": "verifying explanations", "judge": "judging relevance"}[
            role
        ]
        replies = ask(annotators[role], requests, sampling, folder / f"replies-{role}.jsonl", what)
        # A verdict that was cut off may have been about to change.
        whole = {f: replies[str(f)] for f in features}
        return {f: reply.text if reply.finished or role == "explain" else "" for f, reply in whole.items()}

    texts = said("explain", list(spans), lambda f: prompts.render("explain", spans=spans[f]))
    texts = {f: _NAMED.sub("", text) for f, text in texts.items()}
    clear = [f for f, text in texts.items() if text and not _CANNOT_TELL.match(text)]
    fits: dict[int, str] = {}
    if "verify" in annotators:
        fits = said("verify", clear, lambda f: prompts.render("verify", summary=texts[f], spans=spans[f]))
    needed: dict[int, str] = {}
    if "judge" in annotators:
        needed = said("judge", clear, lambda f: prompts.render("judge", summary=texts[f]))
    known = {*clear}
    interpretations = [
        Interpretation(
            feature=f,
            spans=tuple(spans[f]),
            explanation=texts[f] if f in known else "",
            verification=parse_decision(fits.get(f, "")),
            relevance=parse_decision(needed.get(f, "")),
        )
        for f in spans
    ]
    save_interpretations(interpretations, folder)
    return interpretations


def save_interpretations(interpretations: Iterable[Interpretation], folder: Path) -> None:
    """Write what `load_interpretations` reads."""
    (folder / "interpretations.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in interpretations))


def interpretation_note(interpretations: Iterable[Interpretation]) -> str:
    """How much of what the annotator was asked came to nothing, for a table; "" if nothing was asked."""
    interpretations = list(interpretations)
    explained = [r for r in interpretations if r.explanation]
    unread = sum(not r.relevance for r in explained)
    if not interpretations:
        return ""
    return (
        f"Of {len(interpretations)} features the annotator could explain {len(explained)}; {unread} of its "
        f"{len(explained)} verdicts on relevance could not be read or were cut off, and count as not relevant."
    )


def check_verdicts(interpretations: Iterable[Interpretation]) -> None:
    """Raise FacError if the annotator explained nothing, or if none of its verdicts on relevance can be read."""
    interpretations = list(interpretations)
    explained = [r for r in interpretations if r.explanation]
    mend = (
        "raise interpret.max_new_tokens if its answers were cut off, as those of a model that thinks first may be, or "
        "choose another annotator"
    )
    if interpretations and not explained:
        raise FacError(f"The annotator explained none of {len(interpretations)} features: {mend}.")
    if explained and not any(r.relevance for r in explained):
        raise FacError(f"None of the annotator's {len(explained)} verdicts on relevance can be read: {mend}.")


def load_interpretations(folder: Path) -> dict[int, Interpretation]:
    """What `interpret_features` wrote, by feature."""
    lines = (folder / "interpretations.jsonl").read_text().splitlines()
    rows = (json.loads(line) for line in lines)
    return {row["feature"]: Interpretation(**{**row, "spans": tuple(row["spans"])}) for row in rows}


def with_analyses(interpretations: Mapping[int, Interpretation], folder: Path) -> dict[int, Interpretation]:
    """The interpretations with what the relevance judge said, less its verdict, in place of the explanation.

    The released code passes the judge's analysis on to the writer. A judge that gave nothing but a verdict leaves the
    explanation as it is. `folder` is that of `interpret_features`.
    """
    lines = (folder / "replies-judge.jsonl").read_text().splitlines()
    replies = {int(record["id"]): Completion(**record["reply"]).text for record in map(json.loads, lines)}
    told = {feature: _VERDICT.sub(" ", text).strip() for feature, text in replies.items()}
    return {f: replace(said, explanation=told.get(f) or said.explanation) for f, said in interpretations.items()}
