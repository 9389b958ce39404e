"""What a checkout says about its own package: layout, metadata and version, read from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..git.revisions import highest, release
from ..models import Repository
from .layouts import Layout, find_layout
from .metadata import Metadata, read_metadata


@dataclass(frozen=True)
class Source:
    """The files of the checkout of `repository` at `commit`; `tags` are its local tags, name to commit id."""

    repository: Repository
    commit: str
    tags: Mapping[str, str]

    @cached_property
    def layout(self) -> Layout:
        """Raises SourcesError where the files have no known layout."""
        return find_layout(self.repository.name, lambda path: (self.repository.path / path).exists())

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The metadata files, path to content."""
        places = {name: self.repository.path / name for name in self.layout.metadata_files}
        return {name: place.read_bytes() for name, place in places.items() if place.is_file()}

    @cached_property
    def metadata(self) -> Metadata:
        """Raises SourcesError where a file is not valid."""
        return read_metadata(self.files, self.layout.folder)

    @property
    def version(self) -> str:
        """The version in the files; where they leave it to the tags (setuptools-scm), the release at this commit, or
        else the highest tag, as SGLang's build has it. Empty where neither exists. Raises SourcesError."""
        if self.layout.installable and not self.metadata.from_tags:
            return self.metadata.version or ""
        here = (release(tag) for tag, commit in self.tags.items() if commit == self.commit)
        newest = max((version for version in here if version), default=None)
        return str(newest or (highest(self.tags) if self.layout.installable else None) or "")
