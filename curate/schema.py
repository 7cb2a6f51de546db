"""The one definition of every table: Arrow schemas, and the codes that `status`, `rule` and `reason` may hold.

Row-aligned tables (`samples`, `scores`, `matches`, `members`, `decisions`) have one file per unit; row i of each is the
i-th sample of the unit, the unreadable ones included. (unit, row) is the key. A uid names a pair: it may repeat in a
pool, never among the kept, and is null where the row could not be read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

ALIGNED = [pa.field("unit", pa.int32()), pa.field("row", pa.int32()), pa.field("uid", pa.string())]

SAMPLES = pa.schema(
    [
        *ALIGNED,
        pa.field("source", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("key", pa.string()),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("language", pa.string()),
        pa.field("words", pa.int32()),
        pa.field("characters", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("bytes", pa.int64()),
        pa.field("format", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.uint64()),
        pa.field("offset", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
    ]
)

# Where the members of a tar sample lie, in the order of the tar: what emit copies. Not measured, so not in `samples`.
MEMBERS = pa.schema(
    [
        *ALIGNED,
        pa.field("suffix", pa.list_(pa.string())),
        pa.field("offset", pa.list_(pa.int64())),
        pa.field("size", pa.list_(pa.int64())),
    ]
)

MATCHES = pa.schema([*ALIGNED, pa.field("entry_ids", pa.list_(pa.int32()))])

DECISIONS = pa.schema(
    [
        *ALIGNED,
        pa.field("kept", pa.bool_()),
        pa.field("rule", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("draw", pa.float64()),
    ]
)

# What engines said, one row a request; `captions` is made of it.
ANSWERS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("style", pa.string()),
        pa.field("ordinal", pa.int32()),
        pa.field("digest", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("tokens_in", pa.int32()),
        pa.field("tokens_out", pa.int32()),
        pa.field("finish", pa.string()),
        pa.field("error", pa.string()),
    ]
)

# Texts and what the gates said of them: `gate` is `passed` or the first that failed, `failed` all that did.
CAPTIONS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("style", pa.string()),
        pa.field("ordinal", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("model", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("clip_score", pa.float32()),
        pa.field("gate", pa.string()),
        pa.field("tokens", pa.int32()),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("failed", pa.list_(pa.string())),
    ]
)

# Where the phrases of a kept caption are in its image: boxes in pixels of the upright image, x0, y0, x1, y1.
REGION = pa.struct([("bbox", pa.list_(pa.float32(), 4)), ("phrase", pa.string()), ("score", pa.float32())])
REGIONS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("digest", pa.string()),
        pa.field("regions", pa.list_(REGION)),
        pa.field("model", pa.string()),
        pa.field("error", pa.string()),
    ]
)

# What captions took, one row a kind: requests and those that had to be sent, those without an answer, tokens, seconds of the
# engine, cost by the recipe's price (null without one).
CAPTION_WORK = pa.schema(
    [
        pa.field("kind", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("model", pa.string()),
        *(
            pa.field(name, pa.int64())
            for name in ("requests", "sent", "failed", "passed", "replaced", "tokens_in", "tokens_out")
        ),
        pa.field("seconds", pa.float64()),
        pa.field("cost", pa.float64()),
    ]
)

FAILURES = pa.schema([(name, pa.string()) for name in ("shard", "key", "reason", "detail")])

METADATA = pa.schema(
    [("entry_id", pa.int32()), ("entry", pa.string()), ("source", pa.string()), ("language", pa.string())]
)

ENTRIES = pa.schema(
    [
        *METADATA,
        pa.field("pool", pa.int64()),
        pa.field("survivors", pa.int64()),
        pa.field("probability", pa.float64()),
        pa.field("expected", pa.float64()),
        pa.field("kept", pa.int64()),
    ]
)

MANIFEST = pa.schema([("path", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64()), ("sha256", pa.string())])

# forgotten.parquet: what was taken out of the run, and what later ones block, one row an item, in requests as they came.
# `value`: hex digits of the uid, of the image's sha256, or of the sha256 of the URL's text; no URL and nobody's name is here.
# `origin`: `requested`; `linked`, a name of a row that was requested; `encountered`, one that a run with a blocklist came
# across. `rows`: of this pool that the item named. `shards`: that the request changed.
FORGOTTEN_ITEMS = pa.schema(
    [
        pa.field("request", pa.int32()),
        pa.field("kind", pa.string()),
        pa.field("value", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("time", pa.timestamp("ms", "UTC")),
        pa.field("rows", pa.int64()),
        pa.field("shards", pa.int64()),
    ]
)

OK = "ok"


@dataclass(frozen=True)
class Stage:
    """What may become of a row.

    Attributes:
        name: of the row in `decisions.rule`, in the counts of run.json and in the funnel; of `RULES`, no row's.
        code: of the row in `UnitState.verdicts`; a rule's code is its position among the rules.
        meaning: for people, of all rows.
        reason: for people, of one row: `str.format` fills in what `curate explain` knows of it.
        section: the recipe's section that the stage needs, as a dotted key; empty where it needs none.
    """

    name: str
    code: int
    meaning: str
    reason: str
    section: str = ""


# In the order in which they apply. RULES stands for the recipe's own, in their order.
STAGES = (
    Stage("failed", -2, "could not be read, or has no caption", "could not be read: {failure}"),
    Stage("forgotten", -7, "taken out on request", "taken out on request{date}"),
    Stage("rules", 0, "a rule of the recipe", "the first rule that it fails"),
    Stage(
        "unmatched",
        -3,
        "no entry of the metadata occurs in the caption",
        "no entry of the metadata occurs in its caption",
        "match",
    ),
    Stage(
        "contaminated",
        -4,
        "near an image of the evaluation set",
        "near an image of the evaluation set: {duplicate_of}",
        "dedup.against",
    ),
    Stage("duplicate", -5, "another sample represents it", "a duplicate of {duplicate_of}"),
    Stage(
        "balance",
        -6,
        "not drawn: all its entries are frequent",
        "its draw {draw} is not below 1 (probability {probability})",
        "balance",
    ),
    Stage("kept", -1, "the curated set", "its draw {draw} is below 1 (probability {probability})"),
)
FAILED, FORGOTTEN, RULES, UNMATCHED, CONTAMINATED, DUPLICATE, BALANCE, KEPT = (stage.name for stage in STAGES)
STAGE = {stage.name: stage for stage in STAGES if stage.name != RULES}
CODES = {name: stage.code for name, stage in STAGE.items()}
POOL = "pool"  # no stage, but the first line of the funnel
RESERVED_RULES = (*STAGE, POOL)  # names that a recipe's rules may not have


def run_stages(rules: Sequence[str], sections: Collection[str], forgotten: bool) -> list[Stage]:
    """Return the stages of a run in the order in which they apply, one for each rule, `kept` last.

    Args:
        rules: their names, in order.
        sections: those of `Stage.section` that the run's recipe has; others are ignored.
        forgotten: whether some rows are taken out on request, which no recipe says.
    """
    stages: list[Stage] = []
    for stage in STAGES:
        if stage.name == RULES:
            stages += [replace(stage, name=name, code=position) for position, name in enumerate(rules)]
        elif forgotten if stage.name == FORGOTTEN else not stage.section or stage.section in sections:
            stages.append(stage)
    return stages


# `samples.status` and `failures.reason` of a sample that could not be read.
SAMPLE_REASONS = {
    "no_image": "the sample has no image member, or its image column is null",
    "no_caption": "the sample has no .txt and no caption in its json, or its caption column is null",
    "empty_caption": "the caption holds nothing but white space",
    "caption_not_utf8": "the caption is not UTF-8",
    "caption_nul": "the caption holds a NUL",
    "caption_too_long": "the caption is longer than 10,000 characters",
    "invalid_json": "the sample's json is not a JSON object",
    "no_url": "the pool has a URL column and no images, and this row has no URL",
    "duplicate_key": "another sample of the same tar has this key; the first one stays",
    "duplicate_member": "one sample has two members with the same suffix",
    "link_member": "a member is a link; links are never followed",
    "truncated_member": "the file ends inside a member",
    "empty_image": "the image has 0 bytes",
    "not_an_image": "the bytes are no image in a format that the decoder knows",
    "truncated_image": "the image ends before its last pixel, or is damaged",
    "too_many_pixels": "the header announces more pixels than the limit; refused before decoding",
}

# `failures.reason` of a file that could not be read at all: its samples are unknown.
FILE_REASONS = {
    "empty_file": "the file has 0 bytes",
    "not_a_tar": "the file does not begin with a tar header",
    "compressed_tar": "the tar is compressed, so it has no offsets to read from",
    "not_parquet": "the file is not Parquet, or its footer is damaged",
    "no_caption_column": "the Parquet file has no caption column",
    "wrong_type": "a column holds something else than the recipe needs",
    "unreadable": "the file could not be opened or read",
}

DAMAGED_EMBEDDINGS = "damaged_embeddings"

# `failures.reason` of a file that was read in part: the samples before the damage are used. Files whose embeddings cannot
# be used count as unread: of the rest rules may see nothing that they are about.
DAMAGE_REASONS = {
    "truncated_tar": "the file ends inside a member, a header or its padding",
    "damaged_tar": "a header is damaged; nothing after it can be read",
    "damaged_row_group": "a row group of a Parquet file cannot be decoded; the others are used",
    DAMAGED_EMBEDDINGS: "the precomputed embeddings of a file are missing, damaged or do not fit; its rows have none",
}
