"""What is measured: this project, plain git, west and vcs2l, each in the configuration that its users would choose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    The commands run one after the other, or all at once where they are `together`. `worktree` makes the same again in
    another folder, from the first one beside it, `../first`.
    """

    name: str
    clone: Sequence[Command]
    update: Sequence[Command]
    prepare: Callable[[Path], None] = lambda folder: None
    together: bool = False
    checkouts: str = "."
    worktree: Sequence[Command] = ()


def project() -> Contestant:
    """This project."""

    def prepare(folder: Path) -> None:
        shutil.copy2(ROOT / "tasks.py", folder)
        shutil.copytree(ROOT / "tasks", folder / "tasks")

    invoke = (sys.executable, "-m", "invoke")
    copy = [("cp", "-a", "../first/tmp", "."), (*invoke, "update")]
    return Contestant(PROJECT, [(*invoke, "clone")], [(*invoke, "update")], prepare, checkouts="tmp", worktree=copy)


def _plain() -> Contestant:
    script = str(Path(__file__).with_name("plain.sh"))
    return Contestant("git, a script of 40 lines", [("sh", script, "clone")], [("sh", script, "update")])


def _git(name: str, *options: str, together: bool = False) -> Contestant:
    clone = [("git", "clone", "-q", "--recurse-submodules", *options, url) for url in URLS.values()]
    update = [("git", "-C", repository, "pull", "-q", "--recurse-submodules") for repository in URLS]
    return Contestant(name, clone, update, together=together)


def _west() -> Contestant:
    def prepare(folder: Path) -> None:
        (folder / "manifest").mkdir()
        projects = "".join(
            f"  - {{name: {repository}, url: '{url}', revision: main, submodules: true}}\n"
            for repository, url in URLS.items()
        )
        (folder / "manifest/west.yml").write_text(f"manifest:\n  projects:\n{projects}")
        subprocess.run(["west", "init", "-l", "manifest"], cwd=folder, check=True, capture_output=True)

    update: Command = ("west", "-q", "update", "--narrow", "-o=--depth=1")
    return Contestant("west, narrow and shallow", [update], [update], prepare)


def _vcs2l() -> Contestant:
    def prepare(folder: Path) -> None:
        entries = "".join(f"  {name}: {{type: git, url: '{url}', version: main}}\n" for name, url in URLS.items())
        (folder / "all.repos").write_text(f"repositories:\n{entries}")

    clone = ("vcs", "import", "--input", "all.repos", "--shallow", "--recursive", "--workers", "4")
    return Contestant("vcs2l, shallow", [clone], [("vcs", "pull", "--workers", "4")], prepare)


def everybody(peers: bool = True) -> list[Contestant]:
    """This project first, then git, then (with `peers`) the programs that have to be installed."""
    shallow = ("--depth=1", "--shallow-submodules")
    return [
        project(),
        _plain(),
        _git("git clone"),
        _git("git clone, shallow", *shallow),
        _git("git clone, shallow, all at once", *shallow, "--jobs=4", together=True),
        *([_west(), _vcs2l()] if peers else []),
    ]


def install_peers(folder: Path) -> bool:
    """Install west and vcs2l into an environment of their own, once; False where no index can be reached."""
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run = subprocess.run([*pip, "west", "vcs2l"], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"west and vcs2l are left out: {run.stderr.strip()[-500:]}", file=sys.stderr)
            return False
        (folder / "done").touch()
    return True


def versions(environment: Mapping[str, str]) -> dict[str, str]:
    """The versions of git, Python and the peers."""
    commands = {"git": ["git", "version"], "west": ["west", "--version"], "vcs2l": ["vcs", "--version"]}
    numbers = {"Python": sys.version.split()[0]}
    for name, command in commands.items():
        try:
            run = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        numbers[name] = run.stdout.split()[-1].lstrip("v")
    return numbers
