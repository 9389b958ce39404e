"""Git LFS on the git host: the batch API and basic transfers (git-lfs, docs/api) of `<repository>.git/lfs/objects`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.git-lfs+json"


def store(repository: Path, data: bytes) -> str:
    """Put a file into the repository's LFS objects; returns the pointer that is committed in its place."""
    oid = hashlib.sha256(data).hexdigest()
    file = _object(repository, oid)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"


def answer(repository: Path, base: str, rest: str, body: bytes) -> tuple[int, str, bytes] | None:
    """Status, type and content of the answer to a request for `rest`, the URL's path below the repository, which is at
    the URL `base`; None where that is none of LFS."""
    if rest == "/info/lfs/objects/batch":
        found = [_offer(repository, base, each) for each in json.loads(body)["objects"]]
        return 200, MEDIA, json.dumps({"transfer": "basic", "objects": found}).encode()
    if wanted := re.fullmatch("/info/lfs/objects/([0-9a-f]{64})", rest):
        return 200, "application/octet-stream", _object(repository, wanted[1]).read_bytes()
    return (404, MEDIA, b'{"message": "not served"}') if rest.startswith("/info/lfs") else None


def _offer(repository: Path, base: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    same = {"oid": wanted["oid"], "size": wanted["size"]}
    if not _object(repository, wanted["oid"]).exists():
        return {**same, "error": {"code": 404, "message": "Object does not exist on the server"}}
    return {**same, "actions": {"download": {"href": f"{base}/info/lfs/objects/{wanted['oid']}"}}}


def _object(repository: Path, oid: str) -> Path:
    return repository / "lfs/objects" / oid[:2] / oid[2:4] / oid
