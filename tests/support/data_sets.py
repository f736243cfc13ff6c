"""Small data files in every format, and what is read from them."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fac.data.files import read_rows
from fac.data.source import Source

ROWS = [
    {"prompt": 'a "quoted", text\nof two lines', "n": "1"},
    {"prompt": "tab\there and \u2028 and ünï", "n": "2"},
    {"prompt": "plain", "n": "3"},
]


def write(path: Path, rows: list[dict]) -> Path:
    """`rows` in the format of the suffix, written by libraries other than the reader's."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    text = io.StringIO(newline="")
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind == "jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif kind == "json":
        json.dump(rows, text, indent=1)
    else:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def values(source: Source) -> list:
    return [row.values for row in read_rows(source)]
