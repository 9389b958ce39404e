"""An environment that packages are installed into: its interpreter, what is installed, and what that requires."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from ..errors import SourcesError, UsageError
from ..models import PackageState
from ..names import redact

OLDEST = Version("3.10")
OVERRIDES = "sources.overrides"
ASK = """
import json, platform, sys, sysconfig
print(json.dumps([sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), platform.python_version(), sys.path]))
"""


@dataclass(frozen=True)
class Distribution:
    """The metadata of an installed distribution (PEP 376 and 566).

    `name` is normalized. `url` is where it was installed from (PEP 610), empty for a package index, `location` the
    same as a path. `broken` is what is wrong with the metadata; empty if nothing is.
    """

    name: str
    version: str
    editable: bool = False
    location: Path | None = None
    requires: tuple[str, ...] = ()
    url: str = ""
    broken: str = ""


@dataclass(frozen=True)
class Environment:
    """An interpreter and its packages. `markers` are those of PEP 508, without `extra`; `paths` is the interpreter's
    sys.path, without the current directory."""

    python: Path
    prefix: Path
    virtual: bool
    purelib: Path
    markers: Mapping[str, str]
    paths: tuple[Path, ...]

    @property
    def current(self) -> bool:
        """Whether this is the environment of the running program."""
        return self.prefix == Path(sys.prefix)

    def state(self, name: str) -> PackageState:
        """The distribution `name` as it is installed, if it is."""
        found = self.distribution(name)
        return PackageState(found.version, found.editable, found.location) if found else PackageState(None, False, None)

    def version(self, name: str) -> str:
        """The version that is installed; empty for none."""
        found = self.distribution(name)
        return found.version if found else ""

    def distribution(self, name: str) -> Distribution | None:
        """What is installed under `name` (any spelling), or None. No process is started."""
        copies = list(importlib.metadata.Distribution.discover(name=name, path=[str(path) for path in self.paths]))
        copies = [copy for copy in copies if copy.locate_file("") == copies[0].locate_file("")]
        if not copies:
            return None
        broken = f"{len(copies)} versions of it are installed side by side"
        return replace(read(name, copies[0]), broken=broken) if len(copies) > 1 else read(name, copies[0])

    def metadata_directories(self) -> Iterator[tuple[str, str, Path]]:
        """The .dist-info directories below the prefix, each with its normalized name and version; none is read."""
        for directory in {path.resolve() for path in self.paths if path.is_relative_to(self.prefix)}:
            for info in directory.glob("*.dist-info"):
                name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
                yield canonicalize_name(name), version, info


def read(name: str, distribution: importlib.metadata.Distribution) -> Distribution:
    """What the metadata of a distribution says."""
    name = canonicalize_name(name)
    try:
        headers = distribution.metadata
        (version, *_), requires = headers.get_all("Version") or [], headers.get_all("Requires-Dist") or []
        text = distribution.read_text("direct_url.json")
        if text is None:
            return Distribution(name, version, requires=tuple(requires))
        direct = json.loads(text)
        url, editable = direct["url"], bool(direct.get("dir_info", {}).get("editable"))
        location = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
        return Distribution(name, version, editable, location, tuple(requires), url)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, not UTF-8, not what it should be
        return Distribution(name, "", broken="its metadata is missing or damaged")


def probe(python: str | Path = "", timeout: float = 30) -> Environment:
    """The environment of an interpreter (a path, or a name on the PATH), or of a virtual environment's directory.

    The default is the running one. Raises UsageError if `python` is not a Python interpreter of version 3.10 or newer,
    or does not answer within `timeout` seconds.
    """
    python = str(python or sys.executable)
    path = Path(os.path.abspath(shutil.which(python) or python))  # noqa: PTH100 - a venv's python is a symbolic link
    if path.is_dir():
        path = path / "bin" / "python"
    hint = "--python takes a Python interpreter, such as .venv/bin/python or python3.12."
    try:
        asked = subprocess.run(
            [path, "-c", ASK], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
        prefix, base_prefix, purelib, version, paths = json.loads(asked.stdout.splitlines()[-1])  # sites print, too
        too_old = Version(version) < OLDEST
    except (OSError, subprocess.TimeoutExpired, ValueError, TypeError, IndexError) as error:
        why = getattr(error, "strerror", "") or "it does not answer like one"
        raise UsageError(f"{path} is not a Python interpreter: {why}.", hint) from None
    if too_old:
        raise UsageError(f"{path} is Python {version}; {OLDEST} or newer is needed.", hint)
    markers = {**cast(Mapping[str, str], default_environment()), "python_version": version.rpartition(".")[0]}
    markers |= {"python_full_version": version, "implementation_version": version}
    directories = tuple(Path(entry) for entry in paths if entry)
    return Environment(path, Path(prefix), prefix != base_prefix, Path(purelib), markers, directories)


def applying(
    requires: Callable[[str], Iterable[object] | None], extras: Mapping[str, Sequence[str]],
    markers: Mapping[str, str],
) -> Iterator[Requirement]:  # fmt: skip
    """The requirements of the distributions in `extras`, with these extras, whose markers apply; some more than once.

    `requires` returns what a distribution requires, given its normalized name, or None if that is not known; what the
    required distributions require in turn is included. Raises SourcesError for an invalid requirement.
    """
    waiting = [(name, extra) for name, more in extras.items() for extra in ("", *more)]
    for name, extra in waiting:  # grows during the iteration
        for text in requires(name) or ():
            try:
                requirement = Requirement(str(text))
                marker, requirement.marker = requirement.marker, None
                applies = not marker or marker.evaluate({**markers, "extra": extra})
            except (ValueError, RecursionError) as error:  # no requirement, or a comparison without meaning
                what = f"{name}: {redact(str(text)[:200])!a} cannot be evaluated (PEP 508): {error!s:.200}"
                raise SourcesError(what) from None
            if applies:
                yield requirement
                required = canonicalize_name(requirement.name)
                waiting += [(required, more) for more in ("", *requirement.extras) if (required, more) not in waiting]


def missing_requirements(
    environment: Environment, distribution: Distribution, extras: Sequence[str] = (), overrides: Sequence[str] = ()
) -> dict[Requirement, str]:
    """The requirements of an installed distribution that its environment does not meet, each with the version that is
    installed, empty for none. The `overrides` replace requirements of the same names.

    Raises SourcesError for an invalid requirement or override.
    """
    replaced = {canonicalize_name(re.split(r"[^\w.-]", text)[0]): list[Requirement]() for text in overrides}
    for requirement in applying({OVERRIDES: overrides}.get, {OVERRIDES: ()}, environment.markers):
        replaced[canonicalize_name(requirement.name)].append(requirement)
    own, missing = {distribution.name: distribution.requires}, dict[Requirement, str]()
    for original in applying(own.get, {distribution.name: extras}, environment.markers):
        for requirement in replaced.get(canonicalize_name(original.name), [original]):
            installed = environment.version(requirement.name)
            if not admits(requirement.specifier, installed):
                missing[requirement] = installed
    return missing


def admits(specifier: SpecifierSet, version: str) -> bool:
    """Whether a version (empty for none) satisfies the specifier; a pre-release in the range does, too."""
    try:
        return bool(version) and specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False
