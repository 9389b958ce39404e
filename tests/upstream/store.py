"""Bare repositories `<root>/<owner>/<name>.git`: written by git-fast-import(1), then changed as upstreams change."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

PATHS = {
    "sglang": "sgl-project/sglang",
    "flashinfer": "flashinfer-ai/flashinfer",
    "cutlass": "NVIDIA/cutlass",
    "cccl": "NVIDIA/cccl",
    "nvbench": "NVIDIA/nvbench",
    "spdlog": "gabime/spdlog",
}
WHO = "Upstream <upstream@example.org>"
_later = itertools.count(1_780_000_000, 60)


@dataclass(frozen=True)
class Gitlink:
    """A submodule's commit in a tree."""

    commit: str


@dataclass(frozen=True)
class Symlink:
    """A symbolic link in a tree."""

    target: str


File = str | bytes | Gitlink | Symlink
Tree = Mapping[str, File | None]


def environment() -> dict[str, str]:
    """The environment of git where nobody's configuration is read."""
    return {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


def git(repository: Path, *arguments: str) -> str:
    """What git prints, without the newline at the end; nobody's configuration is read."""
    run = subprocess.run(["git", *arguments], cwd=repository, env=environment(), capture_output=True, check=True)
    return run.stdout.decode().removesuffix("\n")


class Importer:
    """One `git fast-import` into a bare repository, which is made where it is missing. Commits are a minute apart."""

    def __init__(self, repository: Path, start: int = 1_700_000_000) -> None:
        self.repository = repository
        self.dates = itertools.count(start, 60)
        self.marks: dict[str, str] = {}  # fast-import knows its own commits by their marks alone
        if not repository.exists():
            repository.mkdir(parents=True)
            git(repository, "init", "-q", "--bare", "--template=", "--initial-branch=main")

    def __enter__(self) -> Importer:
        settings = ("-c", "fastimport.unpackLimit=1", "-c", "core.compression=1")
        command = ["git", *settings, "fast-import", "--quiet", "--force", "--done"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=self.repository, env=environment(), stdin=pipe, stdout=pipe)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("done\n")
        self.process.communicate()
        assert kind or self.process.returncode == 0, "git fast-import failed"

    def _write(self, *parts: str | bytes) -> None:
        assert self.process.stdin
        for part in parts:
            self.process.stdin.write(part.encode() if isinstance(part, str) else part)

    def _data(self, data: str | bytes) -> None:
        data = data.encode() if isinstance(data, str) else data
        self._write(f"data {len(data)}\n", data, "\n")

    def commit(self, branch: str, tree: Tree, parent: str = "", message: str = "", *, whole: bool = True) -> str:
        """Commit `tree` on `branch` and return the commit id; not `whole`: laid over the parent's, None deletes."""
        mark = f":{len(self.marks) + 1}"
        self._write(f"commit refs/heads/{branch}\nmark {mark}\ncommitter {WHO} {next(self.dates)} +0000\n")
        self._data(message or f"Work on {branch}")
        self._write(f"from {self.marks.get(parent, parent)}\n" if parent else "", "deleteall\n" if whole else "")
        for path, file in tree.items():
            quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
            if file is None:
                self._write(f"D {quoted}\n")
            elif isinstance(file, Gitlink):
                self._write(f"M 160000 {file.commit} {quoted}\n")
            elif isinstance(file, Symlink):
                self._write(f"M 120000 inline {quoted}\n")
                self._data(file.target)
            else:
                self._write(f"M 100644 inline {quoted}\n")
                self._data(file)
        self._write(f"\nget-mark {mark}\n")
        assert self.process.stdin and self.process.stdout
        self.process.stdin.flush()
        commit = self.process.stdout.readline().decode().strip()
        self.marks[commit] = mark
        return commit

    def point(self, ref: str, commit: str) -> None:
        """Let the full name `ref` name `commit`: a branch or a lightweight tag."""
        self._write(f"reset {ref}\nfrom {self.marks.get(commit, commit)}\n\n")

    def annotate(self, tag: str, commit: str) -> None:
        """Make the annotated tag."""
        self._write(f"tag {tag}\nfrom {self.marks.get(commit, commit)}\ntagger {WHO} {next(self.dates)} +0000\n")
        self._data(tag)


class Upstream:
    """A folder of bare repositories. Names are those of `PATHS` or `owner/name`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """The bare repository."""
        return self.root / f"{PATHS.get(name, name)}.git"

    def copy(self, root: Path) -> Upstream:
        """The same repositories in another folder, by hard links: git never writes into an existing file."""
        shutil.copytree(self.root, root, copy_function=os.link)
        return Upstream(root)

    def commit(self, name: str, revision: str = "main") -> str:
        """The commit id of any revision that gitrevisions(7) knows."""
        return git(self.path(name), "rev-parse", "--verify", f"{revision}^{{commit}}")

    def add_commit(
        self, name: str, branch: str = "main", files: Tree | None = None, *, parent: str = "", message: str = ""
    ) -> str:
        """One commit more on a branch, or on `parent`; a file that is None is deleted. Returns the commit id."""
        exists = self.path(name).exists()
        base = self.commit(name, parent or f"refs/heads/{branch}") if exists else ""
        date = next(_later)
        with Importer(self.path(name), date) as importer:
            changes = files or {"CHANGES": f"{date}\n"}
            return importer.commit(branch, changes, base, message, whole=not base)

    def force_push(self, name: str, branch: str = "main", files: Tree | None = None) -> str:
        """Replace the last commit of a branch by another one. Returns the new commit id."""
        return self.add_commit(name, branch, files, parent=f"refs/heads/{branch}~1", message="Pushed with force")

    def set_ref(self, name: str, ref: str, revision: str) -> str:
        """Make or move a branch or tag (full name) to a revision. Returns the commit id."""
        commit = self.commit(name, revision)
        git(self.path(name), "update-ref", ref, commit)
        return commit

    def move_tag(self, name: str, tag: str, revision: str = "main") -> str:
        """Make a tag or move it, lightweight. Returns the commit id."""
        return self.set_ref(name, f"refs/tags/{tag}", revision)

    def delete_ref(self, name: str, ref: str) -> None:
        """Delete a branch or tag, by its full name."""
        git(self.path(name), "update-ref", "-d", ref)

    def read(self, name: str, path: str, revision: str = "main") -> str:
        """A file's content at a revision."""
        return git(self.path(name), "show", f"{revision}:{path}") + "\n"
