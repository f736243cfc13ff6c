"""20,000 rows that nobody would write on purpose, through every loader: a sentence, or texts that stand in the file."""

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fac.data.choices import read_choices
from fac.data.examples import LoadReport, read_examples
from fac.data.instructions import read_instructions
from fac.data.pairs import read_pairs
from fac.data.source import Source
from fac.errors import FacError

ROWS = 50  # of a file
FILES = 400
PIECES = [
    *(
        '"',
        '""',
        '"""',
        "'",
        "\\",
        '\\"',
        ",",
        ";",
        "\t",
        "\n",
        "\r\n",
        "\r",
        "\x0b",
        "\u2028",
        "\u0085",
        "\ufeff",
        " ",
    ),
    *("é", "“", "漢字", "😀", "a\u0301", "\x1b[0m", "\u202e", "{", "}", "[", "]", "{}", "null", "NaN", "1e999", "-0"),
    *("\n\nHuman: ", "\n\nAssistant: ", "<extra_id_1>User\n", "<|im_start|>user\n", "[INST]", "[/INST]", "### Human:"),
    *('[{"role": "user", "content": "x"}]', "[{'role': 'user'}]", "(A) yes\n (B) no", "=cmd()", "word", "two words"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**64, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", " ", "\n", [], {}, [[]]),
    *({"role": "user"}, [{"role": "user"}], [{"role": 3, "content": []}], ["a", "b"], [None], {"a": {"b": {}}}),
    *([{"from": "human", "value": "x"}], [{"role": "user", "content": None}], "[" * 3000, '{"a":' * 500),
]
COLUMNS = [
    "text",
    "prompt",
    "messages",
    "chosen",
    "rejected",
    "question",
    "instruction",
    "input",
    "output",
    "label",
    "id",
]
CHOICES = ["answer_matching_behavior", "answer_not_matching_behavior"]
SUFFIXES = ["jsonl", "json", "csv", "tsv", "txt", "parquet"]


def words(rng: random.Random, number: int, without: str = "") -> str:
    """A text of a few pieces that holds its row's number once."""
    pieces = [piece for piece in rng.choices(PIECES, k=rng.randrange(5)) if not set(piece) & set(without)]
    pieces.insert(rng.randrange(len(pieces) + 1), f"row{number}.")
    return "".join(pieces)


def anything(rng: random.Random, number: int) -> dict[str, Any]:
    """A row of known columns with values of any kind."""
    names = rng.sample(COLUMNS + CHOICES, k=rng.randrange(1, 6))
    return {name: words(rng, number) if rng.random() < 0.6 else rng.choice(VALUES) for name in names}


def save(path: Path, rows: list[dict[str, Any]], rng: random.Random) -> None:
    """The rows in the format of the suffix, with lines in between that are none."""
    debris = lambda: rng.choice(["", "{", "[", '"', "]", "\\", '{"a": 1}{"b": 2}', "\ud83d", "plain"])  # noqa: E731
    lines = [json.dumps(row) for row in rows]
    suffix = path.suffix[1:]
    if suffix == "parquet":
        table = {name: [json.dumps(row.get(name)) for row in rows] for name in {n for row in rows for n in row}}
        pyarrow.parquet.write_table(pyarrow.table(table), path)
        return
    if suffix == "json":
        text = "[" + ",".join(lines) + "]" if rng.random() < 0.7 else "".join(lines)
    elif suffix in ("csv", "tsv"):
        stream = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(
            stream, names, delimiter="\t" if suffix == "tsv" else ",", quoting=rng.choice([0, 1, 2])
        )
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    else:
        lines = lines if suffix == "jsonl" else [str(next(iter(row.values()))) for row in rows]
        text = "".join(line + rng.choice(["\n", "\n", "\r\n", "\n\n"]) for line in lines)
    if rng.random() < 0.5:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + debris() + text[at:]
    data = text.encode("utf-8", "surrogatepass" if rng.random() < 0.5 else "replace")
    if rng.random() < 0.1:
        at = rng.randrange(len(data) + 1)
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + rng.randrange(2) :]
    path.write_bytes(data)


def files(folder: Path, seed: int) -> Iterator[tuple[Path, random.Random]]:
    rng = random.Random(seed)
    for file in range(FILES):
        path = folder / f"{file}.{rng.choice(SUFFIXES)}"
        rows = [anything(rng, number) for number in range(ROWS)]
        if rng.random() < 0.7:  # else columns come and go
            rows = [{**dict.fromkeys(rows[0]), **{name: row[name] for name in rows[0] if name in row}} for row in rows]
        save(path, rows, rng)
        yield path, rng


def test_no_row_of_any_kind_ends_in_a_traceback(tmp_path):
    loaders = [
        read_examples,
        read_choices,
        lambda source, report: read_pairs(source, "auto", report),
        read_instructions,
    ]
    read = refused = 0
    for path, rng in files(tmp_path, seed=0):
        options: dict[str, Any] = {"label": "label"} if rng.random() < 0.3 else {}
        options |= {"turns": "all"} if rng.random() < 0.3 else {}
        options |= {"text": rng.choice(COLUMNS)} if rng.random() < 0.3 else {}
        source = Source(path, name="seed", on_error="skip", dedup=rng.random() < 0.3, **options)
        for loader in loaders:
            report = LoadReport()
            try:
                read += sum(1 for _ in loader(source, report))
                assert sum(report.reasons.values()) == report.skipped
                str(report)
            except FacError as error:
                refused += 1
                said = str(error)
                if "\n" in said or len(said) > 1000:
                    raise AssertionError(said) from error
    assert read > 5000
    assert refused > 100


def plain_table(rng: random.Random, delimiter: str) -> tuple[str, list[str]]:
    """A table whose writer knows no quotes, and its texts: every line a row, but for a few that are none."""
    texts = [words(rng, number, without=f"{delimiter}\n\r\0") for number in range(ROWS)]
    lines = [f"{text}{delimiter}{rng.randrange(2)}" for text in texts]
    for _ in range(rng.randrange(3)):
        lines.insert(
            rng.randrange(1, len(lines)), rng.choice(["no label", f'a{delimiter}"b{delimiter}c', '"', "x" * 99])
        )
    return "\n".join([f"query{delimiter}label", *lines]) + "\n", texts


def quoted_table(rng: random.Random, delimiter: str) -> tuple[str, list[str]]:
    """A table as the csv module writes it."""
    texts = [words(rng, number) for number in range(ROWS)]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer.writerows([["query", "label"], *([text, rng.randrange(2)] for text in texts)])
    return stream.getvalue(), texts


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("write", [plain_table, quoted_table])
def test_no_row_of_a_table_is_merged_or_cut(tmp_path, suffix, write):
    """Whatever is read is a text that was written, whole: rows are never joined with the next, nor cut in two."""
    rng = random.Random(f"{suffix}{write.__name__}")
    whole = refused = 0
    for file in range(100):
        text, texts = write(rng, "\t" if suffix == "tsv" else ",")
        path = tmp_path / f"{file}.{suffix}"
        path.write_bytes(text.encode())
        for quotes in ("auto", "none" if write is plain_table else "csv"):
            report = LoadReport()
            source = Source(path, text="query", label="label", on_error="skip", quotes=quotes)
            try:
                found = [example.text for example in read_examples(source, report)]
            except FacError:
                assert quotes == "auto"
                refused += 1
                continue
            enclosed = {text[1:-1].replace('""', '"') for text in texts if text[0] == text[-1] == '"'}
            meant = set(texts) | (enclosed if suffix == "csv" else set())  # a .csv has quotes around fields
            assert set(found) <= meant, set(found) - meant
            whole += quotes == "auto"
            if quotes != "auto":
                assert len(found) == len([text for text in texts if text.strip()])
    assert whole > (60 if write is quoted_table else 5), (whole, refused)
