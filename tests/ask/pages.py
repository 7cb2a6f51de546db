"""Helpers for tests of pages: a run in which every text is hostile, and Chromium."""

import base64
import hashlib
import shutil

from tests.kit.written_runs import ENTRIES, RUN, sample, uid, verdict, write_units

OWNED = "document.documentElement.dataset.owned=1"
HOSTILE = [
    f"<script>{OWNED}</script>",
    f'"><img src=x onerror="{OWNED}">',
    f"'><svg onload={OWNED}>",
    f"</text></svg></style></title></textarea><script>{OWNED}</script>",
    f"javascript:{OWNED}",
    "<link rel=stylesheet href=http://evil.example/a.css><style>@import 'http://evil.example/b.css'</style>",
    "<iframe src=http://evil.example/></iframe><meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "]]></g><foreignObject><body onload=1>{{ 7 * 7 }}{% raw %}",
    "\u202eright to left\u2066 isolated\x1b[31m red \x07",
    "x" * 9_000,
    "\u0301" * 3_000,
    "http://evil.example/<b>&amp;\ufeff\u2028",
]


def write_hostile(url):
    """A run in which every text that may come from a stranger is hostile, and every rule, source and entry too."""
    names = [f"{text[:200]} {i}" for i, text in enumerate(HOSTILE)]
    sql = "caption <> '{}' AND words > 2"
    rules = [
        {"name": name, "sql": sql.format(name[:20].replace("'", "''")), "top": None, "of": None, "threshold": None}
        for name in names
    ]
    rows = []
    for i, text in enumerate(HOSTILE * 3):
        rule = (None, names[i % len(names)], "balance")[i // len(HOSTILE)]
        fields = {
            "url": text,
            "key": text,
            "language": text[:100],
            "format": text[:30],
            "width": 100 + i,
            "height": 300,
        }
        decided = verdict(rule, 0.5, None if rule in names else 0.3)
        rows.append((sample(f"a{i}", text, text[:300], **fields), decided, [i % len(HOSTILE)], i / 40))
    failed = sample("f1", HOSTILE[0], uid=None, sha256=None, status="not_an_image", error=HOSTILE[1])
    rows.append((failed, verdict("failed"), [], None))
    run = RUN | {
        "name": HOSTILE[3],
        "sources": [text[:300] for text in HOSTILE],
        "rules": rules,
        "recipe": {**RUN["recipe"], "input": [{"name": HOSTILE[0], "format": HOSTILE[1], "path": [HOSTILE[2]]}], HOSTILE[0]: HOSTILE},
        "packages": {HOSTILE[0]: HOSTILE[1]},
        "models": {HOSTILE[0]: {HOSTILE[1]: HOSTILE[2]}},
        "drift": [{"source": HOSTILE[0], "model": HOSTILE[1], "side": HOSTILE[2], "pool_rows": 9, "kept_rows": 5, "distance": 1.0, "standard_error": 0.1, "unchanged": 0.1}],
        "units": [[HOSTILE[0], 1]],
        "started": 1e9,
        "seconds": 3.5,
    }  # fmt: skip
    entries = [(i, text[:2000], *ENTRIES[0][2:4], 9, 5, 0.5, 2.5, i % 3) for i, text in enumerate(HOSTILE)]
    captions = [
        {"uid": uid(f"a{i}"), "kind": HOSTILE[0], "style": text, "ordinal": 0, "text": text, "gate": ("passed", HOSTILE[1])[i % 2],
         "failed": [[], [HOSTILE[1]]][i % 2], "status": "ok"}
        for i, text in enumerate(HOSTILE)
    ]  # fmt: skip
    failures = [{"unit": 0, "shard": text, "key": None, "reason": text, "detail": text} for text in HOSTILE]
    return write_units(url, [rows], run, entries, failures, captions)


def with_script(page, script):
    """Let a page run another script too, by its digest, after its own: what a reader of it does."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = page.replace("script-src 'sha256-", f"script-src 'sha256-{digest}' 'sha256-", 1)
    return page.replace("</body>", f"<script>{script}</script></body>")


def chromium():
    """A Chromium or Chrome, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def flags(folder):
    """Headless, and without Chromium's own requests."""
    quiet = ("background-networking", "component-update", "default-apps", "extensions", "sync", "gpu", "dev-shm-usage")
    return [
        "--headless=new", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet),
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}",
    ]  # fmt: skip
