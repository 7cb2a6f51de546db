"""Makes the pictures of README.md and curate/README.md: `python .github/make_pictures.py`; needs chromium and the package scikit-image.

`flow.svg`, `steps.svg` and `passes.svg` are drawn here. `report.png`, `photos.jpg` and `sql.svg` show runs: of the demo, and of photographs
in the public domain that scikit-image ships, with smaller and cropped copies of them.
"""

import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
INK, SOFT, LINE = "#1f2933", "#52606d", "#9aa5b1"
BLUE, GREEN, GRAY, AMBER = ("#e8f1fb", "#4a90d9"), ("#e9f6ec", "#3f9b57"), ("#f5f7fa", LINE), ("#fdf3e1", "#d9932b")
SANS = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, monospace"

PHOTOS = {
    "astronaut.png": "An astronaut in an orange suit before a flag and a model of the shuttle",
    "camera.png": "A man with a camera on a tripod in a field",
    "chelsea.png": "Close-up of the face of a tabby cat with green eyes",
    "coffee.png": "A cup of coffee with a spoon on a wooden table",
    "hubble_deep_field.jpg": "Thousands of galaxies in a deep field of the sky",
    "rocket.jpg": "A rocket on its launch pad at dusk",
    "clock_motion.png": "A clock on a wall, blurred by motion",
    "coins.png": "Rows of ancient coins on a dark ground",
    "brick.png": "A wall of gray bricks",
    "gravel.png": "Gravel seen from above",
    "retina.jpg": "The retina of a human eye",
}
RECIPE = """
name: photographs
input: {name: photographs, format: webdataset, path: pool.tar}
measure: {language: {}, image: {phash: true}}
rules: {side: min_side >= 100}
dedup: {by: [uid, sha256, {phash: {distance: 8}}], prefer: width}
"""
QUERY = """
  SELECT rule, count(*) AS rows, round(avg(clip_score), 3) AS clip_score
  FROM dropped GROUP BY rule ORDER BY rows DESC LIMIT 6"""


def main() -> None:
    """Write all pictures beside this file."""
    (HERE / "flow.svg").write_text(flow())
    (HERE / "steps.svg").write_text(steps())
    (HERE / "passes.svg").write_text(passes())
    with tempfile.TemporaryDirectory() as folder:
        curate(folder, "demo")
        screenshot(Path(folder, "curate-demo/run/report.html"), HERE / "report.png", 1200, (0, 0, 1200, 1060))
        (HERE / "sql.svg").write_text(terminal(folder))
        with tarfile.open(Path(folder, "pool.tar"), "w") as tar:
            for name, data in photos():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        Path(folder, "recipe.yaml").write_text(RECIPE)
        curate(folder, "run", "recipe.yaml", "--out", "photos")
        curate(folder, "report", "photos")
        screenshot(Path(folder, "photos/report.html"), HERE / "photos.jpg", 1200, (0, 66, 1200, 1556), "#samples")


def curate(folder: str, *arguments: str) -> str:
    """Run a command in a folder and return what it prints."""
    return subprocess.run(["curate", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def screenshot(page: Path, out: Path, width: int, box: tuple[int, int, int, int], section: str = "") -> None:
    """Write a part of a page, `box` of pixels below the section's top, as it looks in a window of that width."""
    text = page.read_text()
    if section:  # what comes before it is hidden
        text = text.replace("</head>", f"<style>section:not({section}), header, nav {{display: none}}</style></head>")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "page.html").write_text(text)
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{box[3]}"]
        shot = f"{folder}/shot.png"
        subprocess.run(
            ["chromium", *options, f"--screenshot={shot}", f"file://{folder}/page.html"],
            check=True,
            capture_output=True,
        )
        picture = Image.open(shot).convert("RGB").crop(box)
        picture.quantize(64).save(out, optimize=True) if out.suffix == ".png" else picture.resize(
            (900, 900 * picture.height // picture.width)
        ).save(out, quality=85)


def photos() -> Iterator[tuple[str, bytes]]:
    """Yield the members of a tar: each photograph, a smaller copy and one that is cropped a little, with a caption."""
    import skimage

    for number, (name, caption) in enumerate(PHOTOS.items()):
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        image.thumbnail((512, 512))
        width, height = image.size
        copies = [image, image.resize((width // 2, height // 2)), image.crop((2, 2, width - 2, height - 2))]
        for copy, picture in enumerate(copies[: 1 + number % 3]):
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=85)
            yield f"{number:03}{copy}.jpg", out.getvalue()
            yield f"{number:03}{copy}.txt", f"{caption}{('', ', small', ', cropped')[copy]}".encode()


def terminal(folder: str) -> str:
    """Return a picture of two queries and what they print."""
    console = Console(record=True, width=76, file=io.StringIO(), force_terminal=True)
    for shown, arguments in (
        (f'"{QUERY}"', [QUERY]),
        ("top_entries --param limit=5", ["top_entries", "--param", "limit=5"]),
    ):
        console.print(Text.assemble(("$ ", "bold green"), ("curate sql curate-demo/run ", "bold"), shown))
        console.print(Text(curate(folder, "sql", "curate-demo/run", *arguments)))
    picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="curate sql"), flags=re.DOTALL)
    picture = re.sub(r"font-family: Fira Code[^;]*;", f"font-family: {MONO};", picture)
    return "\n".join(line.rstrip() for line in picture.splitlines() if line.strip()) + "\n"


def flow() -> str:
    """Return the flow of a run."""
    wide, high, columns, rows = 176, 84, (16, 232, 448), (44, 204)
    boxes = [
        ("pool", ("tars, Parquet, URLs", "on disk, s3, gs, http"), GRAY),
        ("measure", ("decode, hash, CLIP,", "language, matches"), BLUE),
        ("decide", ("rules, duplicates,", "balance"), GREEN),
        ("caption", ("LLM rewrites, filtered;", "optional"), AMBER),
        ("emit", ("webdataset shards,", "original bytes"), GRAY),
        ("publish", ("statistics for SQL,", "report, dataset card"), GRAY),
    ]
    parts = []
    for number, (title, lines, (fill, stroke)) in enumerate(boxes):
        x, y = columns[number % 3], rows[number // 3]
        parts += [
            rectangle(x, y, wide, high, fill, stroke, title == "caption"),
            label(x + wide / 2, y + 24, title, 17, INK, 600),
        ]
        parts += [label(x + wide / 2, y + 46 + 19 * i, line, 14) for i, line in enumerate(lines)]
        if number % 3:
            parts.append(arrow(f"M{columns[number % 3 - 1] + wide + 4} {y + 42}H{x - 2}"))
    parts += [
        label(columns[1] + wide / 2, 28, "once", 14, BLUE[1], 600),
        label(columns[2] + wide / 2, 28, "as often as you like", 14, GREEN[1], 600),
        arrow(f"M{columns[2] + wide / 2} {rows[0] + high}V166H{columns[0] + wide / 2}V{rows[1] - 2}"),
        label(320, 158, "a verdict and its reason for every sample", 14),
        label(320, 322, "then: sql, explain, whatif, diff, report, verify, forget", 15, INK),
    ]
    title = "The pool is measured once, decided as often as you like, captioned, emitted as shards, and published with statistics"
    return svg(640, 342, title, parts)


def steps() -> str:
    """Return the order in which rows are dropped."""
    rows = [
        ("failed", "could not be read, or has no caption", "", GRAY),
        ("forgotten", "taken out on request, or in a blocklist", "blocklist", GRAY),
        ("rules", "each rule of the recipe, in order", "rules", GREEN),
        ("unmatched", "no metadata entry in the caption", "match", GREEN),
        ("contaminated", "near an image of an evaluation set", "dedup.against", GREEN),
        ("duplicate", "another sample represents it", "dedup.by", GREEN),
        ("other_text", "another text of its image is chosen", "balance.one_per", GREEN),
        ("balance or sample", "not drawn", "balance, sample", GREEN),
        ("kept", "the curated set", "output", BLUE),
    ]
    heads = ((20, "a row is dropped as", "start"), (218, "because", "start"), (620, "key of the recipe", "end"))
    parts = [label(x, 26, text, 13, anchor=anchor) for x, text, anchor in heads]
    for number, (name, why, key, (fill, stroke)) in enumerate(rows):
        y = 44 + 52 * number
        parts += [rectangle(16, y, 608, 34, fill, stroke), label(28, y + 22, name, 16, INK, 600, "start")]
        parts += [
            label(218, y + 22, why, 15, anchor="start"),
            label(614, y + 22, key, 13, INK, anchor="end", family=MONO),
        ]
        if number:
            parts.append(arrow(f"M100 {y - 18}V{y - 2}"))
    names = ", ".join(name for name, *_ in rows)
    return svg(640, 52 * len(rows) + 44, f"The order in which rows are dropped: {names}", parts)


def passes() -> str:
    """Return the walk of the units: what each does alone, what all are asked between, and the files that are there then."""
    rows = [
        ("plan, claim", "the driver, once", "the units of the plan", ("run.json", "inputs/"), GRAY),
        ("measure, match", "each unit", "sums, reference rows → models", ("samples scores", "matches members"), BLUE),
        ("relate, rules", "each unit", "thresholds; near rows → groups", ("related",), BLUE),
        ("duplicates, later rules", "each unit", "counts → t, limits or quotas", (), GREEN),
        ("draw", "each unit", "audit: are all rows accounted for?", ("decisions",), GREEN),
        ("caption", "each unit, kept rows", "kept rows → which shard holds them", ("answers", "captions"), AMBER),
        ("emit", "each shard", "lines of the manifest", ("shards/",), GRAY),
        ("publish", "one step, over summaries", "", ("manifest stats", "_SUCCESS, last"), GRAY),
    ]
    left, middle, right, wide, high, pitch = 16, 268, 578, 222, 48, 70
    heads = ((left, "work"), (middle, "asked of all units, before work goes on"), (right, "files written"))
    parts = [label(x, 26, text, 13, anchor="start") for x, text in heads]
    for number, (name, who, question, files, (fill, stroke)) in enumerate(rows):
        y = 42 + pitch * number
        parts += [
            rectangle(left, y, wide, high, fill, stroke, name == "caption"),
            label(left + 14, y + 21, name, 16, INK, 600, "start"),
            label(left + 14, y + 39, who, 13, anchor="start"),
        ]
        parts += [label(right, y + 20 + 18 * i, file, 13, INK, 400, "start", MONO) for i, file in enumerate(files)]
        if question:
            below = f"M{middle + 134} {y + high - 8}V{y + high + 11}H{left + wide / 2}V{y + pitch - 2}"
            parts += [
                rectangle(middle, y + 8, 268, high - 16, "#ffffff", LINE),
                label(middle + 134, y + 29, question, 13),
                arrow(f"M{left + wide + 2} {y + high / 2}H{middle - 2}"),
                arrow(below),
            ]
    title = "The walk of the units: each works alone, and between two passes all of them are asked a question"
    return svg(720, pitch * len(rows) + 40, title, parts)


def label(
    x: float,
    y: float,
    text: str,
    size: int,
    fill: str = SOFT,
    weight: int = 400,
    anchor: str = "middle",
    family: str = SANS,
) -> str:
    """Return a line of text."""
    look = f'font-family="{family}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}"'
    return f'<text x="{x}" y="{y}" {look}>{escape(text)}</text>'


def rectangle(x: float, y: float, width: float, height: float, fill: str, stroke: str, dashed: bool = False) -> str:
    """Return a box."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{stroke}" stroke-width="1.5"{dash}/>'


def arrow(path: str) -> str:
    """Return an arrow along a path."""
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="2" marker-end="url(#a)"/>'


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Return a picture on a white ground, so that it can be read on a dark page."""
    head = '<marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
            f'<defs>{head}<path d="M0 0 10 5 0 10z" fill="{LINE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
