"""Pages for users: links lead somewhere, commands run and print what a page says, and all columns are explained."""

import functools
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from markdown_it import MarkdownIt

from curate.ask.diff import CHANGES, SETTINGS
from curate.ask.whatif.answer import FUNNEL, SOURCES
from curate.ask.whatif.sweep import POINTS
from curate.base import schema
from curate.decide.draw.balance import LimitsChoice
from curate.decide.draw.bracket import Solution
from curate.store.facts import RunFacts
from tests.kit import forked
from tests.kit.once import made_once
from tests.kit.packages import lay_out
from tests.kit.pages import PAGES, ROOT, PageRun, make_run, read_blocks


def name_of(page):
    return str(page.relative_to(ROOT))


page = pytest.mark.parametrize("page", PAGES, ids=name_of)


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


def test_the_readme_leads_to_all_pages():
    indexes = [ROOT / "README.md", ROOT / "pipelines/recipes/README.md", ROOT / "sql/README.md"]
    links = {
        (page.parent / link).resolve() for page in indexes for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())
    }
    missing = {*PAGES} - links
    assert missing == {ROOT / "README.md", ROOT / "curate/demo/clip/README.md"}  # the latter has the model's license


def has_commands(path):
    return any(block.is_command and block.is_run for block in read_blocks(path))


@pytest.mark.slow
@pytest.mark.parametrize("page", [*filter(has_commands, PAGES)], ids=name_of)
def test_commands_run_and_print_what_the_page_says(page, tmp_path, tmp_path_factory):
    PageRun(tmp_path, lambda: made_once(tmp_path_factory, "page-run", make_run)[0]).run(page)
    shutil.rmtree(tmp_path)  # it may have a model of 0.5 GB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "command"),
    [
        ("unknown key; did you mean", "plan recipe.yaml --set rulez={}"),
        ("no column '", "plan recipe.yaml --set rules.side=min_sid>1"),
        ("no file matches", "plan recipe.yaml --set input.0.path=no.tar*"),
        ("contains a run of another recipe or pool", "run recipe.yaml --out run1 --set seed=7"),
        ("is neither empty nor a run", "run recipe.yaml --out pool"),
        ("could not be read, but max_failed is", "run recipe.yaml --out new --set max_failed=0.01"),
    ],
)
def test_messages_of_the_page_on_troubles_are_printed(message, command, tmp_path, tmp_path_factory):
    shutil.copytree(made_once(tmp_path_factory, "page-run", make_run)[0], tmp_path, dirs_exist_ok=True)
    done = forked.run(*command.split(), cwd=tmp_path)
    assert message in done.stderr + done.stdout
    assert f"| `{message}" in (ROOT / "curate/cli/troubles.md").read_text().replace("`… ", "`")


def test_tests_named_as_reasons_exist():
    reasons = [block.marks.get("not run", "") for page in PAGES for block in read_blocks(page)]
    named = {path for reason in reasons for path in re.findall(r"tests/[\w/]+(?:\.py)?", reason)}
    assert named and [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.slow
def test_the_signal_of_contributing_passes_its_test(tmp_path):
    """As a package's signal, because the page's lines in the project are not there."""
    text = (ROOT / ".github/CONTRIBUTING.md").read_text().partition("## Add a signal")[2]
    signal, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:2]
    kinds = {"colorfulness": "colorfulness:KIND"}
    lay_out(tmp_path, "colorfulness", "signals", kinds, colorfulness=signal)
    (tmp_path / "test_colorfulness.py").write_text(test.replace("curate.signals.colorfulness", "colorfulness"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_colorfulness.py"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr


def test_all_that_tables_and_answers_have_is_explained():
    """Columns of tables and of what-if, diff and sweeps, facts, and keys of run.json: each begins a row of a table or list."""
    pages = "\n".join(page.read_text() for page in PAGES)
    rows = re.findall(r"^\| ((?:`\w+`(?:, | of )?)+).*? \| [^|\n]*\w", pages, re.MULTILINE)
    rows += re.findall(r"^- ((?:`\w+`(?:, )?)+)(?: \(`.*?`\))?: \w", pages, re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    tables = [schema.SAMPLES, schema.DECISIONS, schema.ENTRIES, schema.CAPTIONS, schema.ANSWERS, schema.REGIONS]
    tables += [schema.FAILURES, schema.MEMBERS, FUNNEL, SOURCES, POINTS, CHANGES, SETTINGS]
    names = {name for table in tables for name in table.names} - {"unit", "row", "position"}  # explained in sentences
    counts = np.array([1, 2])
    facts = ["entries_gained", "entries_lost", *LimitsChoice(Solution(1), counts, counts).shares(counts, counts)]
    assert (names | {*facts, *RunFacts.model_fields}) - explained == set()
