"""What a run says and holds, as text: its tables as CSV, the report, explanations, the card and what commands print.

Floats have 4 digits. Times, versions, paths and digests that depend on them are masked, so that the same code gives the
same text on every machine.
"""

import csv
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit.commands import run_command
from tests.kit.html_page import Page

MASKS = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?UTC|Z|\+00:00)?", "TIME"),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r", run [0-9a-f]{32}\b", ", run IDENTITY"),
    (r"\b\d+\.\d+\.\d+[\w.+]*", "VERSION"),
    (r"(?<= s\n)[\d,]+(?=\n)", "RATE"),
    (r"[\d.,]+ (ms|s|min|h|images/s|rows/s|MB/s|[kMG]i?B|bytes)\b", r"N \1"),
]


def record_case(make, folder):
    """Run a case in an empty folder. Returns the name and content of each file that is stored."""
    make(folder)
    out = folder / "run"
    done = [run_command("run", str(folder / "recipe.yaml"), "--out", str(out), "--in-process")]
    assert done[0].status == 0, done[0].err
    done += [run_command(word, str(out)) for word in ("report", "verify", "status")]
    texts = {"commands.txt": "\n".join(f"exit {d.status}\n{d.out}" for d in done)}
    texts["explain.txt"] = "\n".join(run_command("explain", str(out), uid).out for uid in one_of_each(out))
    text = Page((out / "report.html").read_text()).text
    texts["report.txt"] = text[: text.rindex("\nTime\n")]  # behind it are clocks and digests
    texts["card.md"] = (out / "README.md").read_text()
    texts["run.json"] = json.dumps(facts(json.loads((out / "run.json").read_text())), indent=1)
    texts = {name: mask(text, folder) for name, text in texts.items()}
    for table in sorted(path.name for path in (out / "tables").iterdir()):
        files = sorted((out / "tables" / table).glob("*.parquet"))
        texts[f"{table}.csv"] = mask(as_csv(pa.concat_tables(map(pq.read_table, files))), folder)
    for path in sorted(out.glob("*.parquet")):
        if path.name not in ("manifest.parquet", "forgotten.parquet"):
            texts[f"{path.stem}.csv"] = mask(as_csv(pq.read_table(path)), folder)
    return texts


def one_of_each(out):
    """The uid of the first row of each outcome."""
    query = "SELECT min(uid) FROM verdicts WHERE uid IS NOT NULL GROUP BY coalesce(rule, 'kept') ORDER BY coalesce(rule, 'kept')"
    return [row["min(uid)"] for row in json.loads(run_command("sql", str(out), query, "--format", "json").out)]


def facts(run):
    """What run.json says of the data: the parts that neither versions nor clocks change."""
    return {key: run[key] for key in ("name", "sources", "rules", "t", "counts", "near", "selection") if key in run}


def as_csv(table):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([cell(value) for value in row.values()] for row in table.to_pylist())
    return file.getvalue()


def cell(value):
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list) and len(value) > 8 and isinstance(value[0], float):
        return f"{len(value)} numbers: {cell(value[:2])} …"
    if isinstance(value, list):
        return " ".join(str(cell(item)) for item in value)
    return "" if value is None else value


def mask(text, folder):
    text = text.replace(str(folder), "DIR")
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text)
    text = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def settle(before, now):
    """The new text, with the old one's number wherever they are equal but for rounding: processors differ in the last bits."""
    old, new = before.splitlines(), now.splitlines()
    if len(old) != len(new):
        return now
    return "\n".join(one if is_close(one, other) else other for one, other in zip(old, new, strict=True)) + "\n"


def is_close(one, other):
    numbers = [list(map(float, NUMBER.findall(line))) for line in (one, other)]
    same = NUMBER.sub("N", one) == NUMBER.sub("N", other)
    return same and all(abs(a - b) <= 2e-4 for a, b in zip(*numbers, strict=True))
