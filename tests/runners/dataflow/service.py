"""Dataflow's REST API as far as Beam's client and curate use it: it keeps what it is sent, and jobs do nothing by themselves.

A second job of an active one's name is answered by the first, as the service does. `state`, `metrics` and `messages` of
a job are what a test says.
"""

import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
_PATH = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+?)(?:/(metrics|messages))?)?")


@dataclass
class Job:
    """A job as it was requested, and what the service says of it."""

    id: str
    request: dict[str, Any]
    place: tuple[str, str]  # project and region
    state: str = "JOB_STATE_RUNNING"
    metrics: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    cancels: bool = True  # else it stays in JOB_STATE_CANCELLING
    asked: int = 0  # how often its state was

    @property
    def answer(self):
        named = {"name": self.request["name"], "clientRequestId": self.request["clientRequestId"]}
        where = {"projectId": self.place[0], "location": self.place[1]}
        state = {"id": self.id, "currentState": self.state, "type": "JOB_TYPE_BATCH"}
        return state | named | where | {"createTime": f"2026-01-01T00:00:{int(self.id[-2:]):02}Z"}


class Service(ThreadingHTTPServer):
    """The server; its jobs, in the order of their making."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs = []
        self.lock = threading.Lock()
        self.begun = threading.Event()  # once there is a job
        self.delay = 0.0  # seconds until whoever made it is answered

    @property
    def url(self):
        """As Beam takes it for one that is none of Google's: by `localhost`, and nothing else."""
        return f"http://localhost:{self.server_port}"

    def answer(self, found, command, query, body):
        jobs, place = self.jobs, (found[1], found[2])
        if found[3] is None and command == "POST":
            for job in jobs:
                if job.request["name"] == body["name"] and job.place == place and job.state not in _ENDED:
                    return 200, job.answer
            jobs.append(Job(f"2026-01-01_00_00_00-{len(jobs):02}", body, place))
            self.begun.set()
            return 200, jobs[-1].answer
        if found[3] is None:
            here = [job for job in jobs if job.place == place]
            return 200, {
                "jobs": [job.answer for job in here if job.request["name"] in query.get("name", [job.request["name"]])]
            }
        job = next(job for job in jobs if job.id == found[3] and job.place == place)
        if found[4] == "metrics":
            named = ((value, {"origin": "dataflow/v1b3", "name": name}) for name, value in job.metrics.items())
            return 200, {"metrics": [{"name": name, "scalar": value} for value, name in named]}
        if found[4] == "messages":
            error = {"time": "2026-01-01T00:00:00Z", "messageImportance": "JOB_MESSAGE_ERROR"}
            return 200, {
                "jobMessages": [error | {"id": str(i), "messageText": text} for i, text in enumerate(job.errors)]
            }
        if command == "PUT" and body.get("requestedState") in ("JOB_STATE_CANCELLED", 5) and job.state not in _ENDED:
            job.state = "JOB_STATE_CANCELLED" if job.cancels else "JOB_STATE_CANCELLING"
        job.asked += command == "GET"
        return 200, job.answer


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def _do(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = _PATH.fullmatch(url.path)
        try:
            with self.server.lock:
                words = (found, self.command, parse_qs(url.query), json.loads(body or b"{}"))
                status, answer = self.server.answer(*words) if found else (404, {})
        except StopIteration:
            status, answer = 404, {"error": {"code": 404, "message": "no such job", "status": "NOT_FOUND"}}
        if self.command == "POST":
            time.sleep(self.server.delay)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _do

    def log_message(self, *words):
        """Say nothing."""


@contextmanager
def serving():
    """The service, on this machine's loopback."""
    with Service() as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        try:
            yield service
        finally:
            service.shutdown()
