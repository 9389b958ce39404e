"""Measure this project against what a user could use instead: plain git, west and vcs2l.

    python -m benchmark [--upstream DIR] [--rate BYTES] [--latency SECONDS] [--rounds N]

Each tool clones SGLang and FlashInfer from one host on loopback, in turns, then updates with nothing new and with one
new commit. Tables and a plot go to `results/`. Without `--upstream` the repositories are the small stand-ins of the
tests: good for trying the benchmark, too small for figures.
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

from tests.upstream import repositories
from tests.upstream.__main__ import write_configuration
from tests.upstream.host import GitHost
from tests.upstream.store import PATHS, Upstream

from . import contestants, table
from .measure import Course, Measurement


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m benchmark", description=__doc__.partition("\n")[0])
    parser.add_argument("--upstream", type=Path, metavar="DIR", help="take DIR/<owner>/<name>.git (left unchanged)")
    parser.add_argument("--rate", type=float, default=12.5e6, help="bytes per second of the line (default: 12.5e6)")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (default: 0.03)")
    parser.add_argument("--rounds", type=int, default=5, help="turns for each tool (default: 5)")
    parser.add_argument("--only", default="", metavar="REGEXP", help="only those whose name matches")
    parser.add_argument("--no-peers", action="store_true", help="leave out what has to be installed: west, vcs2l")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    return parser.parse_args()


def linked(source: Path, target: Path) -> Upstream:
    """A copy of a folder of repositories that can be changed; by hard links where the file system allows."""

    def link(file: str, copy: str) -> None:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copy2(file, copy)

    shutil.rmtree(target, ignore_errors=True)
    for path in PATHS.values():
        if (source / f"{path}.git").exists():
            shutil.copytree(source / f"{path}.git", target / f"{path}.git", copy_function=link)
    return Upstream(target)


def environment(folder: Path, peers: Path, url: str) -> dict[str, str]:
    """What every command gets: an empty home, no git configuration but the way to the host."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = write_configuration(folder / "gitconfig", url)
    path = os.pathsep.join([str(peers / "bin"), os.environ["PATH"]])
    git = {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    return {"LANG": "C.UTF-8", "HOME": str(folder), "PATH": path, **git}


def main() -> int:
    """Build or take the repositories, let each tool run in turns, write the results."""
    options = parse()
    results = options.results.resolve()
    shutil.rmtree(results / "small", ignore_errors=True)
    source = options.upstream or repositories.build(results / "small").root
    upstream = linked(source.resolve(), results / "upstream")
    peers = not options.no_peers and contestants.install_peers(results / "peers")
    measured: list[Measurement] = []
    with GitHost(upstream.root, rate=options.rate, latency=options.latency) as host:
        environ = environment(results / "home", results / "peers", host.url)
        os.environ["PATH"] = environ["PATH"]  # `prepare` runs west
        course = Course(host, upstream, results / "work", environ)
        tools = [tool for tool in contestants.everybody(peers) if re.search(options.only, tool.name)]
        for turn in range(options.rounds):
            for tool in tools[turn % len(tools) :] + tools[: turn % len(tools)]:
                print(f"round {turn + 1}: {tool.name}", file=sys.stderr)
                measured += course.turn(tool)
        versions = contestants.versions(environ)
    line = f"{options.rate / 1e6:g} MB/s, {options.latency * 1000:g} ms"
    title = f"{line}, {options.rounds} rounds, {os.cpu_count()} cores; "
    title += ", ".join(f"{name} {version}" for name, version in versions.items())
    order = [tool.name for tool in tools]
    measured.sort(key=lambda measurement: order.index(measurement.contestant))
    (results / "benchmark.md").write_text(table.markdown(measured, title))
    (results / "benchmark.svg").write_text(table.svg(measured, title))
    report = {"title": title, "machine": platform.platform(), "runs": [asdict(one) for one in measured]}
    (results / "benchmark.json").write_text(json.dumps(report, indent=1))
    print(table.markdown(measured, title))
    for temporary in ("work", "home", "upstream", "small"):
        shutil.rmtree(results / temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
