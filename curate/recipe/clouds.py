"""File systems for object stores. A request times out after SECONDS, and is retried if a busy store asks for that.

fsspec loads a class from here when it sees the first URL of its kind. So commands without such URLs import no library.
"""

import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from itertools import count
from typing import Any

from fsspec.config import conf

from curate.base.errors import RecipeError
from curate.base.wording import read_retry_after

OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))  # these support conditional PUT
SECONDS = float(os.environ.get("CURATE_STORE_SECONDS") or 30)
_BUSY = frozenset((429, 500, 502, 503, 504))
_GCS = ("_request", "_get_file_request", "_get_file_concurrent")  # methods in gcsfs that retry by themselves
_ATTEMPTS, _LONGEST = 10, 60.0  # attempts if a store is busy, and the longest pause in seconds


def check_bucket(fs: Any, path: str) -> None:
    """Raise RecipeError if an object store's bucket or container does not exist."""
    bucket = path.lstrip("/").partition("/")[0]
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    if protocols & OBJECT_STORES:
        with suppress(OSError):  # who may read objects may lack permission to see their bucket
            if not fs.exists(bucket):
                raise RecipeError(f"{path}: there is no bucket {bucket!r}; create it, or correct its name")


def __getattr__(name: str) -> Any:
    if name == "S3FileSystem":
        Base: Any = import_module("s3fs").S3FileSystem

        async def set_session(self: Any, *arguments: Any, **named: Any) -> Any:
            client = await Base.set_session(self, *arguments, **named)
            client.meta.events.register_first("needs-retry.s3", _seconds_to_wait, unique_id="curate")
            return client

        limits = {"connect_timeout": SECONDS, "read_timeout": SECONDS}
        members: dict[str, Any] = {"set_session": set_session, **limits}
    elif name == "GCSFileSystem":
        Base, core = (import_module(module).GCSFileSystem for module in ("gcsfs", "gcsfs.core"))
        members = {ask: _try_again(getattr(core, ask).__wrapped__) for ask in _GCS if hasattr(core, ask)}
        limit = import_module("aiohttp").ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
        defaults = {"requests_timeout": limit, "session_kwargs": {"raise_for_status": _refuse_busy}}
        conf["gs"] = defaults | conf.get("gs", {})
    elif name == "HTTPFileSystem":
        Base = import_module("fsspec.implementations.http").HTTPFileSystem

        def begin(self: Any, *arguments: Any, **named: Any) -> None:
            Base.__init__(self, *arguments, **{"get_client": _open_session} | named)

        members = {"__init__": begin}
    else:
        raise AttributeError(name)
    kind = type(Base)(name, (Base,), {"__module__": __name__, "__doc__": Base.__doc__, **members})
    return globals().setdefault(name, kind)


async def _open_session(**named: Any) -> Any:
    """Return a client of HTTP whose errors of answers are OSError, as those of other file systems."""
    aiohttp: Any = import_module("aiohttp")
    Answer = aiohttp.ClientResponse
    AnswerError: Any = type("AnswerError", (aiohttp.ClientResponseError, OSError), {})

    class Response(Answer):  # type: ignore[misc, valid-type]
        """A response."""

        def raise_for_status(self) -> None:
            """Raise aiohttp's errors as OSError."""
            if not self.ok:
                raise AnswerError(self.request_info, (), status=self.status, message=self.reason or "")

        async def read(self) -> bytes:
            try:
                return bytes(await super().read())
            except aiohttp.ClientPayloadError as error:
                raise AnswerError(self.request_info, (), status=self.status, message=str(error)) from None

    return aiohttp.ClientSession(response_class=Response, **named)


def _seconds_to_wait(response: Any = None, attempts: int = 0, **_: Any) -> float | None:
    """Return the pause in seconds before botocore retries; None if botocore should choose the pause."""
    if response is None or response[0].status_code not in _BUSY or attempts >= _ATTEMPTS:
        return None
    return _seconds(attempts, response[0].headers)


def _try_again(ask: Any) -> Any:
    """Wrap a method of gcsfs so that it retries as for all stores. By itself, gcsfs would wait 1, 2, 4 … seconds."""
    sleep, is_retriable = import_module("asyncio").sleep, import_module("gcsfs.retry").is_retriable

    async def ask_again(*words: Any, **named: Any) -> Any:
        for attempt in count(1):
            try:
                return await ask(*words, **named)
            except Exception as error:
                if str(error).startswith("Forbidden: "):  # an OSError
                    raise PermissionError(str(error)) from None
                if not is_retriable(error):
                    raise
                if attempt > _ATTEMPTS:
                    raise OSError(str(error) or type(error).__name__) from error
                await sleep(_seconds(attempt, getattr(error, "headers", None) or {}))

    return ask_again


async def _refuse_busy(response: Any) -> None:
    """Raise aiohttp's error if a store answers that it is busy. The error has the headers, which gcsfs would omit."""
    if response.status in _BUSY:
        response.raise_for_status()


def _seconds(attempts: int, headers: Mapping[str, str]) -> float:
    """Return the pause in seconds before a retry: what the store asks for, or else a random and growing time."""
    asked = read_retry_after(headers.get("Retry-After"), time.time())
    return min(random.uniform(0, 2**attempts / 4) if asked is None else asked, _LONGEST)
