"""A proxy on loopback before an object store that counts requests and makes faults: S3's protocol, or Cloud Storage's.

In: the store's address. Out: requests, as (method, path with its query); and faults, which a rule of the test chooses by request.
"""

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Request:
    """A request: what it does (PUT, GET, HEAD, LIST, COPY, DELETE, PART …), and to which file or folder."""

    kind: str
    name: str
    number: int = 0  # of the requests of this proxy


@dataclass
class Fault:
    """What becomes of a request.

    `status`: answered so, and not handed on. `delay`: seconds after which what the store did is answered. `cut`: the connection ends after half of
    its body (`request`: the store sees nothing), after the store did what it says (`answer`), or in the middle of the answer (`body`).
    """

    status: int = 0
    retry_after: int | None = None
    delay: float = 0.0
    cut: str = ""


Rule = Callable[[Request], Fault | None]


@dataclass
class StoreProxy:
    """Where the proxy is, and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)
    faults: list[Request] = field(default_factory=list)  # that had one
    rule: Rule | None = None
    page: int = 0  # names in an answer to a listing at most; 0: as many as the store gives
    stale: float = 0.0  # seconds for which a folder's listing is answered as it was

    def count(self):
        return len(self.requests)


def _describe(method, target, headers):
    """What a request does, and to what."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    parts = unquote(url.path).strip("/").split("/")
    if parts[:2] == ["storage", "v1"] or parts[:3] in (["upload", "storage", "v1"], ["download", "storage", "v1"]):
        return _describe_gcs(method, parts[parts.index("v1") + 1 :], query)
    name = "/".join(parts[1:])
    if method == "GET" and len(parts) <= 1:
        return "LIST", query.get("prefix", [""])[0]
    if method == "POST" and "delete" in query:
        return "DELETE", name
    if "uploadId" in query or "uploads" in query:
        return "PART", name
    if method == "PUT" and headers.get("x-amz-copy-source"):
        return "COPY", name
    if method == "HEAD" and len(parts) <= 1:
        return "BUCKET", ""
    return method, name


def _describe_gcs(method, parts, query):
    rest = parts[2:]  # after b, BUCKET
    if rest[:1] != ["o"]:
        return "BUCKET", "/".join(rest)
    name = "/".join(rest[1:])
    if method == "GET" and not name:
        return "LIST", query.get("prefix", [""])[0]
    if method == "POST" and not name:
        return "PUT", query.get("name", [""])[0]
    if method == "POST":
        return "COPY", name
    if method == "GET" and query.get("alt") != ["media"]:
        return "HEAD", name
    return method, name


@contextmanager
def store_proxy(store, port=0):
    """Serve what `store`, an address, does."""
    upstream = urlsplit(store)
    lock, listings = threading.Lock(), dict[str, tuple[float, tuple[int, Any, bytes]]]()
    chunks = dict[tuple[str, str], tuple[int, Any, bytes]]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 120

        def _forward(self):
            body = self._read_body()
            kind, name = _describe(self.command, self.path, self.headers)
            if kind == "PUT" and not name and (named := re.search(rb'"name": "([^"]+)"', body[:2000])):
                name = named[1].decode()  # of what is put into Cloud Storage at once
            with lock:
                request = Request(kind, name, len(proxy.requests))
                proxy.requests.append(request)
                fault = proxy.rule(request) if proxy.rule else None
                if fault:
                    proxy.faults.append(request)
            if fault and fault.cut == "request":
                return self._cut()
            if fault and fault.status:
                more = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return self._answer(fault.status, more, b"<Error><Code>SlowDown</Code></Error>")
            status, headers, data = self._ask(kind, body)
            if fault and fault.delay:
                time.sleep(fault.delay)
            if fault and fault.cut == "answer":
                return self._cut()
            self._answer(status, headers, data, half=bool(fault and fault.cut == "body"))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _forward

        def _read_body(self):
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                data = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return data
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _ask(self, kind, body):
            """The store's answer; of a listing, perhaps one from before.

            A part of an upload that comes again is answered as it was: Cloud Storage passes over bytes that it has, and
            fake-gcs-server adds them once more.
            """
            chunk = self.path, self.headers.get("Content-Range", "") if "upload_id=" in self.path else ""
            if chunk in chunks:
                return chunks[chunk]
            at, kept = listings.get(self.path, (0.0, None)) if kind == "LIST" else (0.0, None)
            connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=120)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP} | {"Host": upstream.netloc}
                page = f"&max-keys={proxy.page}" if kind == "LIST" and proxy.page else ""
                connection.request(self.command, f"{self.path}{page}", body, headers)
                response = connection.getresponse()
                answer = response.status, response.headers, response.read()
            finally:
                connection.close()
            if kept and time.monotonic() - at < proxy.stale:
                proxy.faults += [Request(kind, self.path)] if kept[2] != answer[2] else []
                return kept
            if kind == "LIST":
                listings[self.path] = time.monotonic(), answer
            if chunk[1]:
                chunks[chunk] = answer
            return answer

        def _answer(self, status, headers, data, half=False):
            self.send_response_only(status)
            length = str(len(data))
            for name, value in headers.items():
                if name.lower() == "content-length":
                    length = value
                elif name.lower() not in _HOP:
                    self.send_header(name, re.sub(re.escape(store), proxy.url, value))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                self._cut()

        def _cut(self):
            self.close_connection = True
            with suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            """Say nothing of clients that leave."""

    with Server(("127.0.0.1", port), Handler) as server:
        proxy = StoreProxy(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield proxy
        server.shutdown()
