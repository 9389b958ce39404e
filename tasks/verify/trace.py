"""Looks at a folder of trace data, offline and without running anything of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..models import Check, Trace
from .trace_file import Broken, shown
from .trace_format import definition_of, workloads_of

_FOLDERS = {"definitions": "definitions", "reference tests": "tests/references", "workloads": "workloads"}


def read_trace(path: Path) -> Trace:
    """Check the trace data in the folder `path`, against the FlashInfer Trace format and JSON Schema (draft 7).

    Every broken file is a failed check of its own; nothing that the data may hold raises. `definitions` of the result
    counts the sound ones, `reference_tests` the test files.
    """
    sound: dict[str, dict[str, Any]] = {}
    names: dict[str, Path] = {}
    broken: list[Check] = []
    for file in _files(path, "definitions", ".json"):
        try:
            if file.stem in names:
                raise Broken(f"name: taken by {shown(names[file.stem].relative_to(path))}")
            names[file.stem] = file
            sound[file.stem] = definition_of(path, file)
        except (Broken, OSError) as error:
            broken.append(_failed(path, file, error))
    op_types = dict(sorted(Counter(definition["op_type"] for definition in sound.values()).items()))
    counts = ", ".join(f"{shown(op_type)} {count}" for op_type, count in op_types.items())
    checks = [_summary(path, "definitions", len(sound), broken, counts), *broken]

    tests = [file for file in _entries(path / "tests" / "references") if re.fullmatch(r"test_.+\.py", file.name)]
    stems = {file.stem for file in tests if file.is_file() and file.stat().st_size}
    broken = [
        Check(
            f"trace: tests/references/{shown(f'test_{name}.py')}",
            "fail",
            f"missing or empty, the reference test of {shown(file.relative_to(path))}",
            f"write it: {shown(path / 'tests' / 'references' / f'test_{name}.py')}",
        )
        for name, file in names.items()
        if f"test_{name}" not in stems
    ]
    checks += [_summary(path, "reference tests", len(tests), broken, "every definition has one"), *broken]

    lines, broken = 0, []
    for file in _files(path, "workloads", ".jsonl"):
        try:
            lines += workloads_of(path, file, names, sound)
        except (Broken, OSError) as error:
            broken.append(_failed(path, file, error))
    if lines or broken:
        checks += [_summary(path, "workloads", lines, broken, "every variable axis is bound"), *broken]
    else:
        checks.append(Check("trace: workloads", "skip", "there are none"))
    return Trace(path, op_types, len(sound), len(tests), tuple(checks))


def _summary(path: Path, what: str, good: int, broken: list[Check], detail: str) -> Check:
    folder = path / _FOLDERS[what]
    if broken:
        return Check(f"trace: {what}", "fail", f"{good} found, {len(broken)} broken or missing", "see each below")
    if not good:
        state = "empty" if folder.is_dir() else "missing"
        fix = f"put the {what} there, or name the folder of the trace data in the setting sources.trace"
        return Check(f"trace: {what}", "fail", f"{shown(folder)} is {state}", fix)
    return Check(f"trace: {what}", "pass", f"{good} ({detail})")


def _failed(path: Path, file: Path, error: OSError | Broken) -> Check:
    detail = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return Check(f"trace: {shown(file.relative_to(path))}", "fail", detail, f"mend or remove {shown(file)}")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _files(path: Path, kind: str, suffix: str) -> Iterator[Path]:
    """The files in and one below `path`/`kind` that end in `suffix`, and folders that cannot be read.

    No deeper, so links in circles do no harm.
    """
    for entry in _entries(path / kind):
        if entry.suffix == suffix:
            yield entry
            continue
        try:
            yield from (file for file in sorted(entry.iterdir()) if file.suffix == suffix)
        except NotADirectoryError:
            continue
        except OSError:
            yield entry
