"""A web server on loopback that serves a folder by ranges, each request after a delay, and counts requests and bytes."""

import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What a server was asked for: method, path, first byte and number of bytes of each request."""

    url: str
    requests: list[tuple[str, str, int, int]] = field(default_factory=list)

    def gets(self, suffix):
        """First byte and number of bytes of each GET of paths that end so."""
        return [
            (start, count) for method, path, start, count in self.requests if method == "GET" and path.endswith(suffix)
        ]


@contextmanager
def serving_ranges(folder, delay=0.0, refused="", times=0, gates=None):
    """Serve the files of a folder; of paths that end with `refused`, the first GETs, so many, are answered 503.

    `gates` by method: no request of it is answered before its gate is set.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body):
            time.sleep(delay)
            file = folder / self.path.lstrip("/")
            if not file.is_file():
                self.send_error(404)
                return
            if body and refused and self.path.endswith(refused) and len(served.gets(refused)) < times:
                served.requests.append((self.command, self.path, 0, 0))
                self.send_error(503)
                return
            size = file.stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            stop = min(size, int(asked[2]) + 1) if asked and asked[2] else size
            served.requests.append((self.command, self.path, start, stop - start if body else 0))
            if gates and self.command in gates:
                gates[self.command].wait()
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if body:
                with open(file, "rb") as opened:
                    opened.seek(start)
                    self.wfile.write(opened.read(stop - start))

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            """Say nothing of clients that leave."""

    with Server(("127.0.0.1", 0), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()
