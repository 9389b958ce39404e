"""Values that the tests of the report show: outcomes, checks and whole runs."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import DiskError, InstallError, Interrupted, LocalWorkError, NetworkError, SourcesError, UsageError
from tasks.models import Check, EnvironmentState, Outcome, PackageState, RepositoryState, Result, Trace, Verification

FIX = "invoke update --flashinfer-branch=matching --sglang-branch=v0.5.10.post1"
CHECKS = (
    Check("sglang: repository", "pass", "tmp/sglang"),
    Check("sglang: tree", "warn", "2 files changed", command="git -C tmp/sglang stash"),
    Check("flashinfer: version", "fail", "0.6.18 is installed, 0.6.7.post3 is checked out", command=FIX),
    Check("flashinfer: imports", "skip", "not installed"),
)
ENVIRONMENT = EnvironmentState(Path("/p/.venv/bin/python"), Path("/p/.venv"))
CLONED = Outcome(
    "flashinfer", "cloned", "matching", "1a2b3c4d5e" * 4, "0.6.7.post3", bytes=52_300_000, seconds=41,
    ref_source="option", resolved="v0.6.7.post3",
)  # fmt: skip
UPDATED = Outcome(
    "third", "updated", "matching", "f" * 40, "0.6.7.post3", "e" * 40, "0.6.18", seconds=200,
    ref_source="this checkout", resolved="v0.6.7.post3", before_ref="main",
)  # fmt: skip
LOST = NetworkError("https://example.org/sglang.git: connection reset", "Check the network.", "invoke clone")
FAILED = Outcome("sglang", "failed", "main", ref_source="configuration", seconds=12, error=LOST)
FOUND = Verification(
    ok=False,
    repositories={
        "sglang": RepositoryState(
            Path("/p/tmp/sglang"), "https://me:secret@example.org/sglang.git", "main", "0" * 40, "0.5.10.post1", False,
            {"models": Path("/p/tmp/sglang/python/sglang/srt/models")},
        ),
        "flashinfer": RepositoryState(Path("/p/tmp/flashinfer"), "git@example.org:f.git", "main", None, None, None, {}),
    },
    packages={
        "sglang": PackageState("0.5.10.post1", True, Path("/p/tmp/sglang/python/sglang")),
        "flashinfer": PackageState(None, False, None),
    },
    trace=Trace(Path("/p/flashinfer_trace"), {"rmsnorm": 1}, 1, 1),
    checks=CHECKS,
)  # fmt: skip
ERRORS: tuple[SourcesError, ...] = (
    SourcesError("sglang is not cloned.", command="invoke clone"),
    UsageError("https://example.org/sglang.git has no branch, tag or commit v9.", "Nearest: v0.9."),
    LOST,
    DiskError("/p/tmp: no space left on device", "4 GB are needed, 1 GB is free."),
    LocalWorkError("1 changed file would be overwritten: README.md", command="git -C /p/tmp/sglang stash"),
    InstallError("sglang: cargo is missing", "Install Rust.", "apt-get install cargo"),
    Interrupted("Interrupted.", "Run the same command again."),
)


def succeeded(task: str) -> Result:
    """A run of the task in which all went well."""
    installed = Outcome("flashinfer", "installed", commit="1a2b3c4d5e" * 4, version="0.6.7.post3", seconds=9)
    steps = {"clone": [CLONED], "update": [UPDATED], "install": [installed]}
    good = Verification(True, FOUND.repositories, FOUND.packages, None, CHECKS[:2])
    chosen = {name: rows for name, rows in steps.items() if task in (name, "setup")}
    found = good if task in ("verify", "setup", "status") else None
    return Result(task, 0, ENVIRONMENT, chosen, 1.25, verification=found)


def failed(task: str, error: SourcesError, *, within: bool) -> Result:
    """A run of the task that ended with the error, `within` a step or before any."""
    step = "clone" if task == "setup" else task
    if not within or task in ("verify", "status", "lock"):
        return Result(task, error.status, None, error=error)
    row = Outcome("sglang", "failed", "main", ref_source="configuration", error=error)
    found = FOUND if task == "setup" else None
    return Result(task, error.status, ENVIRONMENT, {step: [row, CLONED]}, 0.5, verification=found)
