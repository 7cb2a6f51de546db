"""report.html in a headless Chromium: no console message, no request leaves the page, what is hostile stays text."""

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curate.ask.report.page import write_report
from tests.ask.pages import OWNED, chromium, flags, write_hostile
from tests.publish.runs import write_small

pytestmark = pytest.mark.thorough

ITS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")  # what Chromium asks for by itself, whatever the page


class Seen:
    """What happened while Chromium showed a page: its final elements, its console, the addresses it asked for."""

    def __init__(self, path: Path, scratch: Path) -> None:
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
def _needs_chromium() -> None:
    if not chromium():
        pytest.skip("no Chromium or Chrome on the path")


def test_what_is_looked_for_is_seen(tmp_path: Path) -> None:
    """The control: a page without a policy runs scripts, writes to the console and asks for an image."""
    page = tmp_path / "page.html"
    page.write_text(f"<html><script>{OWNED};console.error('heard')</script><img src=http://evil.example/x.png>")
    seen = Seen(page, tmp_path)
    assert 'data-owned="1"' in seen.dom
    assert any("heard" in line for line in seen.console)
    assert seen.requests == ["http://evil.example/x.png"]


def test_a_report_is_silent_and_asks_for_nothing(tmp_path: Path) -> None:
    write_hostile(str(tmp_path / "run"))
    path, _ = write_report(str(tmp_path / "run"))
    seen = Seen(Path(path), tmp_path)
    assert "<h2>Samples</h2>" in seen.dom
    assert seen.console == []
    assert seen.requests == []
    assert "data-owned" not in seen.dom


def test_the_policy_holds_where_escaping_would_not(tmp_path: Path) -> None:
    """The second wall: what is put into the page as it is does nothing either."""
    write_small(str(tmp_path / "run"))
    path = Path(write_report(str(tmp_path / "run"))[0])
    path.write_text(
        path.read_text().replace(
            "<main>", f"<main><script>{OWNED}</script><img src=http://evil.example/x.png onerror='{OWNED}'>"
        )
    )
    seen = Seen(path, tmp_path)
    assert seen.requests == []
    assert "data-owned" not in seen.dom
    assert seen.console and all("Content Security Policy" in line for line in seen.console)
