"""A git host on loopback: `git http-backend` (git-http-backend(1)) behind a threaded HTTP/1.1 server.

It counts what is asked and sent, can be slow, and breaks where a test says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .faults import Action, Fault, Request
from .handler import Server, kill


class Link:
    """A line of `rate` bytes per second (0: unlimited) that all connections share."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._free = 0.0
        self._lock = threading.Lock()

    def wait_for(self, size: int) -> float:
        """Take the line for `size` bytes; return the seconds until they have passed."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + size / self.rate
            return self._free - now


class GitHost:
    """Serves `<root>/<owner>/<name>.git` on 127.0.0.1 while the context lasts, with or without `.git` in the URL.

    `rate` is in bytes per second over all connections, `latency` in seconds per request. `filters=False` serves no
    partial clones, `anysha=False` nothing but tips, `protocol0=True` speaks protocol v0 only. `credentials`
    (`user:password`) are demanded where given. All of these and `faults` may change while it runs; the first fault in
    the list that matches a request is the one that happens.
    """

    def __init__(
        self,
        root: Path,
        *,
        rate: float = 0,
        latency: float = 0,
        filters: bool = True,
        anysha: bool = True,
        protocol0: bool = False,
        credentials: str = "",
    ) -> None:
        self.root = root
        self.latency = latency
        self.filters = filters
        self.anysha = anysha
        self.protocol0 = protocol0
        self.credentials = credentials
        self.link = Link(rate)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.backends: set[subprocess.Popen[bytes]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

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
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for fault in self.faults:
            fault.release.set()
        self._hang_up()
        with self.lock:
            for backend in self.backends:
                kill(backend)
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While this context lasts, nobody listens on the port: new connections are refused."""
        self._hang_up()
        with socket.socket() as placeholder:
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            placeholder.bind(("127.0.0.1", self._port))
            yield
        self._listen()

    def _listen(self) -> None:
        self._server = Server(self, ("127.0.0.1", self._port))
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _hang_up(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def backend_environment(self) -> dict[str, str]:
        """The environment of `git http-backend`: nobody's configuration but what the host's options say."""
        config = {
            "safe.directory": "*",
            "http.getanyfile": "false",
            "uploadpack.allowFilter": str(self.filters).lower(),
            "uploadpack.allowAnySHA1InWant": str(self.anysha).lower(),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        environment["GIT_CONFIG_COUNT"] = str(len(config))
        for number, (key, value) in enumerate(config.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return environment | {"GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1"}


@contextlib.contextmanager
def refused_url() -> Iterator[str]:
    """The URL of a port that nobody listens on, and that nobody else gets while the context lasts."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}"
