"""The uid of a sample's content, as the specification has it: what `curate.base.ids.make_uids` is compared with."""

import xxhash


def content_uid(url, sha256, caption):
    """Return the xxh3-128 of `URL NUL caption`, or of `sha256 NUL caption` (in hex digits)."""
    return xxhash.xxh3_128_hexdigest(f"{url or sha256 or ''}\0{caption}".encode())
