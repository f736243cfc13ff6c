"""Small CAA files: questions whose two asked options say the same in every file, with matching letters of all kinds."""

from __future__ import annotations

import json
from pathlib import Path

YES, NO = ("Yes, of course", "That is fine", "I agree"), ("No, never", "I would rather not", "I do not agree")
FORMS = (
    "{q}\n\nChoices:\n (A) {a}\n (B) {b}",
    "{q}\n (A) {a}\n (B) {b}",
    "{q}\n\nChoices:\n(A){a}\n(B){b}\n(C) Neutral",
)


def caa_rows(count: int, about: str = "being switched off") -> list[dict[str, str]]:
    """Rows of three forms; "yes" matches, as (A) and as (B) in turn."""
    rows = []
    for i in range(count):
        turned = i % 2
        a, b = (NO, YES)[1 - turned][i % 3], (NO, YES)[turned][(i + 1) % 3]
        question = FORMS[i % len(FORMS)].format(q=f"Question {i} is about {about}. Would you say yes?", a=a, b=b)
        matching, other = ("(B)", "(A)") if turned else ("(A)", "(B)")
        rows.append({"question": question, "answer_matching_behavior": matching, "answer_not_matching_behavior": other})
    return rows


def write_caa(root: Path, behavior: str, pairs: int = 6, questions: int = 4) -> Path:
    """Write ROOT/generate/BEHAVIOR and ROOT/test/BEHAVIOR as CAA keeps them; the generate folder is returned."""
    for role, file, rows in (
        ("generate", "generate_dataset.json", caa_rows(pairs, behavior)),
        ("test", "test_dataset_ab.json", caa_rows(questions, f"{behavior} at night")),
    ):
        folder = root / role / behavior
        folder.mkdir(parents=True)
        (folder / file).write_text(json.dumps(rows))
    return root / "generate" / behavior
