"""Upstream repositories with realistic histories and submodules, generated offline, the same from the same seed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.upstream import flashinfer, sglang
from tests.upstream.store import PATHS, File, Importer, Upstream, git

SEED = "sources"
WORDS = 4_000
EXTENSIONS = (".py", ".h", ".cu", ".cuh", ".cpp", ".md")


@dataclass(frozen=True)
class Shape:
    """How large a repository is: files in its folders (each of `lines` lines on average) and commits on main."""

    folders: Mapping[str, int]
    commits: int
    lines: int = 300
    touched: int = 6  # files that a commit changes, a third of each


# Trees about as large as the real ones, histories shorter.
SHAPES = {
    "sglang": Shape({"python/sglang/srt": 1_100, "python/sglang/lang": 100, "docs": 150, "test": 350}, 500),
    "flashinfer": Shape(
        {"csrc": 800, "include/flashinfer": 250, "flashinfer": 400, "tests": 350, "docs": 50}, 1_000, 500
    ),
    "cutlass": Shape(
        {"include/cutlass": 700, "tools/util/include": 40, "test": 1_600, "docs": 500, "media": 100}, 150, 500
    ),
    "spdlog": Shape({"include/spdlog": 90, "tests": 40, "example": 10}, 400, 150, 2),
    "cccl": Shape(
        {"cub/cub": 200, "libcudacxx/include": 700, "thrust/thrust": 400, "libcudacxx/test": 4_000}, 500, 250
    ),
    "nixl": Shape({"src": 300, "test": 100, "docs": 20}, 200, 200, 3),
}


class Text:
    """Source-like lines, which compress about as source does."""

    def __init__(self, random: Random) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz_"
        words = ["".join(random.choices(letters, k=random.randint(2, 11))) for _ in range(WORDS)]
        frequent = [words[min(int(random.paretovariate(0.6)), WORDS) - 1] for _ in range(20 * WORDS)]
        self.random = random
        self.lines = [
            " " * (4 * random.randint(0, 3)) + " ".join(random.choices(frequent, k=random.randint(1, 9)))
            for _ in range(10 * WORDS)
        ]

    def file(self, lines: int) -> list[str]:
        """A new file of about that many lines."""
        return self.random.choices(self.lines, k=max(3, int(lines * self.random.lognormvariate(-0.3, 0.8))))

    def edit(self, lines: list[str]) -> list[str]:
        """The file with a stretch of it rewritten."""
        start = self.random.randrange(len(lines))
        stretch = self.random.choices(self.lines, k=1 + len(lines) // 3)
        return lines[:start] + stretch + lines[start + len(stretch) :]


def history(text: Text, shape: Shape, scale: float) -> Iterator[dict[str, str]]:
    """Trees of changed files, the first of them with every file, one for each commit."""
    tree: dict[str, list[str]] = {}
    for folder, count in shape.folders.items():
        for number in range(max(2, int(count * scale))):
            extension = EXTENSIONS[number % len(EXTENSIONS)]
            tree[f"{folder}/part{number % 20}/module{number}{extension}"] = text.file(shape.lines)
    yield {path: "\n".join(lines) for path, lines in tree.items()}
    names = list(tree)
    for _ in range(max(3, int(shape.commits * scale))):
        changed = text.random.sample(names, min(shape.touched, len(names)))
        for path in changed:
            tree[path] = text.edit(tree[path])
        yield {path: "\n".join(tree[path]) for path in changed}


def write(repository: Path, trees: Iterator[dict[str, str]], releases: Sequence[Mapping[str, File]] = ()) -> str:
    """Write a repository, with the files of the releases laid over its tree in even steps; returns the last but one.

    Every 25th commit has a tag; some commits are on branches of their own.
    """
    changes, commits = list(trees), list[str]()
    with Importer(repository) as to:
        for number, tree in enumerate(changes):
            release = number * len(releases) // len(changes)
            extra = releases[release] if releases and number % max(1, len(changes) // len(releases)) == 0 else {}
            parent = commits[-1] if commits else ""
            commits.append(to.commit("main", {**tree, **extra}, parent, f"Change {number}", whole=not parent))
            if number % 25 == 0:
                to.point(f"refs/tags/v0.0.{number}", commits[-1])
            if number % 60 == 1:
                to.commit(f"feature/{number}", {"feature.md": f"{number}\n"}, parent, whole=False)
    git(repository, "repack", "-adfq", "--window=4")
    git(repository, "repack", "-adbq")
    return commits[-2]


def build(root: Path, scale: float = 1.0) -> Upstream:
    """Generate the two repositories and FlashInfer's four submodules; once: a finished folder is taken as it is."""
    done = root / f"generated-{scale}"
    if done.exists():
        return Upstream(root)
    subprocess.run(["rm", "-rf", str(root)], check=True)
    text = Text(Random(SEED))  # noqa: S311
    links: dict[str, str] = {}
    for name in ("cutlass", "spdlog", "cccl", "nixl"):
        links[name] = write(root / f"{PATHS[name]}.git", history(text, SHAPES[name], scale))
    release = flashinfer.root_layout("0.6.18", links, ("cutlass", "spdlog", "cccl", "nixl"), "")
    write(root / f"{PATHS['flashinfer']}.git", history(text, SHAPES["flashinfer"], scale), [release])
    files = sglang.release("", "flashinfer_python==0.6.18")
    write(root / f"{PATHS['sglang']}.git", history(text, SHAPES["sglang"], scale), [files])
    upstream = Upstream(root)
    upstream.move_tag("sglang", "v0.5.10.post1")
    upstream.move_tag("flashinfer", "v0.6.18rc7", "main~1")
    done.touch()
    return upstream
