"""Synthetic captions: results of the quality filters, lengths against the originals', samples side by side, cost."""

from collections import defaultdict
from typing import Any

from curate.ask.report.blocks import Block, Card, Figure, Figures, Gallery, Section, Table
from curate.ask.report.charts import Bin, compare_bins
from curate.ask.report.source import Run
from curate.ask.report.text import SHORT, clean, count, counts, names, number, percent
from curate.base.wording import format_seconds

SAMPLES = 8  # originals that are shown
TEXTS = 6  # synthetic captions of each
MOST = 40
_LONGEST = 60  # words, above which all lengths count together


def captions_section(run: Run) -> Section | None:
    """Return the section; None where no captions were written."""
    if not run.rows("FROM captions LIMIT 1"):
        return None
    text = (
        "Models wrote synthetic captions for kept samples, and quality filters (gates) checked each. A caption that "
        "fails a gate is not published; the original always is."
    )
    return Section("captions", "Captions", [text, _gates(run), *_lengths(run), _side_by_side(run), *_work(run)])


def _gates(run: Run) -> Table:
    rows = run.rows(
        """WITH judged AS (SELECT kind, style,
            CASE WHEN status <> 'ok' THEN [status] WHEN gate = 'passed' THEN ['passed'] ELSE failed END AS gates
            FROM captions
        ), totals AS (SELECT kind, style, count(*) AS total FROM judged GROUP BY ALL)
        SELECT kind, style, gate, count(*) AS texts, any_value(total) AS total
        FROM (SELECT kind, style, unnest(gates) AS gate FROM judged) JOIN totals USING (kind, style)
        GROUP BY kind, style, gate ORDER BY kind, style, gate <> 'passed', texts DESC, gate LIMIT 100"""
    )
    cells = [
        [*names(row, "kind", "style", "gate"), count(row["texts"]), percent(row["texts"], row["total"])] for row in rows
    ]
    heads = ("kind", "style", "result", "captions", "share of its style")
    note = "A caption may fail several gates, so the shares of a style may sum to more than 100 %."
    return Table(heads, cells, words=heads[:3], title="Quality filters", note=note)


def _lengths(run: Run) -> list[Block]:
    """Return charts of words per caption that passed, by kind, and of the originals of the same samples."""
    rows = run.rows(
        f"""WITH written AS (SELECT uid, kind, text FROM captions WHERE gate = 'passed'),
        texts AS (SELECT kind, text FROM written UNION ALL
            SELECT 'original', caption FROM kept WHERE uid IN (SELECT uid FROM written))
        SELECT kind, least(len(regexp_extract_all(text, '\\S+')), {_LONGEST}) AS words, count(*) AS n
        FROM texts GROUP BY ALL ORDER BY ALL"""
    )
    lengths: dict[str, dict[int, int]] = defaultdict(dict)
    for row in rows:
        lengths[row["kind"]][row["words"]] = row["n"]
    original = lengths.pop("original", {})
    figures = [_length_figure(clean(kind, SHORT), original, written) for kind, written in lengths.items()][:MOST]
    legend = (("pool", "originals"), ("kept", "synthetic, passed"))
    return [Figures(figures, title="Lengths", legend=legend)] if figures else []


def _length_figure(name: str, original: dict[int, int], written: dict[int, int]) -> Figure:
    bins = [
        Bin(f"{n} and more" if n == _LONGEST else str(n), n, n + 1, original.get(n, 0), written.get(n, 0))
        for n in range(max([*original, *written]) + 1)
    ]
    title = f"Words per caption: originals and {name}"
    svg, table = compare_bins(bins, {"title": "words"}, title, sets=("originals", "synthetic"))
    return Figure(name, svg, table=table)


def _side_by_side(run: Run) -> Gallery:
    """Return originals with the synthetic captions of their samples, chosen by a hash of the uid."""
    chosen = run.rows(
        f"""SELECT k.uid, any_value(k.caption) AS caption FROM kept k
        WHERE k.uid IN (SELECT uid FROM captions GROUP BY uid ORDER BY md5(uid) LIMIT {SAMPLES})
        GROUP BY k.uid ORDER BY md5(k.uid)"""
    )
    cards = []
    for row in chosen:
        texts = run.rows(
            f"""SELECT kind, style, text, gate, failed, status, error, clip_score FROM captions WHERE uid = $uid
            ORDER BY kind, style, ordinal LIMIT {TEXTS}""",
            uid=row["uid"],
        )
        lines = [("original", clean(row["caption"])), *map(_synthetic, texts)]
        cards.append(Card((), lines, (), clean(row["uid"], 32)))
    note = "Each original with the synthetic captions of its sample, and the result of the gates for each."
    return Gallery("Side by side", cards, note=note)


def _synthetic(row: dict[str, Any]) -> tuple[str, str]:
    """Return a synthetic caption's label, with the result of the gates, and its text."""
    verdict = f"no text: {row['status']}"
    if row["gate"]:
        verdict = row["gate"] if row["gate"] == "passed" else f"failed {', '.join(row['failed'] or [])}"
    score = "" if row["clip_score"] is None else f", score {number(row['clip_score'])}"
    label = clean(f"{row['kind']} {row['style'] or ''}: {verdict}{score}", SHORT)
    return label, clean(row["error"] if row["text"] is None else row["text"])


def _work(run: Run) -> list[Block]:
    heads = "kind, model, captions, requested in this run, no answer, passed, tokens in, tokens out"
    heads += ", engine, tokens/s, cost"
    cells = []
    for row in run.rows("SELECT * FROM caption_work ORDER BY ALL LIMIT 40"):
        seconds, tokens = row["seconds"], row["tokens_in"] + row["tokens_out"]
        speed = f"{tokens / seconds:,.0f}" if seconds and tokens else "–"
        cost = "–" if row["cost"] is None else f"{row['cost']:,.2f}"
        numbers = counts(row, "requests", "sent", "failed", "passed", "tokens_in", "tokens_out")
        cells.append([*names(row, "kind", "model"), *numbers, format_seconds(seconds), speed, cost])
    table = Table(heads.split(", "), cells, words=("kind", "model"), title="Requests, tokens and time")
    return [table] if cells else []
