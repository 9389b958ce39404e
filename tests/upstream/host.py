"""A git host on loopback: `git upload-pack` behind a threaded HTTP server (gitprotocol-http(5)).

It counts what is asked and sent, can be slow, and breaks where a test says so.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import os
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .faults import Action, Fault, Request

BLOCK = 16384


class GitHost:
    """Serves `<root>/<owner>/<name>.git` on 127.0.0.1 while the context lasts, with or without `.git` in the URL.

    `rate` is in bytes per second over all connections (0: unlimited), `latency` in seconds per request. `anysha`
    says whether it serves commits that are no tip. `credentials` (`user:password`) are
    demanded where given. All of these and `faults` may change while it runs; the first fault in the list that matches a
    request is the one that happens.
    """

    def __init__(self, root: Path, *, rate: float = 0, latency: float = 0) -> None:
        self.root, self.rate, self.latency = root, rate, latency
        self.anysha, self.credentials = True, ""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._line_free = 0.0  # when the line will have carried what was sent
        self._server = Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def bytes_sent(self) -> int:
        """Bytes of response bodies since the last reset."""
        return sum(request.sent for request in list(self.requests))

    def count(self, pattern: str) -> int:
        """How many requests, as `str(Request)`, match the regular expression."""
        return sum(bool(re.search(pattern, str(request))) for request in list(self.requests))

    def reset(self) -> None:
        """Forget requests and faults."""
        self.requests, self.faults = [], []

    def fault(self, action: Action, on: str = "", **details: Any) -> Fault:
        """Add a `Fault`, whose other fields are `details`, and return it."""
        fault = Fault(action, on, **details)
        self.faults.append(fault)
        return fault

    def __enter__(self) -> GitHost:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for fault in self.faults:
            fault.release.set()

    def wait_for_the_line(self, size: int) -> None:
        """Wait until the line, which all connections share, has carried `size` bytes more."""
        if self.rate:
            with self.lock:
                self._line_free = max(self._line_free, time.monotonic()) + size / self.rate
                pause = self._line_free - time.monotonic()
            time.sleep(max(pause, 0))

    def environment(self, protocol: str) -> dict[str, str]:
        """The environment of `git upload-pack`: nobody's configuration but what the host's options say."""
        config = {
            "safe.directory": "*",
            "uploadpack.allowFilter": "true",
            "uploadpack.allowAnySHA1InWant": str(self.anysha).lower(),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return environment | {"GIT_PROTOCOL": protocol}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: GitHost) -> None:
        self.host = host
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request by a connection, so that an answer ends where its connection does."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Requests are kept in `GitHost.requests`."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        host, url, body = self.server.host, urlsplit(self.path), self._body()
        command = re.match(rb"[0-9a-f]{4}command=([a-z-]+)", body)
        self.request_seen = Request(self.command, unquote(url.path), url.query, command[1].decode() if command else "")
        with host.lock:
            host.requests.append(self.request_seen)
            self.fault = next((fault for fault in host.faults if fault.matches(self.request_seen)), None)
        time.sleep(host.latency)
        credentials = base64.b64encode(host.credentials.encode()).decode()
        match = re.fullmatch(r"/([^/]+/[^/]+?)(\.git)?/(info/refs|git-upload-pack)", self.request_seen.path)
        repository = host.root / f"{match[1]}.git" if match else host.root / "none"
        if self.fault and self.fault.action in ("status", "raw"):
            self.fault.fired.set()
            if self.fault.action == "status":
                self._refuse(self.fault.status)
            self.wfile.write(self.fault.answer)
            self.close_connection = True
        elif host.credentials and self.headers.get("Authorization") != f"Basic {credentials}":
            self._refuse(401)
        elif ".." in repository.parts or not repository.is_dir():
            self._refuse(404)
        else:
            self._serve(repository, body)

    def _body(self) -> bytes:
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if "gzip" in self.headers.get("Content-Encoding", "") else body

    def _start(self, status: int, media: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Connection", "close")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="git host"')
        self.end_headers()

    def _refuse(self, status: int) -> None:
        self._start(status, "text/plain")
        self._send(f"status {status}\n".encode())

    def _serve(self, repository: Path, body: bytes) -> None:
        """Run `git upload-pack` for this request and pass on what it answers."""
        host, advertised = self.server.host, self.command == "GET"
        protocol = self.headers.get("Git-Protocol", "") if host.anysha else ""  # v2 serves every commit
        options = ["--advertise-refs"] if advertised else []
        command = ["git", "upload-pack", "--stateless-rpc", *options, str(repository)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=host.environment(protocol)
        ) as backend:
            assert backend.stdin and isinstance(backend.stdout, io.BufferedReader)
            try:
                with contextlib.suppress(BrokenPipeError), backend.stdin:
                    backend.stdin.write(body)
                self._start(200, f"application/x-git-upload-pack-{'advertisement' if advertised else 'result'}")
                self._send(b"001e# service=git-upload-pack\n0000" if advertised and "2" not in protocol else b"")
                while block := backend.stdout.read1(BLOCK):
                    self._send(block)
            finally:
                backend.kill()

    def _send(self, block: bytes) -> None:
        """Send one block at the line's rate; the fault, if there is one, strikes at its byte exactly."""
        fault = self.fault
        if fault and not fault.fired.is_set() and self.request_seen.sent + len(block) >= fault.after:
            cut = fault.after - self.request_seen.sent
            self._write(block[:cut])
            block = block[cut:]
            fault.fired.set()
            if fault.action == "hook":
                fault.call()
            elif fault.action == "stall":
                fault.release.wait()
            else:
                raise ConnectionAbortedError("truncated on purpose")
        self._write(block)

    def _write(self, block: bytes) -> None:
        self.server.host.wait_for_the_line(len(block))
        self.wfile.write(block)
        self.request_seen.sent += len(block)
