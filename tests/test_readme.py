"""What README, docs/ and the workflow say is what happens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.vendor import yaml

from tasks.settings import DEFAULTS, REPOSITORIES, REPOSITORY
from tests.conftest import Environment, Project

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
HOME = "/home/you/project"
SESSION = re.compile(r"```console\n(.*?)```", re.S)
LEFT_OUT = "..."


@pytest.fixture
def shell(project: Project, make_environment: Callable[[str], Environment], tools: Path) -> Project:
    """A project with its environment in `.venv`, as README has it, active; uv is there, too."""
    environment = make_environment(f"{project.path.name}/.venv")
    (site,) = environment.path.glob("lib/python*/site-packages")
    (site / "tools.pth").unlink()
    for source in tools.iterdir():  # copied, as uv looks for what is installed in this directory alone
        if source.name != "pip":
            (shutil.copytree if source.is_dir() else shutil.copy)(source, site / source.name)
    invoke = environment.path / "bin/invoke"
    invoke.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m invoke "$@"\n')
    invoke.chmod(0o755)
    project.make = lambda: environment
    project.environ["VIRTUAL_ENV"] = str(environment.path)
    project.environ["PATH"] = f"{invoke.parent}:{project.environ['PATH']}:{sysconfig.get_path('scripts')}"
    del project.environ["UV_CACHE_DIR"]  # what uv prints depends on what it has
    return project


def run(command: str, project: Project) -> str:
    """What a shell shows of the command, and its exit status if that is not 0."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=project.path, env=project.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    told = re.sub(r" +$", "", done.stdout, flags=re.M).replace(str(project.path), HOME)
    return told + (f"(exit status {done.returncode})\n" if done.returncode else "")


def key(line: str) -> str:
    """The line without what differs from run to run: times, durations, sizes, counts, commits and widths."""
    amount = r"\d\d:\d\d:\d\d|((\d+ min )?\d+(\.\d+)?(ms| ?s| [kMG]B| min| packages?)\b ?)+|\b[0-9a-f]{10}\b"
    return " ".join(re.sub(amount, "N ", line).split())


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="the session was recorded without a GPU")
def test_the_lines_of_the_session_are_what_is_printed(shell: Project) -> None:
    (session,) = SESSION.findall((ROOT / "docs/first-setup.md").read_text(encoding="utf-8"))
    _, *parts = re.split(r"^\$ (.*)\n", session, flags=re.M)
    for command, shown in zip(parts[::2], parts[1::2], strict=True):
        printed = run(command, shell)
        seen = {key(line) for line in printed.splitlines()}
        for line in shown.splitlines():
            assert line in ("", LEFT_OUT) or key(line) in seen, f"not printed: {line!r}, but\n{printed}"
    for shortened in SESSION.findall(TEXT):
        assert {*shortened.splitlines()} <= {*session.splitlines()}, "README shows lines of the complete session"


def test_the_configuration_shown_is_the_default() -> None:
    (shown,) = re.findall(r"these are the defaults:\n\n```yaml\n(.*?)```", TEXT, re.S)
    tree = yaml.safe_load(shown)["sources"]  # type: ignore[no-untyped-call]
    kinds = {key: value if isinstance(value, dict) else (value and str(value)) or None for key, value in tree.items()}
    assert kinds == DEFAULTS
    page = (ROOT / "docs/configuration.md").read_text()
    assert set(re.findall(r"`([\w-]+)`", re.findall(r"Known by name.*?\.\n", page, re.S)[0])) >= {*REPOSITORIES}
    (table,) = re.findall(r"\| key \|.*?\n\n", page, re.S)
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) == {*REPOSITORY}


def test_the_statuses_and_keys_in_the_tables_are_those_of_the_schema() -> None:
    schema = json.loads((ROOT / "tasks/verify/schemas/result.schema.json").read_text())
    (row,) = re.findall(r"^\| exit status \|(.*)", TEXT, re.M)
    assert list(map(int, re.findall(r"\d+", row))) == schema["properties"]["exit_status"]["enum"]
    (table,) = re.findall(r"\| key \|.*?\n\n", (ROOT / "docs/json.md").read_text(), re.S)
    cells = re.findall(r"^\| (`.*?`) \|", table, re.M)
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == {*schema["properties"]}


def test_links_lead_somewhere_and_pages_have_nothing_private() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/root/|localhost|127\.0\.0\.1", text), page
        prose = re.sub(r"```.*?```", "", text, flags=re.S)
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", prose):
            target = page.parent / path if path else page
            assert target.exists(), path
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M) if anchor else []
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, f"{page}: {path}#{anchor}"
