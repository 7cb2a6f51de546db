"""Every named query on a run, and its report, against a bare scan of it: `python -m tests.bench.bench_sql RUN`

The bare scan counts the values of each column of `samples` and `decisions`, with no join. Printed are seconds by the clock,
best of three: the query on an open run, the same with opening it, and the ratio to the bare scan; slowest first.
Parameters that queries need: the most frequent entry, the smallest kept uid, source and language.
"""

import argparse
import tempfile
import time
from contextlib import closing

from curate.ask.library import named_queries
from curate.ask.query import answer, open_run
from curate.ask.report.page import write_report

SCANS = ("SELECT count(COLUMNS(*)) FROM samples", "SELECT count(COLUMNS(*)) FROM decisions")
LIMIT = 2.0  # seconds, which a named query on a million rows is to stay under


def best(call, repeat=3):
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def ask(connection, text, params=None):
    """All rows."""
    return list(answer(connection, text, params).rows)


def ask_anew(url, query, params):
    """Opens the run, and asks."""
    with closing(open_run(url)) as connection:
        ask(connection, query.name, params)


def needs(connection, query):
    """Values for the parameters that a query cannot do without."""
    known = {"class": "SELECT 'source'", "context": "SELECT 'language'"}
    known["uid"] = "SELECT min(uid) FROM decisions WHERE kept"
    known["entry"] = "SELECT coalesce(arg_max(entry, pool), '') FROM entries"
    return {param.name: ask(connection, known[param.name])[0][0] for param in query.params if param.required}


def measure(url):
    """Name, seconds on an open run, seconds with opening, ratio to the bare scan; first the bare scan itself."""
    with closing(open_run(url)) as connection:
        bare = best(lambda: [ask(connection, scan) for scan in SCANS])
        opening = best(lambda: open_run(url).close())
        yield "(bare scan)", bare, bare + opening, 1.0
        for query in named_queries():
            params = needs(connection, query)
            seconds = best(lambda query=query, params=params: ask(connection, query.name, params))  # type: ignore[misc]
            anew = best(lambda query=query, params=params: ask_anew(url, query, params), 1)  # type: ignore[misc]
            yield query.name, seconds, anew, seconds / bare


def measure_report(url):
    """Seconds that the report takes, written elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        return best(lambda: write_report(url, f"{folder}/report.html"), 2)


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    url = parser.parse_args().run
    with closing(open_run(url)) as connection:
        [[rows]] = ask(connection, "SELECT count(*) FROM decisions")
    found = sorted(measure(url), key=lambda line: -line[1])
    print(f"{url}: {rows:,} rows\nquery                 open run  with opening  of a bare scan")
    for name, seconds, anew, ratio in found:
        print(f"{name:20} {seconds:7.3f} s     {anew:7.3f} s          {ratio:6.2f}")
    report, bare = measure_report(url), next(seconds for name, seconds, *_ in found if name == "(bare scan)")
    print(f"the report           {report:7.3f} s                          {report / bare:6.2f}")
    slow = [name for name, _, anew, _ in found if anew >= LIMIT]
    print(f"{len(found) - 1} queries; {LIMIT:g} s or more with opening: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
