"""README.md of a run: a plain dataset card."""

from typing import Any

from curate.schema import KEPT


def card_text(run: dict[str, Any]) -> str:
    """The card's text, from what run.json holds."""
    recipe, counts, images = run["recipe"], run["counts"], run["pool"]["images"]
    pool = sum(counts.values())
    kept = counts.get("kept", 0)
    lines = [
        f"# {run['name']}",
        "",
        f"{kept:,} image-text pairs curated from {pool:,} by curate {run['curate']}."
        if images
        else f"{kept:,} URL-text pairs curated from {pool:,} by curate {run['curate']}.",
        "",
        "| rule | rows |",
        "|---|---:|",
        f"| pool | {pool:,} |",
    ]
    lines += [f"| {name} | −{n:,} |" for name, n in counts.items() if n and name != KEPT]
    lines += [f"| **kept** | **{kept:,}** |", "", "## Sources", ""]
    lines += [f"- {source['name']} ({source['format']})" for source in recipe["input"]]
    if run.get("caption_work"):
        lines += [
            "",
            "## Captions",
            "",
            "Written by models, and judged; `.txt` is the original but for the shares below.",
            "",
        ]
        lines += [
            f"- {work['kind']} by `{work['model'].split()[0]}`: {work['passed']:,} of {work['requests']:,} texts passed"
            f", {work['replaced']:,} are in `.txt`"
            for work in run["caption_work"]
        ]
        mix = recipe["captions"]["output"]["mix"]
        lines += [f"- `.txt`: {', '.join(f'{share:.0%} {kind}' for kind, share in mix.items()) or 'originals only'}"]
    lines += ["", "## How to read it", ""]
    if images:
        lines += [
            "- Training: `shards/{00000..NNNNN}.tar` are webdataset shards (image, `.txt`, `.json` a sample); "
            "`shards/sizes.json` holds their rows.",
            "- Sidecars: `shards/*.parquet`, with img2dataset's columns.",
        ]
    else:
        lines += ["- `shards/*.parquet` hold all input columns of the kept rows, ready for img2dataset."]
    lines += [
        "- `uids.npy`: the kept uids (DataComp subset format).",
        "- `tables/`: what was measured and decided for every row of the pool; `curate sql DIR` asks in SQL, "
        "`curate explain DIR UID` tells why a sample is in or out.",
        "- `manifest.parquet` lists every file with its sha256; `curate verify DIR` checks them.",
        "",
        "Licence: that of the sources; curation adds no rights and removes none.",
        "",
    ]
    return "\n".join(lines)
