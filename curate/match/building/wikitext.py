"""Turns wikitext into its plain text, by one walk over its marks: linear in its length, whatever is nested or unclosed.

In: the wikitext of a page. Out: the text that a reader sees in its paragraphs, headings and lists. Templates, tables,
comments, references, formulas, code and galleries go, with all inside; so do images, categories and links to other
languages; of other links and tags what they show stays; entities are decoded.

What no mark closes is text, as in MediaWiki. Templates are not expanded, so their words are lost. Trade-off: 17 MB/s on
a real dump, where mwparserfromhell has 1.7, and 0.6 with references and images removed; its words are the same but for
1.3 in a hundred, mostly such as it loses behind a mark that nobody closed (see
`tests/match/building/test_wikitext.py`); a page that uses odd markup may keep a mark or lose a word.
"""

import html
import re
from collections.abc import Collection
from functools import lru_cache

_HIDDEN = (
    *("ref", "references", "math", "ce", "chem", "gallery", "timeline", "source", "syntaxhighlight", "score"),
    *("imagemap", "templatedata", "graph", "mapframe", "maplink", "hiero", "pre", "code", "style", "table"),
)
_TAG = rf"<(?P<close>/?)(?P<tag>{'|'.join(_HIDDEN)})(?=[\s/>])[^<>]*?(?P<alone>/?)>"
_MARKS = re.compile(rf"\{{\{{|\}}\}}|\{{\||\|\}}|\[\[|\]\]|{_TAG}", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ENDS = {"{{": "}}", "{|": "|}", "[[": "]]"}
_OTHERS = re.compile(
    r"</?[a-zA-Z][^<>]*>"  # other tags
    r"|'{2,5}"
    r"|__[A-Z]+__"
    r"|^(?:=+|[*#:;]+|-{4,})[ \t]*|(?<![ \t=])[ \t]*=+[ \t]*$"  # of headings and lists
    r"|\[(?:https?:|ftp:)?//[^\s\[\]]+[ \t]*([^\[\]\n]*)\]",
    re.MULTILINE,
)
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?\Z|simple\Z")
_MEDIA = frozenset({"file", "image", "media", "category"})
_DEEPEST = 64  # marks that are open at a time: the text inside is copied at the end of each


def strip_markup(text: str, namespaces: Collection[str] = ()) -> str:
    """Return the text of a page.

    `namespaces` are the names, in lower case, that files, media and categories have besides English ones.
    """
    text = _COMMENT.sub("", text)
    parts: list[list[str]] = [[]]  # the text inside of what is open, outermost first
    marks: list[str] = [""]  # and the mark or the tag that opened it
    texts: list[str] = [""]  # as it was written
    at = 0
    for match in _MARKS.finditer(text):
        mark, tag = match[0], (match["tag"] or "").lower()
        parts[-1].append(text[at : match.start()])
        at = match.end()
        if mark in _ENDS or (tag and not match["close"] and not match["alone"]):
            if len(marks) > _DEEPEST:
                parts[-1].append(mark)
                continue
            parts.append([])
            marks.append(tag or mark)
            texts.append(mark)
        elif not (tag and match["alone"]):
            closes = tag or next((opened for opened, end in _ENDS.items() if end == mark), "")
            depth = next((depth for depth in range(len(marks) - 1, 0, -1) if marks[depth] == closes), 0)
            if not depth:
                parts[-1].append("" if tag else mark)
                continue
            while len(marks) > depth + 1:  # what was not closed is text
                _unwind(parts, marks, texts)
            inner = "".join(parts.pop())
            marks.pop(), texts.pop()
            if mark == "]]":
                parts[-1].append(_show_link(inner, namespaces))
    parts[-1].append(text[at:])
    while len(marks) > 1:
        _unwind(parts, marks, texts)
    plain = _OTHERS.sub(lambda match: match[1] or "", "".join(parts[0]))
    return html.unescape(plain) if "&" in plain else plain


def _unwind(parts: list[list[str]], marks: list[str], texts: list[str]) -> None:
    """Make the innermost mark that is open a part of the text around it."""
    inner, mark, written = parts.pop(), marks.pop(), texts.pop()
    parts[-1].append("" if mark in _HIDDEN else written)
    parts[-1] += inner


def _show_link(inner: str, namespaces: Collection[str]) -> str:
    """Return what a link shows: its label, or else its target; of one that shows nothing in the text, nothing."""
    target, bar, label = inner.partition("|")
    space, colon, _ = target.partition(":")
    if colon and space and _is_hidden(space.strip(), frozenset(namespaces)):
        return ""
    if colon and inner.count("|") > 1:  # an image, under a name of its language
        return ""
    return label if bar and label else target.removeprefix(":")


@lru_cache(4096)
def _is_hidden(space: str, namespaces: frozenset[str]) -> bool:
    return bool(_LANGUAGE.match(space)) or space.lower() in _MEDIA or space.lower() in namespaces
