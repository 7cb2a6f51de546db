"""Write ustar archives whose bytes depend only on names and data, and check whether a key is a safe name.

Members have mode 0644, owner and group 0, no owner names, and mtime 0. If a name has over 100 bytes, it is split at a
slash to use ustar's prefix. If that is not possible, the member gets a PAX header, as it does for a size of 8 GiB or
more. The end marker is two zero blocks.
"""

import re
from typing import IO, Self
from urllib.parse import unquote

BLOCK = 512
MAX_KEY, MAX_SUFFIX = 200, 50

_ZEROS = bytes(BLOCK)
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, uid, gid
_TIME = b"\0" + b"0" * 11 + b"\0"  # the NUL after the size, then mtime
_SPACES = b" " * 8  # counted instead of the checksum
_TAIL = {flag: flag + bytes(100) + b"ustar\x0000" + bytes(80) for flag in (b"0", b"x")}
_FIXED = {flag: sum(_OWNER) + sum(_TIME) + sum(_SPACES) + sum(tail) for flag, tail in _TAIL.items()}
_MAX_OCTAL = 8**11

# Characters that are forbidden or special in paths on some system, and dots, because readers split names at the first.
_UNSAFE = re.compile('[\\x00-\\x1f\\x7f-\\x9f\\\\<>:"|?*.\u2028\u2029\ud800-\udfff\ufffe\uffff]|^/|/$|//| /| $|^ |/ ')
_SPECIAL = re.compile(r"(?:^|/)__[^/]*__(?:/|$)")  # webdataset's own fields, and names that it skips
_RESERVED = re.compile(r"(?:^|/)(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:/|$)", re.IGNORECASE)


def safe_key(key: str) -> bool:
    r"""Return whether a key is safe as a name in our tars, and as a path on any system.

    It must be relative UTF-8 of 1 to 200 bytes. It must not have empty parts, control characters, `\ < > : " | ? *`,
    spaces at the ends of a part, or names of Windows devices. It must not have dots: so there is no `..`, no hidden
    file, and only one way to find the suffix. All this must still be true after a reader decodes its %XX.
    """
    if key.isdecimal() and key.isascii():  # like img2dataset's keys
        return len(key) <= MAX_KEY
    if not key or _UNSAFE.search(key) or _SPECIAL.search(key) or _RESERVED.search(key) or len(key.encode()) > MAX_KEY:
        return False
    if "%" not in key:
        return True
    decoded = unquote(key)
    return decoded == key or safe_key(decoded)


def safe_suffix(suffix: str) -> bool:
    """Return whether `KEY.SUFFIX`, for a safe key, is safe in a tar and as a path on any system.

    A suffix may have dots. Suffixes are as untrusted as keys. They may have the same characters, no empty parts, and at
    most 50 characters.
    """
    return len(suffix) <= MAX_SUFFIX and "/" not in suffix and all(map(safe_key, suffix.split(".")))


def tar_header(name: str, size: int) -> bytes:
    """Return the header of a regular member: 512 bytes, or at least 1,536 with a PAX header before it.

    Raises ValueError if the name is empty, contains a NUL, or is not valid Unicode.
    """
    raw = name.encode()
    if not raw or b"\0" in raw:
        raise ValueError(f"member name {name!r} must not be empty or contain a NUL byte")
    return _block(raw, b"", size, b"0") if len(raw) <= 100 and 0 <= size < _MAX_OCTAL else _long_header(raw, size)


def _block(name: bytes, prefix: bytes, size: int, flag: bytes) -> bytes:
    octal = b"%011o" % size
    checksum = _FIXED[flag] + sum(name) + sum(prefix) + sum(octal)
    head = b"%b%b%b%b%06o\0 %b%b" % (name.ljust(100, b"\0"), _OWNER, octal, _TIME, checksum, _TAIL[flag], prefix)
    return head.ljust(BLOCK, b"\0")


def _long_header(name: bytes, size: int) -> bytes:
    if size < 0:
        raise ValueError(f"{name.decode()}: size {size} is negative; accepted: 0 or more bytes")
    small = size if size < _MAX_OCTAL else 0
    cut = name.find(b"/", max(len(name) - 101, 1))  # the longest name that fits
    if small == size and 0 < cut <= 155 and cut + 1 < len(name):
        return _block(name[cut + 1 :], name[:cut], size, b"0")
    body = _record(b"path", name) if len(name) > 100 else b""
    if small != size:
        body += _record(b"size", b"%d" % size)
    padded = body + _ZEROS[: -len(body) % BLOCK]
    return _block(b"././@PaxHeader", b"", len(body), b"x") + padded + _block(name[:100], b"", small, b"0")


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


class TarWriter:
    """Writes an archive to an open file. `close` writes the end marker, and leaves the file open.

    As a context manager, it calls `close` only if no exception was raised, because half an archive must not look
    complete.
    """

    def __init__(self, file: IO[bytes]):
        self._file, self.offset = file, 0  # bytes written so far

    def add(self, name: str, data: bytes | memoryview) -> int:
        """Add a member, and return the offset of its data. Raises ValueError if the name is invalid."""
        size, header = len(data), tar_header(name, len(data))
        for block in (header, data, _ZEROS[: -size % BLOCK]):
            self._file.write(block)
        start = self.offset + len(header)
        self.offset = start + size + -size % BLOCK
        return start

    def close(self) -> None:
        self.offset += self._file.write(bytes(2 * BLOCK))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
