"""Ends processes with their children, and those that wait for a connection that nobody answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def end(pid: int) -> None:
    """Ask the process and its children, which would otherwise work on, to end."""
    import psutil

    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with suppress(psutil.Error):
                process.terminate()


@contextmanager
def answered(given_up: threading.Event, patience: float, pid: int) -> Iterator[None]:
    """Meanwhile end the process when a connection that it or a child asks for is not answered for `patience` seconds;
    `given_up` is set then. git itself waits for minutes, since http.lowSpeedTime counts from the connection on."""
    over = threading.Event()

    def watch() -> None:
        before = set[object]()
        while not over.wait(patience / 2):
            now = _asked_for(pid)
            if before & now:
                given_up.set()
                return end(pid)
            before = now

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _asked_for(pid: int) -> set[object]:
    import psutil

    with suppress(psutil.Error):
        root = psutil.Process(pid)
        connections = (each for process in [root, *root.children(recursive=True)] for each in process.net_connections())
        return {each.laddr for each in connections if each.status == psutil.CONN_SYN_SENT}
    return set()
