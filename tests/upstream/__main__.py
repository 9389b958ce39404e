"""Run a command as if github.com held the small upstream repositories.

    python -m tests.upstream [--rate BYTES] [--latency SECONDS] COMMAND [ARGUMENT ...]

They are served on loopback while the command runs; git finds them by a configuration of its own for that command.
`invoke` is that of an environment of its own, which holds the project's requirements and vanishes afterwards: nothing
is installed into the one that runs this. The exit status is the command's (128 + N where signal N ended it).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from . import repositories, wheels
from .host import GitHost
from .workshop import SITES


def write_configuration(file: Path, url: str) -> Path:
    """Write a git configuration under which `https://github.com/` means `url` (and Hugging Face's data sets, too).
    Returns `file`."""
    rewriting = "".join(f"\tinsteadOf = {site}\n" for site in SITES)
    file.write_text(f'[url "{url}/"]\n{rewriting}', encoding="utf-8")
    return file


def build(folder: Path) -> dict[str, str]:
    """Build repositories, wheels and an environment that holds the project's requirements; returns the variables."""
    repositories.build(folder / "repositories")
    # The user's own cache stays clean of these, and offline uv does not choose real packages from its cache.
    caches = {"UV_CACHE_DIR": str(folder / "uv"), "UV_LINK_MODE": "copy"}
    variables = wheels.build(folder / "wheels") | caches
    environment = folder / "venv"
    venv.create(environment, symlinks=True)
    install = [find_uv_bin(), "pip", "install", "-q", "--python", str(environment), "-r", str(wheels.TOOLS)]
    subprocess.run(install, env=os.environ | variables, check=True)
    path = os.pathsep.join([str(environment / "bin"), os.environ["PATH"]])
    return variables | {"VIRTUAL_ENV": str(environment), "PATH": path}


def run(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run the command in the foreground and return its exit status; Ctrl-C is the command's to handle."""
    signal.signal(signal.SIGINT, lambda *_: None)  # a child starts without this handler
    running = Path(sys.executable).parent
    name = command[0]
    if Path(name).parent.absolute() == running:  # `.venv/bin/invoke`: the one of the environment that is used
        name = Path(name).name
    search = os.pathsep.join([variables.get("PATH", ""), str(running), os.environ["PATH"]])
    status = subprocess.call([shutil.which(name, path=search) or name, *command[1:]], env=os.environ | variables)
    return status if status >= 0 else 128 - status


def main() -> int:
    """Read the options, serve, run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=0, metavar="BYTES", help="bytes per second of the whole line")
    parser.add_argument("--latency", type=float, default=0, metavar="SECONDS", help="seconds before each answer")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("a command is needed")
    with tempfile.TemporaryDirectory(prefix="upstream-") as name:
        folder = Path(name)
        variables = build(folder)
        with GitHost(folder / "repositories", rate=options.rate, latency=options.latency) as host:
            config = write_configuration(folder / "gitconfig", host.url)
            return run(options.command, {**variables, "GIT_CONFIG_GLOBAL": str(config)})


if __name__ == "__main__":
    sys.exit(main())
