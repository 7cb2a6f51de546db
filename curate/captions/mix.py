"""Picks the text for a sample's `.txt`, and lists the other texts in its `.json`.

Most samples keep the original caption, which training needs. A configured share gets a text of another kind, chosen by
a hash of uid and seed. Only texts that passed all gates are written.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids
from curate.base.numeric.elementary import mix64
from curate.captions.gates.gate import PASSED
from curate.captions.kinds.kind import Text
from curate.recipe.captions import CAPTION_KINDS, Captions
from curate.store.tables import UnitTables

_MIX, _CHOICE = ids.hash64("captions.output.mix"), ids.hash64("captions.output.choice")
# A sample's texts that passed all gates, by kind, sorted by style and ordinal.
Texts = Mapping[str, Sequence[Text]]


class EmittedTexts(NamedTuple):
    """A sample's texts in the shards."""

    chosen: str | None  # replaces the original in `.txt`; None keeps the original
    fields: dict[str, Any]  # `captions` of the json; empty without captions
    # DataCompDR's list of texts, if requested. If none passed, it has the original: MobileCLIP's loader must draw one.
    synthetic: list[str] | None
    regions: dict[str, Any]  # field `regions` of the json, if requested; null if detection failed


_NO_TEXTS = EmittedTexts(None, {}, None, {})


def read_texts(tables: UnitTables, uids: pa.Array | None = None) -> Mapping[str, Texts]:
    """Return the texts of the samples that have any, by uid. `uids` limits the samples; None: the whole unit."""
    table = tables.read("captions", ["uid", "kind", "style", "ordinal", "text", "gate"])
    table = table.filter(pc.equal(table["gate"], pa.scalar(PASSED)))
    if uids is not None:
        table = table.filter(pc.is_in(table["uid"], uids))
    texts: dict[str, dict[str, list[Text]]] = {}
    for uid, kind, *text in zip(*(column.to_pylist() for column in table.columns[:5]), strict=True):
        texts.setdefault(uid, {}).setdefault(kind, []).append(Text(*text))
    return texts


def choose_text(captions: Captions, seed: int, uid: str, texts: Texts) -> tuple[str, Text] | None:
    """Return the kind and text that replace the original in `.txt`; None to keep the original."""
    u = _uniform(uid, seed, _MIX)
    for kind in _replacing():
        share = captions.output.mix.get(kind, 0.0)
        if u < share:
            of_kind = texts.get(kind)
            return (kind, of_kind[int(_uniform(uid, seed, _CHOICE) * len(of_kind))]) if of_kind else None
        u -= share
    return None


def count_replaced(captions: Captions, seed: int, tables: UnitTables) -> Counter[tuple[str, str]]:
    """Return by kind and style how many of the unit's samples have a new text in `.txt`."""
    if not captions.output.mix:
        return Counter()
    choices = (choose_text(captions, seed, uid, texts) for uid, texts in read_texts(tables).items())
    return Counter((choice[0], choice[1].style) for choice in choices if choice)


def _replacing() -> list[str]:
    return [kind.kind for kind in CAPTION_KINDS.kinds().values() if kind.replaces]


def emitted_texts(
    captions: Captions | None, seed: int, tables: UnitTables, uids: Sequence[str], originals: Sequence[str]
) -> list[EmittedTexts]:
    """Return each row's texts for the shards; empty if the recipe has no captions."""
    if captions is None:
        return [_NO_TEXTS] * len(uids)
    uid_array = pa.array(uids, pa.string())
    texts_of = read_texts(tables, uid_array)
    regions = {}
    if captions.regions:
        table = tables.read("regions", ["uid", "regions"])
        table = table.filter(pc.is_in(table["uid"], uid_array))
        regions = {uid: {"regions": boxes} for uid, boxes in zip(*table.to_pydict().values(), strict=True)}
    emitted, sections = [], [task.section for task in captions.requested]
    for uid, original in zip(uids, originals, strict=True):
        texts = texts_of.get(uid, {})
        choice = choose_text(captions, seed, uid, texts)
        text = choice[1].text if choice else None
        fields = {section.kind: section.json_value(texts.get(section.kind, ())) for section in sections}
        synthetic = [text.text for kind in _replacing() for text in texts.get(kind, ())] or [original]
        listed = synthetic if captions.output.syn_json else None
        emitted.append(EmittedTexts(text, {"original": original, **fields}, listed, regions.get(uid, {})))
    return emitted


def _uniform(uid: str, seed: int, purpose: int) -> float:
    low = np.array([int(uid[16:], 16)], np.uint64)
    mixed = mix64(low ^ mix64(np.array([(purpose + seed) % 2**64], np.uint64)))
    return float(mixed[0] >> np.uint64(11)) * 2.0**-53
