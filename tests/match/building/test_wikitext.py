"""The plain text of wikitext: by examples, with any nesting, and compared with mwparserfromhell on real dumps."""

import re
import time
from collections import Counter
from contextlib import suppress
from importlib.resources import files

import mwparserfromhell
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.match.building.dumps import Articles
from curate.match.building.wikitext import _HIDDEN, _LANGUAGE, _MEDIA, strip_markup


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("'''Köln''' ist ''eine'' Stadt.", "Köln ist eine Stadt."),
        ("[[Haus]] und [[Haus (Film)|der Film]]s", "Haus und der Films"),
        ("a {{Infobox|x={{y|z}}|w={{{1|}}}}} b", "a  b"),
        ("a<ref name=\"x\">{{cite|b}} c</ref> d<ref name='y' /> e", "a d e"),
        ("{| class=wikitable\n|-\n| a || {{b}}\n{|\n| c\n|}\n|}\nText", "\nText"),
        ("[[Datei:a.jpg|thumb|ein [[Haus]] hier]] Text", " Text"),
        ("[[Bild:a.jpg|mini|200px|x]]y", "y"),
        ("[[Kategorie:Haus]][[category:x]][[fr:Maison]][[:fr:Maison|franz]][[wikt:x|ja]]", "franzja"),
        ("== Titel ==\n* eins\n## zwei\n----\n: drei", "Titel\neins\nzwei\n\ndrei"),
        ("[https://a.b/c das Wort] [http://x.y] [sic]", "das Wort  [sic]"),
        ("a&nbsp;b &amp; c &lt;d", "a\xa0b & c <d"),
        ("a<!-- b --> c<br/>d <b>e</b> <!-- f", "a cd e "),
        ("<math>x^2</math><gallery>\na.jpg|b\n</gallery>y __NOTOC__", "y "),
        ("offen {{ und [[hier", "offen {{ und [[hier"), ("zu }} und ]] viel |}", "zu }} und ]] viel |}"),
        ("{{a [[b}} c]]", " c]]"), ("[[a|b [[c|d]] e]]", "b d e"), ("x <ref>open", "x open"),
        ("{{{{{{{{", "{{{{{{{{"), ("", ""),
    ],
)  # fmt: skip
def test_examples(text, plain):
    assert strip_markup(text, {"datei", "kategorie"}) == plain


PARTS = [
    "{{", "}}", "[[", "]]", "{|", "|}", "<ref>", "</ref>", "<ref/>", "|", "a", ":", "de:", "\n", "''", "=", "<!--",
    "-->", "&lt;", " ",
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=40))
def test_whatever_is_left_open_it_ends_in_text(parts):
    plain = strip_markup("".join(parts))
    assert plain.count("a") <= parts.count("a")
    marks = [part for part in parts if part in PARTS[:9] or part in ("<!--", "-->")]
    if not marks:
        assert plain.count("a") == parts.count("a")


@pytest.mark.thorough
def test_it_takes_time_by_the_length_alone():
    for part in (*PARTS, "[[a|", "{{a|", "<ref ", "=x", " =", "[http://", "[[a:", "&", "<a ", "{{}}", "[[]]"):
        began = time.process_time()
        strip_markup(part * 20_000)
        assert time.process_time() - began < 1, part


def of_peer(text, namespaces):
    """What mwparserfromhell returns after removing what curate leaves out."""
    code = mwparserfromhell.parse(text)
    hidden = code.filter_tags(matches=lambda tag: str(tag.tag).lower() in _HIDDEN)
    for link in code.filter_wikilinks():
        space, colon, _ = str(link.title).partition(":")
        if colon and space and (space.strip().lower() in _MEDIA | namespaces or _LANGUAGE.match(space.strip())):
            hidden.append(link)
    for node in hidden:
        with suppress(ValueError):  # it was in another
            code.remove(node)
    return str(code.strip_code())


DUMPS = {
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": 0.985, "enwiki-table-markup.xml.bz2": 0.96,
    "bgwiki-latest-pages-articles-shortened.xml.bz2": 1.0,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), DUMPS.items())
def test_words_of_a_real_dump_are_those_of_mwparserfromhell(name, share):
    """In the dumps that gensim ships. Most differences are templates that only one of them takes for closed."""
    path = files("gensim").joinpath(f"test/test_data/{name}")
    with path.open("rb") as file:
        articles = Articles(file, name, 0, 1 << 40)
        pages = list(articles)
    assert pages
    ours, theirs = Counter(), Counter()
    for page in pages:
        ours.update(re.findall(r"\w+", strip_markup(page, articles.namespaces)))
        theirs.update(re.findall(r"\w+", of_peer(page, articles.namespaces)))
    assert (ours & theirs).total() >= share * max(ours.total(), theirs.total())
