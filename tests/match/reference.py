"""The spacing of MetaCLIP's substring matching, by its definition."""


def spaced(text):
    """A text as entries with a space on both sides are looked for in it."""
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for white in "\t\n\r":
        text = text.replace(white, " ")
    return text
