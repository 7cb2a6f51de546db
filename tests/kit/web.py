"""A web of strangers on loopback: hosts are addresses of 127.0.0.0/8, paths say how a server behaves. It notes what it is asked."""

import asyncio
import re
import struct
import threading
import time
import zlib
from collections import defaultdict
from contextlib import contextmanager

_BROKEN = {"short", "long", "chunk", "large", "endless", "slow", "slow_header", "raw", "silent", "noise", "reset"}

Log = list[tuple[str, str, dict[str, str]]]


def _is_there(reader):
    """Return whether who asked is there still: a connection that is closed ends, or is reset."""
    return not reader.at_eof() and reader.exception() is None


class Web:
    """The servers: `images` are what `/image/NAME` gives, `raw` what `/raw/NAME` writes: bytes, and then these for ever. `log` has host, path and headers of each request, `most` the images that each host was asked for at once, `connected` the connections that each had, `most_open` those that it had at once, idle ones too, `times` when it began and ended to answer with an image."""

    def __init__(self, images, hosts=1):
        self.images = dict(images)
        self.hosts = [f"127.0.0.{i + 1}" for i in range(hosts)]
        self.raw = {}
        self.robots = {}
        self.delay = lambda _: 0.01  # of an image, in seconds
        self.keeps = lambda host: int(host.rpartition(".")[2]) % 2 == 0  # connections open
        self.log = []
        self.most = defaultdict(int)
        self.connected = defaultdict(int)
        self.most_open = defaultdict(int)
        self.times = defaultdict(list)
        self.tries = defaultdict(int)
        self._open = defaultdict(set)
        self._connections = defaultdict(set)
        self.port = self.day = 0

    def url(self, path, host=0):
        return f"http://{self.hosts[host]}:{self.port}/{path}"

    def asked(self, path):
        return sum(one == f"/{path}" for _, one, _ in self.log)

    async def serve(self, reader, writer):
        host = writer.get_extra_info("sockname")[0]
        self.connected[host] += 1
        self._connections[host].add(reader)
        is_asked = True
        try:
            while is_asked:
                first = await reader.readexactly(1)
                if first == b"\x16":  # TLS
                    say(writer, 400, b"plain HTTP alone")
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *fields = head.split("\r\n")
                path = line.split(" ")[1]
                headers = dict(field.lower().split(": ", 1) for field in fields if field)
                self.log.append((host, path, headers))
                await self.answer(host, path.lstrip("/"), reader, writer)
                await writer.drain()
                is_whole = re.split("[/?]", path)[1] not in _BROKEN
                is_asked = is_whole and self.keeps(host) and headers.get("connection") != "close"
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections[host].remove(reader)
            writer.close()

    async def answer(self, host, path, reader, writer):
        kind, _, rest = path.partition("/")
        if kind != "to":
            kind, rest = kind.partition("?")[0], rest.partition("?")[0]
        image = self.images.get(rest)
        if kind in ("image", "busy") and image is None:
            kind = "nothing"
        if path == "robots.txt":
            status, text = self.robots.get(host, (404, ""))
            say(writer, status, text.encode(), {"Location": text} if status == 302 else None)
        elif kind == "image":
            self._open[host].add(reader)
            began = time.monotonic()
            try:
                await asyncio.sleep(self.delay(path))
                # On a crowded machine some are read after their time: whoever asked has gone, and asks again.
                self.most[host] = max(self.most[host], sum(map(_is_there, self._open[host])))
                is_open = sum(map(_is_there, self._connections[host]))
                self.most_open[host] = max(self.most_open[host], is_open)
            finally:
                self._open[host].remove(reader)
                self.times[host].append((began, time.monotonic()))
            say(writer, 200, image or b"")
        elif kind == "text":
            say(writer, 200, b"<html><body>not found</body></html>", {"Content-Type": "image/jpeg"})
        elif kind == "status":
            say(writer, int(rest.partition("/")[0]), b"no")
        elif kind == "busy":  # once, then it is there
            self.tries[path] += 1
            if self.tries[path] < 2:
                say(writer, 429, b"", {"Retry-After": "0"})
            else:
                say(writer, 200, image or b"")
        elif kind == "later":  # from a day on it is there
            day, _, name = rest.partition("/")
            say(writer, *((503, b"") if self.day < int(day) else (200, self.images[name])))
        elif kind == "wait":
            say(writer, 503, b"", {"Retry-After": rest})
        elif kind == "to":
            say(writer, 302, b"", {"Location": rest})
        elif kind == "late":
            await asyncio.sleep(0.2)
            say(writer, 302, b"", {"Location": f"/late/{rest}x"})
        elif kind == "loop":
            say(writer, 301, b"", {"Location": f"/loop/{int(rest or 0) + 1}"})
        elif kind == "header":
            name, _, value = rest.partition("=")
            say(writer, 200, self.images["a"], {name: value.replace("%20", " ")})
        elif kind == "short":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        elif kind == "long":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")
        elif kind == "chunk":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc")
        elif kind == "large":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        elif kind == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        elif kind in ("slow", "slow_header"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if kind == "slow" else b"X: "))
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif kind == "raw":
            first, then = self.raw[rest]
            writer.write(first)
            while then:
                await writer.drain()
                writer.write(then)
        elif kind == "silent":
            await asyncio.sleep(60)
        elif kind == "noise":
            writer.write(b"\0\1\2 not http at all\r\n\r\n")
        elif kind == "reset":
            writer.transport.abort()
        else:
            say(writer, 404, b"nothing")


def say(writer, status, body, headers=None):
    lines = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


def bomb():
    """A PNG whose header says that it has 900 million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@contextmanager
def running(web):
    """Serve until the block ends."""

    async def start():
        servers = [await asyncio.start_server(web.serve, web.hosts[0], 0)]
        web.port = port_of(servers)
        return servers + [await asyncio.start_server(web.serve, host, web.port) for host in web.hosts[1:]]

    with started(start):
        yield web


def port_of(servers):
    port = servers[0].sockets[0].getsockname()[1]
    return port


@contextmanager
def started(start):
    """Have a thread start servers, and serve until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers = asyncio.run_coroutine_threadsafe(start(), loop).result(300)
    try:
        yield servers
    finally:

        async def stop():
            for server in servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(300)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(300)
        loop.close()


def get(by, url, timeout=10):
    """What a URL gives. Raises FetchError."""
    outcome = by.fetch(url, timeout)
    if outcome.fault:
        raise outcome.fault
    assert outcome.data is not None
    return outcome.data
