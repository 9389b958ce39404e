"""Package indexes: what pip is told about them, uv is told, too; and none of their passwords and tokens is shown."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

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
_INDEX = re.compile(r"^(?:[\w-]+=)?(https?)://([^/\n]*@)?([^/\n]+)(.*)$", re.MULTILINE)  # a named index is `name=URL`


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
    """The text without passwords in URLs, and with `https://host/…` for the URLs of the indexes in `environ`, whose
    paths may be secret. Of other URLs of the same hosts the last part is kept: the name of a file or project."""
    urls = [url for name in INDEXES for url in re.findall(_INDEX, "\n".join(_parts(environ.get(name, ""))))]
    for scheme, user, host, path in sorted(urls, key=lambda parts: len(parts[3]), reverse=True):
        shown = f"{scheme}://{host}/…"
        for secret in (f"{scheme}://{user}{host}{path}", f"{scheme}://{host}{path}"):
            text = re.sub(rf"{re.escape(secret.rstrip('/'))}(?![\w.%:-])", shown, text)
        others = rf"\w+://[^\s/]*{re.escape(host)}/(?!…)(?:[^\s?#'\"`]*/)?([^\s/?#'\"`]*)(?:[?#][^\s'\"`]*)?"
        text = re.sub(others, rf"{shown}/\1", text)
    return redact(text)


def _parts(value: str) -> list[str]:
    """The parts of a list of URLs, directories or hosts; the password in a URL may have blanks in it."""
    if "://" not in value:
        return value.split()
    return [part.strip() for part in re.split(r"[\s,]+(?=(?:[\w-]+=)?\w+://|/)", value.strip())]
