"""Synthetic captions: results of the quality filters, lengths compared with the originals', samples side by side, cost."""

from typing import Any

from curate.report.blocks import Block, Card, Cell, Figure, Figures, Gallery, Paragraph, Section, Table
from curate.report.charts import before_and_after, layers, render_svg
from curate.report.distributions import HEIGHT
from curate.report.source import Run
from curate.report.text import SHORT, clean, count, number, percent
from curate.wording import format_seconds

SAMPLES = 8  # originals that are shown
TEXTS = 6  # synthetic captions of each
MOST = 40
_LONGEST = 60  # words, above which all lengths count together


def captions_section(run: Run) -> Section | None:
    """Return the section; None where no captions were written."""
    if not run.row("SELECT count(*) AS n FROM (FROM captions LIMIT 1)")["n"]:
        return None
    text = "Models wrote synthetic captions for kept samples, and quality filters (gates) checked each. A caption that fails a gate is not published; the original always is."
    blocks: list[Block] = [Paragraph(text), _gates(run), *_lengths(run), _side_by_side(run), *_work(run)]
    return Section("captions", "Captions", blocks)


def _gates(run: Run) -> Table:
    rows = run.rows(
        """WITH judged AS (SELECT kind, style,
            CASE WHEN status <> 'ok' THEN [status] WHEN gate = 'passed' THEN ['passed'] ELSE failed END AS gates FROM captions
        ), totals AS (SELECT kind, style, count(*) AS total FROM judged GROUP BY ALL)
        SELECT kind, style, gate, count(*) AS texts, any_value(total) AS total
        FROM (SELECT kind, style, unnest(gates) AS gate FROM judged) JOIN totals USING (kind, style)
        GROUP BY kind, style, gate ORDER BY kind, style, gate <> 'passed', texts DESC, gate LIMIT 100"""
    )
    cells: list[list[Cell]] = [
        [
            clean(row["kind"], SHORT),
            clean(row["style"], SHORT),
            clean(row["gate"], SHORT),
            count(row["texts"]),
            percent(row["texts"], row["total"]),
        ]
        for row in rows
    ]
    note = "A caption may fail several gates, so the shares of a style may sum to more than 100 %."
    return Table(
        ("kind", "style", "result", "captions", "share of its style"),
        cells,
        words=("kind", "style", "result"),
        title="Quality filters",
        note=note,
    )


def _lengths(run: Run) -> list[Block]:
    """Return charts of words per caption that passed, by kind, and of the originals of the same samples."""
    rows = run.rows(
        f"""WITH written AS (SELECT uid, kind, text FROM captions WHERE gate = 'passed'),
        texts AS (SELECT kind, text FROM written UNION ALL
            SELECT 'original', caption FROM kept WHERE uid IN (SELECT uid FROM written))
        SELECT kind, least(len(regexp_extract_all(text, '\\S+')), {_LONGEST}) AS words, count(*) AS n FROM texts GROUP BY ALL ORDER BY ALL"""
    )
    original = {row["words"]: row["n"] for row in rows if row["kind"] == "original"}
    figures = []
    for kind in [kind for kind in dict.fromkeys(row["kind"] for row in rows) if kind != "original"][:MOST]:
        figures.append(_length_figure(kind, original, {row["words"]: row["n"] for row in rows if row["kind"] == kind}))
    return (
        [Figures(figures, title="Lengths", legend=(("pool", "originals"), ("kept", "synthetic, passed")))]
        if figures
        else []
    )


def _length_figure(kind: str, original: dict[int, int], written: dict[int, int]) -> Figure:
    totals = [sum(found.values()) or 1 for found in (original, written)]
    last = max([*original, *written])
    rows: list[dict[str, Any]] = []
    for words in range(last + 2):  # one more, where the steps end
        old, new = original.get(words, 0), written.get(words, 0)
        more = " and more" if words == _LONGEST else ""
        tooltip = f"{words}{more} words: {count(old)} originals, {count(new)} synthetic" if words <= last else None
        rows.append(
            {"at": words, "to": words + 1, "before": old / totals[0], "after": new / totals[1], "tooltip": tooltip}
        )
    scale = {"nice": False, "domain": [0, last + 1]}
    x = {"field": "at", "type": "quantitative", "title": "words", "scale": scale}
    top = 1.05 * max(max(row["before"], row["after"]) for row in rows)
    name = clean(kind, SHORT)
    spec = layers(rows, *before_and_after(x, top, HEIGHT), width=300, height=HEIGHT)
    return Figure(name, render_svg(spec, f"Words per caption: originals and {name}"))


def _side_by_side(run: Run) -> Gallery:
    """Return originals with the synthetic captions of their samples, chosen by a hash of the uid."""
    chosen = run.rows(
        f"""SELECT k.uid, any_value(k.caption) AS caption FROM kept k
        WHERE k.uid IN (SELECT arg_min.uid FROM (SELECT unnest(arg_min({{'uid': uid}}, md5(uid), {SAMPLES})) AS arg_min FROM (SELECT DISTINCT uid FROM captions)))
        GROUP BY k.uid ORDER BY md5(k.uid)"""
    )
    cards = []
    for row in chosen:
        texts = run.rows(
            f"SELECT kind, style, text, gate, failed, status, error, clip_score FROM captions WHERE uid = $uid ORDER BY kind, style, ordinal LIMIT {TEXTS}",
            uid=row["uid"],
        )
        lines = [("original", clean(row["caption"]))]
        for text in texts:
            verdict = (
                text["gate"]
                if text["gate"] == "passed"
                else f"failed {', '.join(text['failed'] or [])}"
                if text["gate"]
                else f"no text: {text['status']}"
            )
            score = "" if text["clip_score"] is None else f", score {number(text['clip_score'])}"
            lines.append(
                (
                    clean(f"{text['kind']} {text['style'] or ''}: {verdict}{score}", SHORT),
                    clean(text["text"] if text["text"] is not None else text["error"]),
                )
            )
        cards.append(Card((), lines, (), clean(row["uid"], 32)))
    return Gallery(
        "Side by side",
        cards,
        note="Each original with the synthetic captions of its sample, and the result of the gates for each.",
    )


def _work(run: Run) -> list[Block]:
    rows = run.rows("SELECT * FROM caption_work ORDER BY ALL LIMIT 40")
    cells: list[list[Cell]] = []
    for row in rows:
        seconds, tokens = row["seconds"] or 0.0, (row["tokens_in"] or 0) + (row["tokens_out"] or 0)
        cells.append(
            [clean(row["kind"], SHORT), clean(row["model"], SHORT), count(row["requests"]), count(row["sent"]), count(row["failed"]), count(row["passed"]),
             count(row["tokens_in"] or 0), count(row["tokens_out"] or 0), format_seconds(seconds), f"{tokens / seconds:,.0f}" if seconds and tokens else "–",
             "–" if row["cost"] is None else f"{row['cost']:,.2f}"]
        )  # fmt: skip
    heads = (
        "kind",
        "model",
        "captions",
        "requested in this run",
        "no answer",
        "passed",
        "tokens in",
        "tokens out",
        "engine",
        "tokens/s",
        "cost",
    )
    return [Table(heads, cells, words=("kind", "model"), title="Requests, tokens and time")] if cells else []
