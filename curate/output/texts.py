"""What shards hold of a sample in JSON."""

import json
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def json_bytes(fields: dict[str, Any]) -> bytes:
    """Return the fields as UTF-8; what JSON has no word for (NaN, infinities, which Python reads all the same) is null."""
    try:
        return _encode(fields).encode()
    except ValueError:  # one of those, or a lone surrogate: JSON can spell it, UTF-8 cannot
        return json.dumps(json.loads(json.dumps(fields), parse_constant=lambda _: None)).encode()
