"""Writes the results of tests as JUnit's XML, in the form that pytest and the common CI servers use."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

KINDS = {"failed": "failure", "skipped": "skipped"}


def write_junit(path: Path, suites: Mapping[str, tuple[Collection[Mapping[str, Any]], float, str]]) -> None:
    """Write `suites` to `path`: by name the cases (with the keys of kernels_plugin.py), seconds, and what went wrong
    beside the cases. Raises OSError."""
    root = ElementTree.Element("testsuites")
    for name, (cases, seconds, problem) in suites.items():
        outcomes = [case["outcome"] for case in cases]
        figures = {"tests": len(outcomes), "failures": outcomes.count("failed"), "skipped": outcomes.count("skipped")}
        attributes = {key: str(count) for key, count in {**figures, "errors": int(bool(problem))}.items()}
        suite = ElementTree.SubElement(root, "testsuite", attributes, name=name, time=f"{seconds:.3f}")
        for case in cases:
            file, _, title = case["case"].partition("::")
            test = {"classname": file, "name": _allowed(title or file), "time": f"{case['seconds']:.3f}"}
            row = ElementTree.SubElement(suite, "testcase", test)
            if kind := KINDS.get(case["outcome"]):
                ElementTree.SubElement(row, kind, message=_allowed(case["reason"])).text = _allowed(case["text"])
        if problem:
            ElementTree.SubElement(suite, "system-err").text = _allowed(problem)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _allowed(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
