"""A loopback server that speaks the OpenAI protocol, records what it got, and misbehaves as it is told.

    with FaultServer() as server:
        server.faults["a dog"] = [status(500), hang]     # what asks "a dog" meets these, then is answered
        server.always = reset                            # or: every call
        …
        server.seen                                      # every call, in the order in which they came

A call is known by the text that it asks: its prompt, or the text of the last message of the user. The answer is `echo`
of it. A fault is a function of a call's handler; it does what it likes with the connection.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS_IN, TOKENS_OUT = 11, 3


@dataclass
class Seen:
    """One call. `status` is of the reply that was sent whole; None where there was none."""

    method: str
    path: str
    headers: Message
    body: Any
    connection: tuple[str, int]
    at: float
    status: int | None = None

    @property
    def text(self):
        if not isinstance(self.body, dict):
            return ""
        if "prompt" in self.body:
            return self.body["prompt"]
        content = [message["content"] for message in self.body["messages"] if message["role"] == "user"][-1]
        return content if isinstance(content, str) else "".join(p["text"] for p in content if p["type"] == "text")


def echo(text):
    return f"echo of {text}"


def completion(text, finish="stop", chat=True, **message):
    """A reply as endpoints give it."""
    said = {"message": {"role": "assistant", "content": text, **message}} if chat else {"text": text}
    return {
        "object": "chat.completion" if chat else "text_completion",
        "choices": [{"index": 0, "finish_reason": finish, **said}],
        "usage": {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": TOKENS_IN + TOKENS_OUT},
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"
    seen: Seen

    def do_GET(self):
        self._serve(None)

    def do_POST(self):
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _serve(self, body):
        owner = self.server.owner
        parsed = json.loads(body) if body else None
        self.seen = Seen(self.command, self.path, self.headers, parsed, self.client_address, time.monotonic())
        fault = owner.begin(self.seen)
        try:
            if fault is not None:
                fault(self)
            else:
                self.answer()
        except OSError:
            self.close_connection = True
        finally:
            owner.end()

    def answer(self):
        if self.path.endswith("/models"):
            self.reply(200, {"object": "list", "data": [{"id": name} for name in self.server.owner.models]})
        elif self.path.endswith(("/chat/completions", "/completions")):
            self.reply(200, completion(echo(self.seen.text), chat=self.path.endswith("/chat/completions")))
        else:
            self.reply(404, {"detail": "Not Found"})

    def reply(self, status, body, headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{name}: {value}" for name, value in {"Content-Length": len(content), **(headers or {})}.items()]
        phrase = self.responses[status][0] if status in self.responses else ""
        head = "\r\n".join([f"HTTP/1.1 {status} {phrase}", *lines, "", ""])
        self.seen.status = status  # before it is sent: who has the answer may look at once
        try:
            self.wfile.write(head.encode() + content)  # at once: it is sent whole, or not at all
        except OSError:
            self.seen.status = None
            raise

    def abort(self):
        """Ends the connection by a reset, not in order."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format, *args):
        pass


Fault = Callable[[Handler], None]


def status(code, body=b"", **headers):
    """A reply with that status; headers by their names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(code, body, named)


def body(content):
    """A reply of 200 with that body: bytes, or a value that becomes JSON."""
    return status(200, content)


def hang(handler):
    """No reply, until the server stops."""
    handler.server.owner.stopping.wait()
    handler.close_connection = True


def reset(handler):
    """The connection is reset instead of a reply."""
    handler.abort()


def reset_after_headers(handler):
    """The connection is reset in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.abort()


def cut(handler):
    """The connection is closed in order, but before the body is whole."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def no_http(handler):
    """Something that is no HTTP."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    handler.close_connection = True


def trickle(where):
    """A byte every 20 ms, for ever: of the headers, or of the body."""

    def fault(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        if where == "body":
            handler.wfile.write(b"Content-Length: 1000000\r\n\r\n")
        else:
            handler.wfile.write(b"X-Slow: ")
        while not handler.server.owner.stopping.wait(0.02):
            handler.wfile.write(b"x")
        handler.close_connection = True

    return fault


def flood(size, chunked=False, code=200):
    """A body of `size` bytes of white space. `handler.server.owner.flooded` counts what was taken."""

    def fault(handler):
        block = b" " * 65_536
        handler.send_response(code)
        handler.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))))
        handler.end_headers()
        for _ in range(size // len(block)):
            handler.wfile.write(b"10000\r\n" + block + b"\r\n" if chunked else block)
            handler.server.owner.flooded += len(block)
        handler.close_connection = True

    return fault


@dataclass
class FaultServer:
    """The server; see the module. `latency`: seconds before each reply. `most`: the most calls that ran at a time.

    `dies_at`: it stops at its n-th call, as if its process were killed, and stands no more until `revive`.
    """

    models: list[str] = field(default_factory=lambda: ["tiny-llm", "tiny-vlm"])
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault | None = None
    latency: float = 0.0
    dies_at: int | None = None
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    most: int = 0
    flooded: int = 0
    port: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    is_dead: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self._lock = threading.Lock()
        self._running = 0
        self._open()

    def _open(self):
        self.stopping.clear()
        self.is_dead.clear()
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def base_url(self):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    @property
    def asked(self):
        """The calls that ask for a text."""
        return [seen for seen in self.seen if seen.method == "POST"]

    def begin(self, seen):
        with self._lock:
            self.seen.append(seen)
            self._running += 1
            self.most = max(self.most, self._running)
            if self.dies_at is not None and len(self.seen) >= self.dies_at:
                self.dies_at = None
                threading.Thread(target=self.die, daemon=True).start()
                return hang
            if self.stopping.is_set():
                return hang
            waiting = self.faults.get(seen.text)
            fault = waiting.pop(0) if waiting else self.always
        if self.latency:
            time.sleep(self.latency)
        return fault

    def end(self):
        with self._lock:
            self._running -= 1

    def die(self):
        """Stops at once: connections are closed, whatever runs in them, and new ones are refused."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.break_all()
        self.is_dead.set()

    def revive(self):
        """Stands again at the same port."""
        self.is_dead.wait()
        self._open()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.die()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address, owner):
        self.owner = owner
        self._open = set()
        super().__init__(address, Handler)

    def get_request(self):
        connection, address = super().get_request()
        if self.owner.tls:
            connection = self.owner.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self._open.discard(request)
        super().shutdown_request(request)

    def break_all(self):
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        pass  # resets are what this server is for
