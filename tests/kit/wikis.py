"""Small dumps, page views, and wordnets of three languages, drawn from a seed, and builds of metadata from them."""

import bz2
import gzip
import random
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from xml.sax.saxutils import escape

import pytest

from curate.match.building.parts import make_plan
from curate.match.building.steps import build_metadata, gather_entries
from curate.match.building.wikis import BuildSettings, Limits, Mode
from curate.run.in_process import InProcessUnits
from curate.store.store import RunStore

SMALL = {"pmi": 4, "count": 20, "views": 120, "words": 60, "pairs": 25, "titles": 12}

NAMESPACES = {"de": ((6, "Datei"), (14, "Kategorie")), "ja": ((6, "ファイル"), (14, "カテゴリ")), "en": ((6, "File"),)}
KANJI = [
    "日本", "言語", "処理", "東京", "大学", "研究", "です", "の", "は", "を", "アメリカ", "写真", "犬", "猫", "。", "、", "「猫」", "abc",
]  # fmt: skip
WORDS = {
    "de": [
        "Haus", "Straße", "der", "die", "und", "Köln", "z.B.", "St.", "Dr.", "„Zitat“", "C++", "größe", "e\u0301tude",
        "字典", "2020", "-", "(alt)",
    ],
    "en": [
        "the", "of", "and", "dog", "cat", "hot", "New", "York", "St.", "Louis", "photo", "it's", "U.S.", "café", "中文",
        "—", "[x]",
    ],
    "ja": KANJI,
}  # fmt: skip


def draw_text(language, rng):
    """Return wikitext with all kinds of markup."""
    vocabulary = [*WORDS[language], *(f"{word}{number}" for word in WORDS[language][:8] for number in range(20))]
    space = "" if language == "ja" else " "
    forms = ["%s"] * 8 + [
        "'''%s'''", "[[%s]]", "[[Ziel|%s]]", "{{Vorlage|%s}}", "<ref>%s</ref>", "<b>%s</b>", "%s,", "%s.",
        "<!-- %s -->",
    ]  # fmt: skip
    forms += [
        "\n== %s ==\n", "\n* %s", "[[Datei:a.jpg|thumb|%s]]", "{|\n| %s\n|}", "&amp;%s", "[http://x.org %s]", "%s\n",
        "{{a|{{b}}|%s}}",
    ]  # fmt: skip
    words = (vocabulary[min(int(rng.paretovariate(0.7)) - 1, len(vocabulary) - 1)] for _ in range(rng.randint(3, 200)))
    return space.join(rng.choice(forms) % word for word in words)


def draw_dump(language, pages, seed=0, of_stream=7):
    """Return a multistream dump, and the wikitext of its articles."""
    rng, articles, texts = random.Random(f"{language}{seed}"), [], []
    names = "".join(f'<namespace key="{key}">{name}</namespace>' for key, name in NAMESPACES[language])
    head = f'<mediawiki xml:lang="{language}"><siteinfo><namespaces>{names}</namespaces></siteinfo>\n'
    for number in range(pages):
        text, ns, redirect = draw_text(language, rng), rng.choice([0, 0, 0, 1]), rng.random() < 0.1
        mark = '<redirect title="x" />' if redirect else ""
        body = f'<revision><text xml:space="preserve">{escape(text)}</text></revision>'
        articles.append(f"  <page><title>{number}</title><ns>{ns}</ns>{mark}{body}</page>\n")
        texts += [text] if ns == 0 and not redirect else []
    streams = [head, *("".join(articles[at : at + of_stream]) for at in range(0, pages, of_stream)), "</mediawiki>\n"]
    return b"".join(bz2.compress(stream.encode()) for stream in streams), texts


def draw_views(files, rng):
    """Return hours of page views: for sites, their mobile versions, and sister projects, with some broken lines."""
    titles = [
        "Haus", "Köln_(Stadt)", "Spezial:Suche", "New_York", "the", "日本", "犬", "St._Louis", "-", "_x",
        *(f"T{i}" for i in range(40)),
    ]  # fmt: skip
    hours = []
    for _ in range(files):
        lines = [
            f"{project} {title} {max(1, int(rng.paretovariate(0.5)) % 3000)} 0"
            for project in ("de", "de.b", "de.m", "de.m.b", "en", "en.m", "ja", "ja.m", "fr", '""')
            for title in rng.sample(titles, 25)
        ]
        hours.append("\n".join([*lines, "de broken", "de x y z w", "de a ten 0", "ja b -3 0"]) + "\n")
    return hours


def write_all(folder, pages=60):
    """Write dumps, page views and wordnets; return the wikitext of each language's articles."""
    texts = {}
    for language in WORDS:
        data, texts[language] = draw_dump(language, pages)
        (folder / f"{language}wiki-20260101-pages-articles-multistream.xml.bz2").write_bytes(data)
    (folder / "views").mkdir()
    for number, hour in enumerate(draw_views(3, random.Random(3))):
        (folder / f"views/pageviews-20260101-{number:02}0000.gz").write_bytes(gzip.compress(hour.encode()))
    (folder / "wordnets").mkdir()
    (folder / "wordnets/wn-data-jpn.tab").write_text(
        "# Japanese\n1-n\tlemma\t犬\n1-n\tjpn:lemma\tいぬ_いえ\n2-n\tlemma\t、\n2-n\tjpn:def\t0\tx\n3-n\tlemma\tまき+絵\n"
    )
    for name, lines in {
        "noun": ["1 03 n 02 hot_dog 0 frank 0 000 | x", "2 03 n 01 St._Louis 0 000 | y", "3 03 n 01 dog 0 000 |"],
        "verb": ["1 29 v 01 cut 0 000 |"],
        "adj": ["1 00 a 01 alive(p) 0 000 |"],
        "adv": ["1 02 r 01 a_la_carte 0 000 |"],
    }.items():
        (folder / f"wordnets/data.{name}").write_text("  1 licence\n" + "\n".join(lines) + "\n")
    return texts


def build(folder, mode, parts=1, languages=()):
    """Builds metadata of what is in the folder, in this process; each dump is cut into so many parts."""
    dumps = sorted(map(str, folder.glob("*.bz2")))
    with pytest.MonkeyPatch.context() as patched:
        size = max(Path(dump).stat().st_size for dump in dumps) // parts + 1
        patched.setattr("curate.match.building.parts.PART_BYTES", size)
        plan = make_plan(dumps, [str(folder / "views")], [str(folder / "wordnets")], languages, Mode(mode))
    assert sum(part.kind == "dump" for part in plan.parts) >= parts
    out = folder / f"{mode}-{parts}.parquet"
    return out, build_plan(plan, out, mode, Limits(**SMALL))


def build_plan(plan, out, mode, limits, *english):
    """Builds the metadata of a plan in this process, and returns the report."""
    settings = BuildSettings(RunStore(f"{out}.building"), Mode(mode), plan.keys, limits)
    context = SimpleNamespace(open_tables=lambda unit: nullcontext())
    build_metadata(InProcessUnits(plan.parts, context), settings)
    return gather_entries(settings, str(out), *english)
