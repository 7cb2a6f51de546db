"""The most memory that a process had. What the system says of one that has ended (`ru_maxrss`) is no less than its parent's before it began."""

from pathlib import Path


def read_peak(process="self"):
    """Bytes of memory that a process had at most, since its program began; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)
