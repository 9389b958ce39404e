"""Who is measured: this project, plain git, west and vcs2l, each in the configuration that its users would choose."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
URLS = {
    "sglang": "https://github.com/sgl-project/sglang.git",
    "flashinfer": "https://github.com/flashinfer-ai/flashinfer.git",
}
PROJECT = "this project"
Command = tuple[str, ...]


@dataclass(frozen=True)
class Contestant:
    """`clone` makes the checkouts in an empty folder that `prepare` has set up, `update` brings them up to date.

    The commands run one after the other, or all at once where they are `together`.
    """

    name: str
    clone: Sequence[Command]
    update: Sequence[Command]
    prepare: Callable[[Path], None] = lambda folder: None
    together: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    checkouts: str = "."


def _git(name: str, *options: str, together: bool = False) -> Contestant:
    clone = [("git", "clone", "-q", *options, url) for url in URLS.values()]
    recurse = ["--recurse-submodules"] if "--recurse-submodules" in options else []
    update = [("git", "-C", repository, "pull", "-q", *recurse) for repository in URLS]
    return Contestant(name, clone, update, together=together)


def _west(name: str, *options: str) -> Contestant:
    def prepare(folder: Path) -> None:
        (folder / "manifest").mkdir()
        projects = "".join(
            f"  - {{name: {repository}, url: '{url}', revision: main, submodules: true}}\n"
            for repository, url in URLS.items()
        )
        (folder / "manifest/west.yml").write_text(f"manifest:\n  projects:\n{projects}")
        subprocess.run(["west", "init", "-l", "manifest"], cwd=folder, check=True, capture_output=True)

    update: Command = ("west", "-q", "update", *options)
    return Contestant(name, [update], [update], prepare)


def _vcs2l() -> Contestant:
    def prepare(folder: Path) -> None:
        entries = "".join(f"  {name}: {{type: git, url: '{url}', version: main}}\n" for name, url in URLS.items())
        (folder / "all.repos").write_text(f"repositories:\n{entries}")

    clone = ("vcs", "import", "--input", "all.repos", "--shallow", "--recursive", "--workers", "4")
    return Contestant("vcs2l, shallow", [clone], [("vcs", "pull", "--workers", "4")], prepare)


def project(name: str = PROJECT, cache: Path | None = None, extra: Sequence[str] = (), branch: str = "") -> Contestant:
    """This project; `cache` is the folder of shared objects, `extra` the urls of more repositories at `branch`."""

    def prepare(folder: Path) -> None:
        shutil.copy2(ROOT / "tasks.py", folder)
        shutil.copytree(ROOT / "tasks", folder / "tasks")
        if extra:
            entries = {
                f"extra{number}": {"url": url, "branch": branch, "install": False} for number, url in enumerate(extra)
            }
            (folder / "invoke.json").write_text(json.dumps({"sources": {"repositories": entries}}))

    environment = {"INVOKE_SOURCES_CACHE": str(cache or "")}
    invoke = (sys.executable, "-m", "invoke")
    return Contestant(name, [(*invoke, "clone")], [(*invoke, "update")], prepare, False, environment, "tmp")


def everybody(peers: bool = True) -> list[Contestant]:
    """This project first, then git, then (with `peers`) the programs that have to be installed."""
    shallow = ("--recurse-submodules", "--depth=1", "--shallow-submodules")
    return [
        project(),
        _git("git clone, submodules", "--recurse-submodules"),
        _git("git clone, no submodules"),
        _git("git clone, shallow", *shallow),
        _git("git clone, shallow, all at once", *shallow, "--jobs=4", together=True),
        *([_west("west"), _west("west, narrow and shallow", "--narrow", "-o=--depth=1"), _vcs2l()] if peers else []),
    ]


def install_peers(folder: Path) -> bool:
    """Install west and vcs2l into an environment of their own, once; False where no index can be reached."""
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [
            str(folder / "bin/python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "west",
            "vcs2l",
        ]
        if (run := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
            print(f"west and vcs2l are left out: {run.stderr.strip()[-500:]}", file=sys.stderr)
            return False
        (folder / "done").touch()
    return True


def versions(environment: Mapping[str, str]) -> dict[str, str]:
    """The versions of git, Python and the peers."""
    found = {"Python": sys.version.split()[0]}
    for name, command in {
        "git": ["git", "version"],
        "west": ["west", "--version"],
        "vcs2l": ["vcs", "--version"],
    }.items():
        try:
            run = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True)
            found[name] = run.stdout.split()[-1].lstrip("v")
        except (OSError, subprocess.CalledProcessError):
            continue
    return found
