"""What `verify` returns, and shows with `--json`; `schemas/verify.schema.json` describes the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models import Check
from ..names import redact

if TYPE_CHECKING:
    from .trace import Trace


@dataclass(frozen=True)
class RepositoryState:
    """A checkout as it was found; None is what could not be found out. `directories` maps a role to its key folder."""

    path: Path
    url: str
    ref: str
    commit: str | None
    version: str | None
    dirty: bool | None
    directories: Mapping[str, Path]


@dataclass(frozen=True)
class PackageState:
    """An installed distribution (PEP 610); `location` is the folder it is imported from. None is not installed."""

    version: str | None
    editable: bool
    location: Path | None


@dataclass(frozen=True)
class Verification:
    """Everything that `verify` looked at. `ok`: nothing failed (nor warned, with `--strict`)."""

    ok: bool
    repositories: Mapping[str, RepositoryState]
    packages: Mapping[str, PackageState]
    trace: Trace | None
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object of `verify --json`: dicts, lists and strings, without passwords."""
        trace = self.trace and {
            "path": self.trace.path,
            "op_types": self.trace.op_types,
            "definitions": self.trace.definitions,
            "reference_tests": self.trace.reference_tests,
        }
        plain = {
            "ok": self.ok,
            "repositories": {name: asdict(state) for name, state in self.repositories.items()},
            "packages": {name: asdict(state) for name, state in self.packages.items()},
            "trace": trace,
            "checks": [asdict(check) for check in self.checks],
        }
        result: dict[str, Any] = _plain(plain)
        return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return redact(str(value)) if isinstance(value, str | Path) else value
