"""The configuration of one repository (git-config(1)): read at once, written without a process for each key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .command import run
from .packs import write_atomic

GitConfig = Mapping[str, tuple[str, ...]]


def read_config(git_dir: Path) -> dict[str, tuple[str, ...]]:
    """Every key of the repository's own configuration, as git spells it, with its values, the one that counts last.

    Empty where there is none, or where git cannot read it.
    """
    file, found = git_dir / "config", dict[str, tuple[str, ...]]()
    if not file.exists():
        return found
    listed = ("config", f"--file={file.absolute()}", "--includes", "--null", "--list")
    told = run(git_dir.parent, *listed, check=False)  # from there, since its worktree may be gone
    for setting in filter(None, told.split("\0")):
        key, _, value = setting.partition("\n")
        found[key] = (*found.get(key, ()), value)
    return found


def write_config(git_dir: Path, known: GitConfig, wanted: Mapping[str, str]) -> None:
    """Have each key `wanted` count with its value, or, of `remote.*.fetch`, have it among the values.

    `known` is what `read_config` found; what is there already is not written again.
    """
    new = {
        key: value for key, value in wanted.items()
        if value not in (known.get(key, ()) if key.endswith(".fetch") else known.get(key, ())[-1:])
    }  # fmt: skip
    if new:
        file = (git_dir / "config").resolve()
        before = file.read_text(encoding="utf-8", errors="surrogateescape")
        ended = before if before.endswith("\n") or not before else f"{before}\n"
        sections = dict.fromkeys(key.rpartition(".")[0] for key in new)
        write_atomic(file, ended + "".join(_section(section, new) for section in sections))


def _section(section: str, settings: Mapping[str, str]) -> str:
    name, _, sub = section.partition(".")
    head = f'[{name} "{_escaped(sub)}"]' if sub else f"[{name}]"
    here = {key.rpartition(".")[2]: value for key, value in settings.items() if key.rpartition(".")[0] == section}
    return f"{head}\n" + "".join(f'\t{key} = "{_escaped(value)}"\n' for key, value in here.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
