"""Synthetic captions: results of the quality filters, lengths against the originals', samples side by side, cost."""

from collections import defaultdict
from itertools import groupby
from operator import itemgetter

from curate.ask.library import find_query
from curate.ask.opened import OpenRun
from curate.ask.report.blocks import Block, Card, Figure, Figures, Gallery, Section, Table
from curate.ask.report.charts import Bin, compare_bins
from curate.ask.report.text import SHORT, clean, count, counts, names, number, percent
from curate.base.wording import format_seconds

SAMPLES = 8  # originals that are shown
TEXTS = 6  # synthetic captions of each
MOST = 40
_LONGEST = 60  # words, above which all lengths count together


def captions_section(run: OpenRun) -> Section | None:
    """Return the section; None where no captions were written."""
    if not run.rows("FROM captions LIMIT 1"):
        return None
    text = (
        "Models wrote synthetic captions for kept samples, and quality filters (gates) checked each. A caption that "
        "fails a gate is not published; the original always is."
    )
    return Section("captions", "Captions", [text, _gates(run), *_lengths(run), _side_by_side(run), *_work(run)])


def _gates(run: OpenRun) -> Table:
    order = "kind, style, gate <> 'passed', texts DESC, gate"
    rows = run.rows(f"FROM {find_query('caption_gates').table} ORDER BY {order} LIMIT 100")
    cells = [[*names(row, "kind", "style", "gate"), count(row["texts"]), percent(row["share"], 1)] for row in rows]
    heads = ("kind", "style", "result", "captions", "share of its style")
    note = "A caption may fail several gates, so the shares of a style may sum to more than 100 %."
    return Table(heads, cells, words=heads[:3], title="Quality filters", note=note)


def _lengths(run: OpenRun) -> list[Block]:
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
    figures = []
    for kind, written in list(lengths.items())[:MOST]:
        bins = [
            Bin(f"{n} and more" if n == _LONGEST else str(n), n, n + 1, original.get(n, 0), written.get(n, 0))
            for n in range(max([*original, *written]) + 1)
        ]
        name = clean(kind, SHORT)
        title = f"Words per caption: originals and {name}"
        figures.append(Figure(name, *compare_bins(bins, {"title": "words"}, title, sets=("originals", "synthetic"))))
    legend = (("pool", "originals"), ("kept", "synthetic, passed"))
    return [Figures(figures, title="Lengths", legend=legend)] if figures else []


def _side_by_side(run: OpenRun) -> Gallery:
    """Return originals with the synthetic captions of their samples, chosen by a hash of the uid."""
    rows = run.rows(
        f"""WITH chosen AS (SELECT uid FROM captions GROUP BY uid ORDER BY md5(uid) LIMIT {SAMPLES}), originals AS (
            SELECT uid, any_value(caption) AS caption FROM kept SEMI JOIN chosen USING (uid) GROUP BY uid)
        FROM captions JOIN originals USING (uid) ORDER BY md5(uid), kind, style, ordinal"""
    )
    cards = []
    for uid, of_uid in groupby(rows, itemgetter("uid")):
        texts = list(of_uid)[:TEXTS]
        lines = [("original", clean(texts[0]["caption"]))]
        for text in texts:
            result = "passed" if text["gate"] == "passed" else f"failed {', '.join(text['failed'] or [])}"
            score = "" if text["clip_score"] is None else f", score {number(text['clip_score'])}"
            result = result if text["gate"] else f"no text: {text['status']}"
            label = clean(f"{text['kind']} {text['style'] or ''}: {result}{score}", SHORT)
            lines.append((label, clean(text["error"] if text["text"] is None else text["text"])))
        cards.append(Card((), lines, (), clean(uid, 32)))
    note = "Each original with the synthetic captions of its sample, and the result of the gates for each."
    return Gallery("Side by side", cards, note=note)


def _work(run: OpenRun) -> list[Block]:
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
