"""What a host was asked, and what it can be told to get wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Action = Literal["truncate", "stall", "hook", "status", "raw"]


@dataclass
class Request:
    """One request as the host saw it: `command` is protocol v2's (`ls-refs`, `fetch`) or empty, `sent` the bytes of
    the answer's body so far."""

    method: str
    path: str
    query: str
    command: str
    sent: int = 0

    def __str__(self) -> str:
        return f"{self.method} {self.path}?{self.query} {self.command}"


@dataclass
class Fault:
    """What goes wrong with the matches number `nth` to `nth + times - 1` of the regular expression `on`.

    `on` is searched in `str(Request)`, such as `POST /o/n.git/git-upload-pack? fetch`. `status`, and `raw`, which sends
    `answer` and closes the connection, answer at once; the others act when `after` bytes of the body are sent (a
    shorter answer is left alone). `stall` holds until `release` is set or the host closes; `hook` calls `call` and goes
    on. `fired` is set when it happened.
    """

    action: Action
    on: str = ""
    after: int = 0
    nth: int = 1
    times: int = 1
    status: int = 503
    call: Callable[[], object] = lambda: None
    answer: bytes = b""
    fired: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    seen: int = 0

    def matches(self, request: Request) -> bool:
        """Count this request; True if it is one that the fault is meant for."""
        if not re.search(self.on, str(request)):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times
