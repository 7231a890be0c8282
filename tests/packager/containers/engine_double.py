# SPDX-License-Identifier: Apache-2.0
"""A double of a Docker engine: the few calls of its HTTP API that ``trtpack docker`` makes.

It listens on a Unix socket, keeps what it was sent, and answers with lines in the form that engines
answer with. It builds and runs nothing.

Source: https://docs.docker.com/reference/api/engine/ (ImageBuild, ContainerCreate, ContainerLogs).
"""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import chain
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

IMAGE = "sha256:5f2c0e6b8f3f6f2b4d5d7c1f0f4f3c2a9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a"
CONTAINER = "3f6d" * 16
PULLED: Sequence[dict[str, Any]] = (
    {"stream": "Step 1/14 : ARG BASE=debian:bookworm-slim\n"},
    {"stream": "\n"},
    {"stream": "Step 2/14 : FROM ${BASE} AS base\n"},
    {"status": "Pulling from library/debian", "id": "bookworm-slim"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "61320b01ae5e"},
    {
        "status": "Downloading",
        "progressDetail": {"current": 14_000_000, "total": 28_000_000},
        "progress": "[=====>     ]     14MB/28MB",
        "id": "61320b01ae5e",
    },
    {"status": "Pull complete", "progressDetail": {}, "id": "61320b01ae5e"},
    {"stream": " ---> 4a1b2c3d4e5f\n"},
    {"stream": "Step 3/14 : RUN apt-get update\n"},
    {"stream": " ---> Running in 0123456789ab\n"},
    {"stream": "Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]\n"},
)
BUILT = (*PULLED, {"aux": {"ID": IMAGE}}, {"stream": "Successfully built 5f2c0e6b8f3f\n"})
FAILED = (
    *PULLED,
    {"stream": "E: Unable to locate package python3-venv\n"},
    {
        "errorDetail": {"code": 100, "message": "The command '/bin/sh -c apt-get' returned 100"},
        "error": "The command '/bin/sh -c apt-get' returned 100",
    },
)


@dataclass
class Engine:
    """What it answers, and what it was asked."""

    address: str
    build: Sequence[dict[str, Any]] = BUILT
    log: Sequence[tuple[int, str]] = ((1, "smoke test: passed\n"), (1, "outputs are right\n"))
    code: int = 0
    start_error: str | None = None
    asked: list[str] = field(default_factory=list)
    query: dict[str, str] = field(default_factory=dict)
    context: dict[str, int] = field(default_factory=dict)  # the files it was sent: their mode
    created: dict[str, Any] = field(default_factory=dict)


@contextmanager
def running(folder: Path) -> Iterator[Engine]:
    """The double at ``engine.address``, for as long as the block runs."""
    socket = folder / "docker.sock"
    engine = Engine(f"unix://{socket}")
    server = _Server(str(socket), _Handler)
    server.engine = engine
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, UnixStreamServer):
    engine: Engine
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "the socket"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        engine = self.server.engine
        url = urlsplit(self.path)
        path = re.sub(r"^/v[\d.]+", "", url.path)
        body = self._body()
        engine.asked.append(f"{method} {path}")
        if path == "/version":
            self._json({"ApiVersion": "1.47", "MinAPIVersion": "1.24", "Version": "27.5.1"})
        elif path == "/_ping":
            self._send(200, b"OK", "text/plain")
        elif path == "/build":
            engine.query = {name: values[0] for name, values in parse_qs(url.query).items()}
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                engine.context = {member.name: member.mode for member in archive}
            self._stream((json.dumps(event) + "\r\n").encode() for event in engine.build)
        elif path == "/containers/create":
            engine.created = json.loads(body)
            self._json({"Id": CONTAINER, "Warnings": []}, 201)
        elif path.endswith("/start") and engine.start_error:
            self._json({"message": engine.start_error}, 500)
        elif path.endswith("/start") or method == "DELETE":
            self._send(204, b"", "text/plain")
        elif path.endswith("/json"):
            self._json({"Id": CONTAINER, "Name": "/trtpack", "Config": {"Tty": False}})
        elif path.endswith("/logs"):
            frames = (
                struct.pack(">BxxxL", stream, len(text.encode())) + text.encode()
                for stream, text in engine.log
            )
            self._stream(frames, "application/vnd.docker.multiplexed-stream")
        elif path.endswith("/wait"):
            self._json({"StatusCode": engine.code})
        else:
            self._json({"message": f"page not found: {path}"}, 404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _stream(self, pieces: Iterable[bytes], kind: str = "application/json") -> None:
        """In chunks, as engines do; the SDK tells lines apart only then."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in chain(pieces, (b"",)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
