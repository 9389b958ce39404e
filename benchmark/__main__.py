"""Measure this project against what a user could use instead: plain git, west and vcs2l.

    python -m benchmark [--upstream DIR] [--rate BYTES] [--latency SECONDS] [--rounds N]

Everybody clones SGLang and FlashInfer from one host on loopback, in turns, then updates with nothing new and with one
new commit. The table and the plot go to `results/`. Without `--upstream` the repositories are generated, offline.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from tests.upstream.__main__ import write_configuration
from tests.upstream.host import GitHost
from tests.upstream.store import PATHS, Upstream

from . import contestants, generate, table
from .measure import Course, Measurement


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__.partition("\n")[0])
    parser.add_argument("--upstream", type=Path, metavar="DIR", help="take DIR/<owner>/<name>.git (left unchanged)")
    parser.add_argument("--rate", type=float, default=12.5e6, help="bytes per second of the line (default: 12.5e6)")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (default: 0.03)")
    parser.add_argument("--rounds", type=int, default=5, help="turns for everybody (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the generated repositories (default: 1)")
    parser.add_argument("--only", default="", metavar="REGEXP", help="only those whose name matches")
    parser.add_argument("--growth", action="store_true", help="measure 2 to 20 configured repositories, too")
    parser.add_argument("--no-peers", action="store_true", help="leave out what has to be installed: west, vcs2l")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    return parser.parse_args()


def linked(source: Path, target: Path) -> Upstream:
    """A copy of a folder of repositories that can be changed; by hard links where the file system allows."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    shutil.rmtree(target, ignore_errors=True)
    for path in PATHS.values():
        if (source / f"{path}.git").exists():
            shutil.copytree(source / f"{path}.git", target / f"{path}.git", copy_function=link)
    return Upstream(target)


def environment(folder: Path, peers: Path, url: str) -> dict[str, str]:
    """What everybody's commands get: an empty home, nobody's git configuration but the way to the host."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = write_configuration(folder / "gitconfig", url)
    path = os.pathsep.join([str(peers / "bin"), os.environ["PATH"]])
    own = {"HOME": str(folder), "PATH": path, "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"}
    return {"LANG": "C.UTF-8", **own}


def main() -> int:
    """Build or take the repositories, let everybody run in turns, write the results."""
    options = parse()
    results = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    source = options.upstream or generate.build(results / "generated", options.scale).root
    upstream = linked(source.resolve(), results / "upstream")
    peers = not options.no_peers and contestants.install_peers(results / "peers")
    found: list[Measurement] = []
    with GitHost(upstream.root, rate=options.rate, latency=options.latency) as host:
        environ = environment(results / "home", results / "peers", host.url)
        os.environ["PATH"] = environ["PATH"]  # `prepare` runs west
        course = Course(host, upstream, results / "work", environ)
        those = [one for one in contestants.everybody(peers) if re.search(options.only, one.name)]
        for turn in range(options.rounds):
            for each in those[turn % len(those) :] + those[: turn % len(those)]:
                print(f"round {turn + 1}: {each.name}", file=sys.stderr)
                found += course.turn(each)
            if those[0].name == contestants.PROJECT:
                found += course.second_worktree()
                found += course.growth((2, 5, 10, 20)) if options.growth else []
        versions = contestants.versions(environ)
    line = (
        f"{options.rate / 1e6:g} MB/s, {options.latency * 1000:g} ms, {options.rounds} rounds, {os.cpu_count()} cores"
    )
    title = f"{line}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    order = [one.name for one in contestants.everybody()]
    found.sort(key=lambda one: order.index(one.contestant) if one.contestant in order else 0)
    (results / "benchmark.md").write_text(table.markdown(found, title))
    (results / "benchmark.svg").write_text(table.svg(found, title))
    report = {"title": title, "machine": platform.platform(), "runs": [asdict(one) for one in found]}
    (results / "benchmark.json").write_text(json.dumps(report, indent=1))
    print(table.markdown(found, title))
    for leftover in ("work", "home", "upstream"):
        shutil.rmtree(results / leftover, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
