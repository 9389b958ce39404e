"""Why an installer failed, in one sentence, read from the last lines that it printed."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from ..errors import DiskError, InstallError, NetworkError, SourcesError

SHOWN = 15  # last lines of a failed installer's output

_UNREACHABLE = (
    r"(?:Failed to fetch|error sending request|dns error|NewConnectionError|ConnectTimeoutError|Read timed out"
    r"|Connection (?:refused|reset)|ProxyError|Max retries exceeded)"
)
_CARGO = r"(?i:failed to (?:download|get) (?:.*\n)*?.*|unable to update registry `|spurious network.*)crates[.-]io"
# The first that matches counts; what its groups matched is put into the sentence.
_REASONS: tuple[tuple[str, type[SourcesError], str], ...] = (
    (r"No space left on device|os error 28\b", DiskError, "the disk is full"),
    (_CARGO, NetworkError, "crates.io, where Rust packages come from, could not be reached"),
    (r"CUDA_HOME environment variable is not set", InstallError, "the build needs the CUDA toolkit (nvcc)"),
    (
        rf"{_UNREACHABLE}[^\n]*?[`(<]?(https?://[^\s`)>]+?)/?(?:simple/[^\s`)>]*)?[`)>\s]",
        NetworkError,
        "the package index {} could not be reached",
    ),
    (
        rf"Looking in indexes: (.+)\n(?:.*\n)*?.*{_UNREACHABLE}",
        NetworkError,
        "a package index could not be reached; asked were {}",
    ),
    (_UNREACHABLE, NetworkError, "the package index could not be reached"),
    (r"Because (\S+) was not found in", InstallError, "no release of {} was found on the package index"),
    (
        r"conflict is caused by:\n((?:.+\n)+)|No solution found when resolving.*\n((?:.+\n)+)",
        InstallError,
        "these requirements cannot be met together: {}",
    ),
    (r"No matching distribution found for (.+)", InstallError, "no release of {} was found on the package index"),
    (r"(?i)can't find rust compiler|cargo.*not (?:found|installed)", InstallError, "the build needs Rust (cargo)"),
    (
        r"command '(\S+)' failed|No such file or directory: '([^']*(?:cc|\+\+|clang|ninja|cmake|nvcc))'",
        InstallError,
        "the compiler {} failed or is missing",
    ),
    (r"(?i)permission denied: '([^']+)'", InstallError, "{} cannot be written"),
    (r"(?s:.*)\n\s*(\w+(?:Error|Exception): .+)", InstallError, "the build raised {}"),  # the last one
)


def explain(who: str, status: int, lines: Sequence[str], log: Path, command: str) -> SourcesError:
    """The error for an installer that ended with `status` (negative: the signal) after printing `lines`.

    Its `command` repeats the installation by hand, and its hint names the log. NetworkError if an index could not be
    reached, DiskError if the disk is full, else InstallError.
    """
    text = "\n" + "\n".join(lines) + "\n"
    last = "".join(f"\n    {line}" for line in [line for line in lines if line.strip()][-SHOWN:])
    kind: type[SourcesError] = InstallError
    reason = f"the installer ended with status {status}"
    if status < 0:
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        reason = f"the installer was ended by signal {-status}{memory}"
    for pattern, error, sentence in _REASONS:
        if found := re.search(pattern, text):
            matched = next(filter(None, found.groups()), "").splitlines()
            kind = error
            reason = sentence.format("; ".join(re.sub(r"[\s│╰▶─]+", " ", line).strip(" .") for line in matched))
            break
    return kind(f"{who}: {reason}.{last}", f"The full output is in {log}.", command)
