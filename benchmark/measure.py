"""One contestant's turn: what it takes in seconds, bytes, requests and disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.upstream.host import GitHost
from tests.upstream.store import Upstream, git

from .contestants import URLS, Command, Contestant

CLONE, NOTHING, COMMIT, WORKTREE = "cold clone", "nothing new", "one new commit", "second worktree"


@dataclass(frozen=True)
class Measurement:
    """What one run took; `sent` and `disk` are in bytes, `disk` is what the checkouts then fill."""

    contestant: str
    what: str
    seconds: float
    sent: int
    requests: int
    disk: int


def disk_usage(folder: Path) -> int:
    """What `du` says: allocated bytes, a file with several links once."""
    blocks: dict[tuple[int, int], int] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = (Path(place) / name).lstat()
            blocks[status.st_dev, status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())


class Course:
    """The line that every tool runs on: one host, one folder for the checkouts, one environment."""

    def __init__(self, host: GitHost, upstream: Upstream, folder: Path, environment: Mapping[str, str]) -> None:
        self.host = host
        self.upstream = upstream
        self.folder = folder
        self.environment = environment

    def turn(self, contestant: Contestant) -> list[Measurement]:
        """Clone, update with nothing new, copy, update after one new commit; nothing of it is left afterwards."""
        folder = self._prepare(contestant, "first")
        measured = [self._time(contestant, CLONE, contestant.clone, folder)]
        measured.append(self._time(contestant, NOTHING, contestant.update, folder))
        if contestant.worktree:
            second = self._prepare(contestant, "second")
            measured.append(self._time(contestant, WORKTREE, contestant.worktree, second))
            shutil.rmtree(second)
        old = self.upstream.commit("flashinfer")
        try:
            self.upstream.add_commit("flashinfer", files={"README.md": "# One new commit\n"})
            measured.append(self._time(contestant, COMMIT, contestant.update, folder))
        finally:
            self.upstream.set_ref("flashinfer", "refs/heads/main", old)
        shutil.rmtree(folder)
        return measured

    def _prepare(self, contestant: Contestant, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contestant.prepare(folder)
        return folder

    def _time(self, contestant: Contestant, what: str, commands: Sequence[Command], folder: Path) -> Measurement:
        os.sync()
        self.host.reset()
        start = time.perf_counter()
        running: list[tuple[subprocess.Popen[bytes], Command]] = []
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            running.append((process, command))
            if not contestant.together:
                self._end(process, command)
        for process, command in running if contestant.together else ():
            self._end(process, command)
        seconds = time.perf_counter() - start
        for repository in URLS:
            checkout = folder / contestant.checkouts / repository
            if git(checkout, "rev-parse", "HEAD") != self.upstream.commit(repository):
                raise RuntimeError(f"{contestant.name}: {repository} is not at its branch's tip after {what}")
        disk = disk_usage(folder / contestant.checkouts)
        return Measurement(contestant.name, what, seconds, self.host.bytes_sent, len(self.host.requests), disk)

    @staticmethod
    def _end(process: subprocess.Popen[bytes], command: Command) -> None:
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.decode(errors='replace')[-2000:]}")
