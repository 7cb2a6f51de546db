"""Pages for users: links lead somewhere, and the README's walk prints what it says."""

import functools
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from curate.ask.diff import CHANGES, SETTINGS
from curate.ask.whatif.answer import FUNNEL, SOURCES
from curate.ask.whatif.sweep import POINTS
from curate.base import schema
from curate.decide.draw.balance import LimitsChoice
from curate.decide.draw.bracket import Solution
from curate.demo.pool import write_pool
from curate.store.facts import RunFacts
from tests.kit import forked
from tests.test_imports import ROOMS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / ".github/CONTRIBUTING.md",
        *(page for top in ("curate", "pipelines", "sql") for page in (ROOT / top).rglob("README.md")),
        *(ROOT / "infra").glob("*.md"),
    ]
)

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def texts(page):
    """The texts of a page without code blocks, with the element that holds each; code in a line keeps its backticks."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    for before, token in pairwise(tokens):
        if token.type == "inline":
            yield before.tag, "".join(map(text_of, token.children or []))


def text_of(token):
    if token.type == "code_inline":
        return f"`{token.content}`"
    return " " if token.type == "softbreak" else token.content if token.type == "text" else ""


@functools.cache
def anchors(page):
    """Of a page's headings, as GitHub makes them, and those that it sets."""
    headings = (text for tag, text in texts(page) if re.fullmatch("h[1-6]", tag))
    made = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
    return made | set(re.findall(r'<a id="([^"]+)"', page.read_text()))


@page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_what_differs_from_others_is_listed():
    """What the code does with each is tested where the code is."""
    for name, words in (
        ("curate/pool/README.md", ["spaces or non-ASCII letters", "`user:password@`", "tabs and line feeds"]),
        (
            "pipelines/recipes/README.md",
            ["A byte order mark", "single ASCII punctuation mark", "inverts MetaCLIP 2's `t_to_p`"],
        ),
        ("pipelines/recipes/datacomp_no_filter.yaml", ["sides are whole numbers", "2^31 pixels"]),
    ):
        assert [word for word in words if word not in (ROOT / name).read_text()] == []


def test_the_architecture_lists_all_rooms_in_their_order():
    text = (ROOT / "curate/README.md").read_text().partition("## The rooms\n")[2]
    lines = text.split("```")[1].strip().splitlines()
    listed = [name for line in lines for name in line.split("  ")[0].split()]
    assert listed == [room.removeprefix("curate.") for room in ROOMS if room not in ("curate", "curate.__main__")]


@pytest.mark.slow
def test_the_readmes_walk_prints_what_it_says(tmp_path):
    """From the first recipe to the second run, over the demo's pool."""
    readme = (ROOT / "README.md").read_text()
    walk = readme.partition("## Your first recipe")[2].partition("## The run folder")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", walk, re.DOTALL)
    (tmp_path / "small.yaml").write_text(next(text for language, text in blocks if language == "yaml"))
    write_pool(str(tmp_path / "curate-demo/pool"), samples=2000, seed=0, shards=4)
    write_photos(tmp_path / "photos")
    printed = ""
    for language, text in blocks:
        if language == "sh":
            for line in text.splitlines():
                command = shlex.split(line.partition(" #")[0].replace(" UID", f" {a_uid(tmp_path)}"))
                assert command[0] == "curate"
                done = forked.run(*command[1:], cwd=tmp_path)
                assert done.returncode == 0, f"{line}\n{done.stderr}"
                printed += done.stdout
        elif not language:
            missing = [line for line in text.splitlines() if line not in printed]
            assert not missing, f"not printed: {missing}"


def write_photos(folder):
    """Images as a reader has them, one of them too small, with a table of captions among them."""
    folder.mkdir()
    for i, side in enumerate([300, 256, 240, 40]):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, 300, 3), np.uint8)).save(folder / f"{i}.jpg")
    rows = "".join(f"{i}.jpg,a red dog in the {place}\n" for i, place in enumerate(["house", "garden", "snow", "rain"]))
    (folder / "captions.csv").write_text(f"filename,caption\n{rows}")


def a_uid(folder):
    import curate

    return (
        str(curate.Run(str(folder / "second")).sql("SELECT uid FROM dropped WHERE rule = 'side' LIMIT 1")["uid"][0])
        if (folder / "second").exists()
        else ""
    )


def test_all_that_tables_and_answers_have_is_explained():
    """Columns of tables and of what-if, diff and sweeps, facts, and keys of run.json: each heads a row of a page's table."""
    pages = "\n".join(page.read_text() for page in PAGES)
    rows = re.findall(r"^\| ((?:`\w+`(?:, | of )?)+).*? \| [^|\n]*\w", pages, re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    tables = [schema.SAMPLES, schema.DECISIONS, schema.ENTRIES, schema.CAPTIONS, schema.ANSWERS, schema.REGIONS]
    tables += [schema.FAILURES, schema.MEMBERS, FUNNEL, SOURCES, POINTS, CHANGES, SETTINGS]
    names = {name for table in tables for name in table.names} - {"unit", "row", "position"}  # explained in sentences
    counts = np.array([1, 2])
    facts = ["entries_gained", "entries_lost", *LimitsChoice(Solution(1), counts, counts).shares(counts, counts)]
    assert (names | {*facts, *RunFacts.model_fields}) - explained == set()
