"""Package indexes: what pip is told about them, uv is told, too; and none of their passwords and tokens is shown."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from ..names import redact


class _Variable(NamedTuple):
    name: str
    separator: str
    same: tuple[str, ...] = ()  # other variables that say the same


# What pip is told (a setting, as `pip config list` shows it) and how uv is told.
TOLD = {
    "index-url": _Variable("UV_DEFAULT_INDEX", "", ("UV_INDEX_URL",)),
    "extra-index-url": _Variable("UV_INDEX", " ", ("UV_EXTRA_INDEX_URL",)),
    "constraint": _Variable("UV_CONSTRAINT", " "),
    "find-links": _Variable("UV_FIND_LINKS", ","),
    "cert": _Variable("SSL_CERT_FILE", "", ("SSL_CERT_DIR",)),
    "trusted-host": _Variable("UV_INSECURE_HOST", " "),
}
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
SHORT = 3  # characters of a password that would hide half of the text
# Segments of an index's path that are shown; any other may be a token.
_PLAIN = re.compile(r"simple|pypi|whl|api|artifactory|repository|packages|root|stable|nightly|index|cpu|cu\d+|test")


def from_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell uv what pip's files and variables say, except for those that the user has set."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, timeout=60, check=False, env=environ).stdout
    lines = re.findall(r"^(global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE)
    settings: dict[str, str] = {}
    for section in ("global", "install", ":env:"):  # pip lets later ones win
        settings |= {key: str(ast.literal_eval(value)) for where, key, value in lines if where == section}
    return {
        variable.name: variable.separator.join(_parts(settings[key])) if variable.separator else settings[key]
        for key, variable in TOLD.items()
        if settings.get(key) and not any(name in environ for name in (variable.name, *variable.same))
    }


def mask(text: str, environ: Mapping[str, str]) -> str:
    """The text without passwords in URLs, and without what may be a token in the URLs of the indexes in `environ`."""
    for url in [url for name in INDEXES for url in _urls(environ.get(name, ""))]:
        userinfo, _, place = url.partition("://")[2].rpartition("@")
        password = unquote(userinfo.partition(":")[2])
        for secret, shown in ((f"{userinfo}@", "***@"), (password, "***")):
            text = text.replace(secret, shown) if len(secret) > SHORT else text
        for segment in place.split("/")[1:]:
            if segment and not _PLAIN.fullmatch(segment):
                text = re.sub(rf"/{re.escape(segment)}(?![\w.%-])", "/***", text)
    return redact(text)


def _urls(value: str) -> list[str]:
    """The URLs among the parts of a variable; a named index is `name=URL`."""
    return [part for part in _parts(value) if re.match(r"([\w-]+=)?https?://", part)]


def _parts(value: str) -> list[str]:
    """The parts of a list of URLs, directories or hosts; the password in a URL may have blanks in it."""
    if "://" not in value:
        return value.split()
    return [part.strip() for part in re.split(r"[\s,]+(?=(?:[\w-]+=)?\w+://|/)", value.strip())]
