"""croissant.json: the run as Croissant 1.0 metadata (MLCommons, http://mlcommons.org/croissant/1.0), written by hand.

In: what run.json holds, and what the shards are. Out: JSON-LD that `mlcroissant` validates, and by which it iterates
over the shards' Parquet files (record set `samples`). Files are listed singly, with their sha256, while they are few.
The publisher adds who publishes the dataset, and where; `datePublished`, which is demanded, is the day it finished.
"""

import datetime
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import pyarrow as pa

from curate.emit.output_format import OutputFormat, find_written
from curate.publish.card import UNKNOWN, citation, languages, steps, summary
from curate.store.facts import RunFacts
from curate.store.manifest import Published

_LISTED = 200  # files that are listed singly

_PLAIN = re.compile(r"[A-Za-z_][\w-]*")  # a column's name that is part of an @id as it is
_PARQUET = "application/x-parquet"


def croissant(run: RunFacts, digests: Iterable[Published], columns: pa.Schema | None) -> dict[str, Any]:
    """Return a run's metadata, from its manifest's lines and the `columns` of shards/*.parquet (None: nothing kept)."""
    kind = find_written(run)
    types = {kind.suffix: kind.media_type, "parquet": _PARQUET}
    lines = sorted(digests, key=lambda line: line.path)
    shards = [line for line in lines if line.path.startswith("shards/") and line.path.rpartition(".")[2] in types]
    license = run.recipe.get("license", UNKNOWN)
    files = [*(_sets(kind) if shards else ()), *(_file(line, types) for line in shards if len(shards) <= _LISTED)]
    personal = "Captions and images come from the sources as they are, and may show or name people."
    return {
        "@context": json.loads(resources.files("curate.publish").joinpath("croissant_context.json").read_bytes()),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": run.name,
        "description": summary(run),
        "license": "unknown: that of each sample's source" if license == UNKNOWN else license,
        "url": "./",
        "version": "1.0.0",
        "datePublished": datetime.datetime.fromtimestamp(run.finished, datetime.UTC).date().isoformat(),
        "citeAs": citation(run),
        "inLanguage": languages(run),
        "keywords": ["image-text", "curated", *kind.tags],
        "rai:dataPreprocessingProtocol": [f"{name}: {text}" for name, text in steps(run)],
        "rai:personalSensitiveInformation": personal,
        "distribution": files,
        "recordSet": [] if columns is None else [_records(columns, kind)],
    }


def _node(kind: str, name: str, identity: str, **more: Any) -> dict[str, Any]:
    return {"@type": f"cr:{kind}", "@id": identity, "name": name, **more}


def _sets(kind: OutputFormat) -> list[dict[str, Any]]:
    sets = {kind.suffix: (*kind.file_set, kind.media_type)}
    sets.setdefault("parquet", ("parquet", "one row per sample, one file per shard", _PARQUET))
    return [
        _node("FileSet", name, name, description=text, encodingFormat=media_type, includes=f"shards/*.{suffix}")
        for suffix, (name, text, media_type) in sets.items()
    ]


def _file(line: Published, types: Mapping[str, str]) -> dict[str, Any]:
    name, kind = line.path.rpartition("/")[2], types[line.path.rpartition(".")[2]]
    about = {"contentUrl": line.path, "contentSize": f"{line.bytes} B", "encodingFormat": kind, "sha256": line.sha256}
    return _node("FileObject", name, line.path, **about)


def _records(columns: pa.Schema, kind: OutputFormat) -> dict[str, Any]:
    """Return the record set of shards/*.parquet, without columns of a type that Croissant does not know or no name."""
    fields = []
    for place, field in enumerate(columns):
        data_type, repeated = _data_type(field.type)
        if data_type and field.name:
            identity = f"samples/{field.name if _PLAIN.fullmatch(field.name) else place}"
            source = {"fileSet": {"@id": "parquet"}, "extract": {"column": field.name}}
            about = {"dataType": data_type, "source": source} | ({"repeated": True} if repeated else {})
            fields.append(_node("Field", field.name, identity, **about))
    text = "The kept samples, without their images." if kind.has_members else "The kept samples."
    return _node("RecordSet", "samples", "samples", description=text, key={"@id": "samples/uid"}, field=fields)


def _data_type(kind: pa.DataType) -> tuple[str | None, bool]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _data_type(kind.value_type)[0], True
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "sc:Text", False
    if pa.types.is_integer(kind):
        return "sc:Integer", False
    if pa.types.is_floating(kind):
        return "sc:Float", False
    return ("sc:Boolean" if pa.types.is_boolean(kind) else None), False
