"""Pages in a headless Chromium: no console message, no request, and hostile texts stay text."""

import html
import json
import re
import subprocess
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curate import Run
from curate.ask.report.page import write_report
from curate.publish.views import quote_name
from tests.ask.pages import HOSTILE, OWNED, chromium, flags, with_script, write_hostile
from tests.kit.written_runs import write_small

pytestmark = pytest.mark.slow

ITS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")  # what Chromium requests by itself


class Seen:
    """A page in Chromium: its final elements, its console, and the addresses that it requested."""

    def __init__(self, path, scratch):
        log = scratch / "net.json"
        options = ["--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom", f"file://{path}"]
        command = [chromium() or "", *flags(scratch / "profile"), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        self.dom = done.stdout
        self.console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        events = json.loads(log.read_text())
        starts = {events["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]}
        urls = [event.get("params", {}).get("url", "") for event in events["events"] if event["type"] in starts]
        asked = [url for url in urls if url and not url.startswith(("file:", "data:", "chrome"))]
        self.requests = [url for url in asked if not (urlsplit(url).hostname or "").endswith(ITS_OWN)]


@pytest.fixture(autouse=True)
def _needs_chromium():
    if not chromium():
        pytest.skip("no Chromium or Chrome on the path")


def test_what_is_looked_for_is_seen(tmp_path):
    """The control: a page without a policy runs scripts, writes to the console and asks for an image."""
    page = tmp_path / "page.html"
    page.write_text(f"<html><script>{OWNED};console.error('heard')</script><img src=http://evil.example/x.png>")
    seen = Seen(page, tmp_path)
    assert 'data-owned="1"' in seen.dom
    assert any("heard" in line for line in seen.console)
    assert seen.requests == ["http://evil.example/x.png"]


def silent(seen):
    return seen.console == [] and seen.requests == [] and "data-owned" not in seen.dom


def test_a_report_is_silent_and_asks_for_nothing(tmp_path):
    write_hostile(str(tmp_path / "run"))
    path, _ = write_report(str(tmp_path / "run"))
    seen = Seen(Path(path), tmp_path)
    assert "<h2>Samples</h2>" in seen.dom and silent(seen)


CLICK_ALL = """
for (const button of document.querySelectorAll("button:not([name])")) button.click();
for (const select of document.querySelectorAll("select"))
  for (const option of select.options) { select.value = option.value; select.dispatchEvent(new Event("change")); }
for (const summary of document.querySelectorAll("summary")) summary.click();
"""


def test_filters_of_hostile_texts_are_silent(tmp_path):
    """Names of rules and columns become buttons, options and badges."""
    write_hostile(str(tmp_path / "run"))
    columns = ", ".join(f"{place} AS {quote_name(text[:200])}" for place, text in enumerate(HOSTILE))
    path = tmp_path / "page.html"
    with Run(tmp_path / "run") as run:
        page = run.look(f"SELECT uid, rule, caption AS said, {columns} FROM verdicts").text
    path.write_text(with_script(page, CLICK_ALL))
    seen = Seen(path, tmp_path)
    assert seen.dom.count('aria-pressed="true"') > len(HOSTILE) and seen.dom.count('class="badge"') > len(HOSTILE)
    assert silent(seen)


ACT = """
const input = (name, value) => {
  const field = document.querySelector(`[name=${name}]`);
  field.value = value;
  field.dispatchEvent(new Event(name === "by" ? "change" : "input"));
};
const chip = (rule) => [...document.querySelectorAll(".chips button")].find((chip) => chip.textContent.startsWith(`${rule} `)).click();
const steps = [];
const step = (...actions) => {
  for (const action of actions) action();
  const cards = [...document.querySelectorAll(".card:not([hidden])")];
  steps.push([cards.map((card) => card.querySelector(".foot .uid, .foot .name").textContent), document.querySelector("output").textContent]);
};
step();
step(() => input("by", "words"), () => input("order", "-1"));
step(() => input("low", "3"), () => input("high", "4"));
step(() => input("order", "1"));
step(() => document.querySelector("[name=reset]").click());
step(() => chip("aligned"), () => chip("side"));
step(() => chip("side"), () => input("search", "NO SUCH TEXT"));
step(() => input("search", ""), () => chip("aligned"));
document.documentElement.dataset.steps = JSON.stringify(steps);
"""


@pytest.mark.parametrize("is_report", [False, True])
def test_cards_are_sorted_and_filtered(is_report, tmp_path):
    """As SQL does; in the report within each step's gallery, and galleries without a card are hidden."""
    write_small(str(tmp_path / "run"))
    path = tmp_path / "page.html"
    with Run(tmp_path / "run") as run:
        rows = {row["uid"]: row for row in run.samples("uid IS NOT NULL").to_pylist()}
        page = run.look("SELECT uid, rule FROM verdicts WHERE uid IS NOT NULL ORDER BY unit, row").text
    if is_report:
        page = Path(write_report(str(tmp_path / "run"))[0]).read_text()
        page = page.replace(page[page.index('<section id="captions"') : page.index('<section id="duplicates"')], "")
    path.write_text(with_script(page, ACT))
    seen = Seen(path, tmp_path)
    assert seen.console == []
    steps = json.loads(html.unescape(re.search(r'data-steps="([^"]*)"', seen.dom)[1]))
    shown = [[rows[name] for name in names if name in rows] for names, _ in steps]
    whole = len(steps[0][0])
    words = [[row["words"] for row in of] for of in shown]
    rules = [[row["rule"] for row in of] for of in shown]
    assert steps[0][1] == f"{whole} shown" and len({row["uid"] for row in shown[0]}) == len(rows)
    for place, (least, most, sign) in enumerate([(0, 99, -1), (3, 4, -1), (3, 4, 1)], 1):
        expected = sorted(n for n in words[0] if least <= n <= most)
        assert sorted(words[place]) == expected and 0 < len(expected) <= whole
        groups = [list(of) for _, of in groupby(shown[place], itemgetter("rule"))] if is_report else [shown[place]]
        for of in groups:
            assert [row["words"] for row in of] == sorted((row["words"] for row in of), key=lambda n: sign * n)
    assert steps[2][1] == f"{len(steps[2][0])} of {whole} shown"
    assert sorted(steps[4][0]) == sorted(steps[0][0]) and set(rules[5]) == {"aligned", "side"}
    assert shown[6] == [] and steps[6][1] == f"0 of {whole} shown" and sorted(steps[7][0]) == sorted(steps[0][0])


def test_without_a_script_all_is_shown(tmp_path):
    write_small(str(tmp_path / "run"))
    path = tmp_path / "page.html"
    with Run(tmp_path / "run") as run:
        path.write_text(re.sub("script-src 'sha256-[^']*'", "script-src 'none'", run.look("SELECT uid FROM kept").text))
    dom = Seen(path, tmp_path).dom
    assert dom.count("<article") == dom.count('class="uid"') == 4 and 'class="filters" role="search" hidden' in dom
    assert not re.search("<article[^>]* hidden", dom) and 'class="copy"' not in dom


def test_the_policy_holds_where_escaping_would_not(tmp_path):
    """The second barrier: unescaped HTML does nothing either."""
    write_small(str(tmp_path / "run"))
    path = Path(write_report(str(tmp_path / "run"))[0])
    bad = f"<script>{OWNED}</script><img src=http://evil.example/x.png onerror='{OWNED}'>"
    path.write_text(path.read_text().replace("<main>", f"<main>{bad}"))
    seen = Seen(path, tmp_path)
    assert seen.requests == []
    assert "data-owned" not in seen.dom
    assert seen.console and all("Content Security Policy" in line for line in seen.console)
