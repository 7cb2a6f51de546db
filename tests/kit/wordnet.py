"""Small WordNet databases, and nltk's own reader of WordNet."""

import warnings

import pytest

# The first lines of each index and data file; all files begin alike, so the first synsets of all parts have one offset.
LICENSE = "  1 This software and database is being provided to you  \n  2 WordNet 3.0 Copyright 2006 by Princeton  \n"
LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder, synsets, exceptions):
    """Write the database files of WordNet; return the offset of each noun lemma's last sense."""
    folder.mkdir(exist_ok=True)
    (folder / "lexnames").write_text("00\tadj.all\t3\n")
    offsets = {}
    for part, letter in LETTERS.items():
        data, index = LICENSE, offsets.setdefault(part, {})
        for words in map(str.split, synsets[part]):
            for word in words:
                index.setdefault(word, []).append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{len(data):08} 00 {letter} {len(words):02x} {listed} 000 | a gloss  \n"
        lines = [
            f"{word} {letter} {len(found)} {'2 @ ~' if found[0] == len(LICENSE) else '0'} {len(found)} 0 "
            + "".join(f"{offset:08} " for offset in found)
            for word, found in sorted(index.items())
        ]
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(LICENSE + "".join(f"{line} \n" for line in lines))
        (folder / f"{part}.exc").write_text(exceptions[part])
    return {word: found[-1] for word, found in offsets["noun"].items()}


def open_nltk(folder):
    """Yield nltk's own reader of a WordNet, with what version 3.8.1 does and later ones do not."""
    nltk = pytest.importorskip("nltk")
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def map_wn(self, version="wordnet"):  # later versions look for another WordNet, among their own data
            return {}

        def _morphy(self, form, pos, check_exceptions=True):  # later versions strip one ending
            forms, lemmas = [form], super()._morphy(form, pos, check_exceptions)
            while forms and not lemmas and form not in self._exception_map[pos]:
                rules = self.MORPHOLOGICAL_SUBSTITUTIONS[pos]
                forms = [f.removesuffix(old) + new for f in forms for old, new in rules if f.endswith(old)]
                lemmas = [f for f in forms if pos in self._lemma_pos_offset_map.get(f, {})]
            return lemmas

    nltk.data.path.append(str(folder))  # later versions read no other folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Reader(str(folder), None)
    nltk.data.path.remove(str(folder))
