"""The lock file `pylock.sources.toml`: a set-up is locked, so that it can be reproduced, and compared with a lock.

What SGLang and FlashInfer require is in it as uv writes it (PEP 751), with versions and hashes. The checkouts are in
`[tool.flashinfer-sources]`. What only the builds need (setuptools and the like) is not locked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from packaging.pylock import Package as Entry
from packaging.pylock import Pylock, PylockValidationError
from packaging.utils import canonicalize_name, canonicalize_version

from ..errors import InstallError, LocalWorkError, SourcesError, UsageError
from ..models import Check
from ..names import check_ref, check_url, redact
from .environment import Distribution, Environment, applying
from .package import Package, read_toml
from .uv import Uv, mask, write

FILE = "pylock.sources.toml"
TOOL = "flashinfer-sources"
MARKERS = ("implementation_name", "python_version", "sys_platform", "platform_machine")


@dataclass(frozen=True)
class LockedRepository:
    """A checkout: the REF that was asked for, and its commit, which determines those of its submodules."""

    name: str
    url: str
    ref: str
    commit: str


@dataclass(frozen=True)
class Lock:
    """All checkouts, the distributions from package indexes as in PEP 751, and the Python and platform that it was made
    on."""

    repositories: Sequence[LockedRepository]
    distributions: Sequence[Entry]
    made_on: str

    def requirements(self) -> list[str]:
        """The distributions as the lines of a requirements file with hashes."""
        lines = []
        for entry in self.distributions:
            files = [*(entry.wheels or ()), *([entry.sdist] if entry.sdist else ())]
            hashes = {f"--hash={kind}:{digest}" for file in files for kind, digest in file.hashes.items()}
            lines.append(" ".join([f"{entry.name}=={entry.version}", *sorted(hashes)]))
        return lines

    def differing(self, environment: Environment) -> dict[str, str]:
        """The distributions that are not installed as they are locked, each with what is installed."""
        differing = dict[str, str]()
        for entry in self.distributions:
            found, locked = environment.distribution(entry.name), str(entry.version)
            installed = canonicalize_version(found.version, strip_trailing_zero=False) if found else "none"
            if found and found.url:
                installed += f" from {redact(found.url)}"
            if installed != locked:
                differing[entry.name] = f"{installed}, locked is {locked}"
        return differing


def platform(environment: Environment) -> str:
    """The Python and platform of an environment: what wheels depend on."""
    return " ".join(environment.markers[name] for name in MARKERS)


def make_lock(
    uv: Uv, packages: Sequence[Package], repositories: Sequence[LockedRepository], obstacles: Sequence[str] = ()
) -> str:
    """The text of the lock file of the checkouts `repositories` and of what the `packages` require, in the versions
    installed now; the same for the same set-up.

    uv asks the package index for the files of these versions and their hashes. `obstacles` are what keeps checkouts
    from being reproduced, such as `sglang: 2 changed files`. Raises LocalWorkError, which names them and those of the
    environment, NetworkError, or InstallError.
    """
    import tomli_w

    environment = uv.environment
    needed = _needed(packages, environment)
    missing = [package for package in packages if not package.is_checkout(environment.distribution(package.name))]
    obstacles = [*obstacles, *(f"{package.name} is not installed from {package.folder}" for package in missing)]
    for found in needed:
        obstacles += [f"{found.name}: {found.broken}"] if found.broken else []
        obstacles += [f"{found.name} is installed from {redact(found.url)}"] if found.url else []
    if obstacles:
        hint = "Commit and push changes; install packages from a package index."
        command = "invoke install" if missing else ""
        raise LocalWorkError(f"This set-up cannot be reproduced: {'; '.join(obstacles)}.", hint, command)
    if uv.c.config.run.dry:
        return ""
    pins = write(uv.log.with_suffix(".lock.txt"), [f"{found.name}=={found.version}" for found in needed])
    output = uv.log.with_name("pylock.index.toml")
    output.unlink(missing_ok=True)  # uv would prefer what is in it
    uv.run("asking the package index for hashes", [
        "compile", "--quiet", "--no-deps", "--no-header", "--format=pylock.toml", f"--output-file={output}",
        "--index-strategy=unsafe-best-match", pins,
    ])  # fmt: skip
    distributions = mask(output.read_text(encoding="utf-8"), uv.variables)
    try:
        Pylock.from_dict(read_toml(distributions.encode(), output.name))
    except PylockValidationError as error:
        raise InstallError(f"The package index does not have the hashes of all files: {error}") from None
    entries = [asdict(locked) for locked in sorted(repositories, key=lambda locked: locked.name)]
    own = tomli_w.dumps({"tool": {TOOL: {"made-on": platform(environment), "repositories": entries}}})
    return f"{distributions}\n{redact(own).replace('://***@', '://')}"


def differences(lock: Lock, commits: Mapping[str, str | None], environment: Environment) -> list[Check]:
    """A failed check for each difference between the lock and the set-up, whose checkouts are at `commits`; one that
    passes if there is none."""
    differing = lock.differing(environment)
    for locked in lock.repositories:
        if (commit := commits.get(locked.name)) != locked.commit:
            differing[f"{locked.name} commit"] = f"{commit or 'none'}, locked is {locked.commit}"
    failed = [Check(f"lock: {name}", "fail", detail, command="invoke setup --locked")
              for name, detail in sorted(differing.items())]  # fmt: skip
    if lock.made_on != platform(environment):
        detail = f"{platform(environment)}, locked is {lock.made_on}"
        failed = [Check("lock: made on", "fail", detail, command="invoke lock")]
    size = f"{len(lock.repositories)} repositories and {len(lock.distributions)} distributions"
    return failed or [Check("lock", "pass", size)]


def _needed(packages: Sequence[Package], environment: Environment) -> list[Distribution]:
    """The installed distributions that the packages (with their extras) require, directly or not, and their companions,
    by name.

    Raises SourcesError for metadata that cannot be read.
    """
    find = cache(environment.distribution)

    def requires(name: str) -> Iterable[str]:
        found = find(name)
        return found.requires if found else ()

    own = {package.name: package.repository.extras for package in packages}
    roots = {name: () for package in packages for name in package.layout.companions}
    needed = applying(requires, {**roots, **own}, environment.markers)
    names = {*roots, *(canonicalize_name(requirement.name) for requirement in needed)} - {*own}
    return [found for name in sorted(names) if (found := find(name))]


def read_lock(path: Path) -> Lock:
    """The lock in a file that `make_lock` wrote. Raises UsageError."""
    try:
        content = read_toml(path.read_bytes(), path.name)
        tool = content["tool"][TOOL]
        repositories = [LockedRepository(**entry) for entry in tool["repositories"]]
        for locked in repositories:
            check_url(locked.url, f"{path}: {locked.name}", allow_local=True)
            check_ref(locked.ref)
            if not re.fullmatch("[0-9a-f]{40}", locked.commit):
                raise ValueError(f"{locked.commit!a} is not a commit id of 40 digits")
        return Lock(repositories, Pylock.from_dict(content).packages, tool["made-on"])
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "`invoke lock` writes this file.", "invoke lock") from None
    except (SourcesError, ValueError, KeyError, TypeError, AttributeError, PylockValidationError) as error:
        raise UsageError(f"{path} is not a lock file of this tool (PEP 751): {error!s:.200}") from None
