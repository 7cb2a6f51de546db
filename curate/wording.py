"""Counts, sizes and durations as people write them."""


def pluralise(number: int, noun: str, nouns: str = "") -> str:
    """So many of something: 1 shard, 1,200 shards; `nouns` is its plural where that is no s more."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def format_bytes(size: float) -> str:
    """A size in bytes with its unit: 4.8 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.{0 if value >= 100 or unit == 'B' else 1}f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def format_seconds(seconds: float) -> str:
    """A duration: 31.7 s, 4 min 12 s, 3 h 5 min."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
