"""How the host answers: each request through `git http-backend` (RFC 3875), counted, slowed down and broken."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from .faults import Fault, Request

if TYPE_CHECKING:
    from .host import GitHost

BLOCK = 16384
OUTSIDE = re.compile(r"(^|/)\.\.(/|$)")


def kill(backend: subprocess.Popen[bytes]) -> None:
    """End a backend with its upload-pack and pack-objects; it must not have been waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(backend.pid, signal.SIGKILL)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: GitHost, address: tuple[str, int]) -> None:
        self.host = host
        super().__init__(address, Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Broken(Exception):
    """The connection was broken on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.host = self.server.host
        with self.host.lock:
            self.host.connections.add(self.connection)

    def finish(self) -> None:
        with self.host.lock:
            self.host.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Requests are kept in `GitHost.requests`."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, _Broken):
            self.close_connection = True

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        plain = gzip.decompress(body) if "gzip" in self.headers.get("Content-Encoding", "") else body
        command = re.match(rb"[0-9a-f]{4}command=([a-z-]+)", plain)
        url = urlsplit(self.path)
        self.record = Request(
            self.command, unquote(url.path), url.query, command[1].decode() if command else "", received=len(body)
        )
        with self.host.lock:
            self.host.requests.append(self.record)
            self.fault = next((fault for fault in self.host.faults if fault.matches(self.record)), None)
        self.host.closing.wait(self.host.latency)
        credentials = base64.b64encode(self.host.credentials.encode()).decode()
        if self.fault and self.fault.action == "status":
            self.fault.fired.set()
            self._refuse(self.fault.status)
        elif self.fault and self.fault.action == "raw":
            self.fault.fired.set()
            self.wfile.write(self.fault.answer)
            self.close_connection = True
        elif self.host.credentials and self.headers.get("Authorization") != f"Basic {credentials}":
            self._refuse(401)
        elif OUTSIDE.search(self.record.path):
            self._refuse(404)
        elif not self.host.anysha and (stranger := self._unadvertised(plain)):
            error = f"ERR upload-pack: not our ref {stranger}".encode()
            self._start(200, {"Content-Type": "application/x-git-upload-pack-result"})
            self._send(b"%04x%s" % (len(error) + 4, error))
            self._end()
        else:
            self._run_backend(body)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _repository(self) -> tuple[str, str]:
        """The path below the root with its `.git`, and the rest of the URL's path."""
        match = re.match(r"(/[^/]+/[^/]+?)(?:\.git)?(/.*|)$", self.record.path)
        return (f"{match[1]}.git", match[2]) if match else (self.record.path, "")

    def _unadvertised(self, body: bytes) -> str:
        wants = re.findall(rb"want ([0-9a-f]{40,64})", body)
        if not wants:
            return ""
        repository = f"{self.host.root}{self._repository()[0]}"
        refs = subprocess.run(["git", "show-ref", "-d"], cwd=repository, capture_output=True, text=True, check=False)
        tips = {line.split()[0] for line in refs.stdout.splitlines()}
        return next((want.decode() for want in wants if want.decode() not in tips), "")

    def _refuse(self, status: int) -> None:
        headers = {"Content-Type": "text/plain"}
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="git host"'
        self._start(status, headers)
        self._send(f"status {status}\n".encode())
        self._end()

    def _run_backend(self, body: bytes) -> None:
        environment = self.host.backend_environment() | {
            "PATH_INFO": "".join(self._repository()),
            "QUERY_STRING": self.record.query,
            "REQUEST_METHOD": self.record.method,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if not self.host.protocol0:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        with tempfile.TemporaryFile() as stdin:
            stdin.write(body)
            stdin.seek(0)
            backend = subprocess.Popen(
                ["git", "http-backend"],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        with self.host.lock:
            self.host.backends.add(backend)
        try:
            assert isinstance(backend.stdout, BufferedReader)
            with backend.stdout as output:
                self._relay(output)
        finally:
            with self.host.lock:
                self.host.backends.discard(backend)
            kill(backend)
            backend.wait()

    def _relay(self, output: BufferedReader) -> None:
        """Pass the backend's answer on; RFC 3875 says how its headers read."""
        headers: dict[str, str] = {}
        while line := output.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name] = value.strip()
        self._start(int(headers.pop("Status", "200").split()[0]), headers)
        while block := output.read1(BLOCK):
            self._send(block)
        self._end()

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.record.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(b"")

    def _send(self, block: bytes) -> None:
        """Send one block at the line's rate; the fault, if there is one, strikes at its byte exactly."""
        fault = self.fault
        if fault and not fault.fired.is_set() and self.record.sent + len(block) >= fault.after:
            cut = fault.after - self.record.sent
            self._chunk(block[:cut])
            fault.fired.set()
            self._strike(fault)
            block = block[cut:]
        self._chunk(block)

    def _chunk(self, block: bytes) -> None:
        if block:
            self.host.closing.wait(self.host.link.wait_for(len(block)))
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            self.record.sent += len(block)

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _strike(self, fault: Fault) -> None:
        if fault.action == "hook":
            fault.call()
        elif fault.action == "stall":
            fault.release.wait()
        elif fault.action == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.close()
            self.rfile.close()
            os.close(self.connection.detach())
            raise _Broken
        elif fault.action == "truncate":
            raise _Broken
