"""Which text of a sample is its `.txt`, and what its `.json` says of the others.

The original stays for most samples, as training wants it: a share of them gets a text of another kind, chosen by a hash of
uid and seed, so it is the same whatever else is in the shard. Only texts that passed all gates come out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from curate import ids
from curate.captions.gates.gates import PASSED
from curate.pool.plan import Unit
from curate.run.context import RunContext

_MIX, _CHOICE = ids.hash64("captions.output.mix"), ids.hash64("captions.output.choice")


@dataclass(frozen=True)
class Texts:
    """A sample's texts that passed, by kind, in the order of style and ordinal: (style, ordinal, text)."""

    by_kind: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)

    def of(self, kind: str) -> list[str]:
        """The texts of a kind."""
        return [text for _, _, text in self.by_kind.get(kind, ())]


class Chosen(NamedTuple):
    """A text that stands for the original in `.txt`."""

    kind: str
    style: str
    text: str


class Written(NamedTuple):
    """What the shards say of a sample.

    Attributes:
        chosen: the text that stands for the original in `.txt`; None where the original stays.
        fields: `captions` of the json.
        synthetic: DataCompDR's list of texts, where it is asked for.
        regions: field `regions` of the json, where it is asked for: list of bbox, phrase, score; null where it failed.
    """

    chosen: str | None
    fields: dict[str, Any]
    synthetic: list[str] | None
    regions: Mapping[str, Any] = MappingProxyType({})


def read_texts(context: RunContext, unit: Unit) -> dict[str, Texts]:
    """The texts of the unit's samples by uid, those that have some."""
    table = context.read("captions", unit, ["uid", "kind", "style", "ordinal", "text", "gate"])
    table = table.filter(pc.equal(table["gate"], PASSED))
    found: dict[str, Texts] = {}
    for uid, kind, style, ordinal, text in zip(*(column.to_pylist() for column in table.columns[:5]), strict=True):
        found.setdefault(uid, Texts()).by_kind.setdefault(kind, []).append((style, ordinal, text))
    return found


def choose_text(context: RunContext, uid: str, texts: Texts) -> Chosen | None:
    """What stands for the original in `.txt`; None where the original stays."""
    assert context.recipe.captions is not None
    u = _uniform(uid, context.recipe.seed, _MIX)
    mix = context.recipe.captions.output.mix
    for kind in ("recaption", "fused", "rewrite"):
        share = mix.get(kind, 0.0)
        if u < share:
            found = texts.by_kind.get(kind)
            if not found:
                return None
            style, _, text = found[int(_uniform(uid, context.recipe.seed, _CHOICE) * len(found))]
            return Chosen(kind, style, text)
        u -= share
    return None


def count_replaced(context: RunContext, unit: Unit) -> Counter[tuple[str, str]]:
    """How many samples of the unit have another text than the original as `.txt`, by kind and style."""
    assert context.recipe.captions is not None
    if not context.recipe.captions.output.mix:
        return Counter()
    chosen = (choose_text(context, uid, texts) for uid, texts in read_texts(context, unit).items())
    return Counter((one.kind, one.style) for one in chosen if one)


def caption_fields(context: RunContext, original: str, texts: Texts) -> dict[str, Any]:
    """`captions` of the json: original, and what the recipe asks for, as far as it passed.

    recaption: list of texts; fused: a text; rewrite: style → text; translation: language → text. Further texts of a style are
    named human_2, human_3 …, those of fused are in table `captions` alone.
    """
    captions = context.recipe.captions
    assert captions is not None
    fields: dict[str, Any] = {"original": original}
    if captions.recaption:
        fields["recaption"] = texts.of("recaption")
    if captions.fuse:
        fields["fused"] = next(iter(texts.of("fused")), None)
    for name, kind in (("rewrite", captions.rewrite), ("translation", captions.translate)):
        if kind:
            named = texts.by_kind.get(name, ())
            fields[name] = {style if not ordinal else f"{style}_{ordinal + 1}": text for style, ordinal, text in named}
    return fields


def synthetic_texts(texts: Texts) -> list[str]:
    """DataCompDR's `syn.json`: all texts that were written of the image."""
    return [*texts.of("recaption"), *texts.of("fused"), *texts.of("rewrite")]


def _uniform(uid: str, seed: int, purpose: int) -> float:
    """A number in [0, 1) that depends on uid, seed and purpose alone."""
    low = np.array([int(uid[16:], 16)], np.uint64)
    mixed = ids.mix64(low ^ ids.mix64(np.array([(purpose + seed) % 2**64], np.uint64)))
    return float(mixed[0] >> np.uint64(11)) * 2.0**-53


def written_texts(context: RunContext, unit: Unit, uids: Sequence[str], originals: Sequence[str]) -> list[Written]:
    """What the shards say of each row; nothing but the original where no captions are asked for."""
    if not context.recipe.captions:
        return [Written(None, {"original": original}, None) for original in originals]
    found = read_texts(context, unit)
    regions = {}
    if context.recipe.captions.regions:
        table = context.read("regions", unit, ["uid", "regions"])
        regions = dict(zip(table["uid"].to_pylist(), table["regions"].to_pylist(), strict=True))
    syn = context.recipe.captions.output.syn_json
    written = []
    for uid, original in zip(uids, originals, strict=True):
        texts = found.get(uid, Texts())
        fields = caption_fields(context, original, texts)
        boxes = {"regions": regions[uid]} if uid in regions else {}
        chosen = choose_text(context, uid, texts)
        written.append(Written(chosen and chosen.text, fields, synthetic_texts(texts) if syn else None, boxes))
    return written
