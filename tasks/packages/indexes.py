"""Package indexes: what pip's configuration says of them is handed to uv, and none of their secrets is shown."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping

from ..names import redact

# A setting, as `pip config list` shows it: what separates several for uv, uv's variable, and others that say the same
VARIABLES = {
    "index-url": (" ", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": (" ", "UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "constraint": (" ", "UV_CONSTRAINT"),
    "find-links": (",", "UV_FIND_LINKS"),
    "cert": (" ", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    "trusted-host": (" ", "UV_INSECURE_HOST"),
}
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")


def from_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell uv what pip's files and variables say, except for those that the user has set."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, timeout=60, check=False, env=environ).stdout
    lines = re.findall(r"^(global|install|:env:)\.([\w-]+)=(.+)$", listed, re.MULTILINE)
    lines.sort(key=lambda line: ("global", "install", ":env:").index(line[0]))  # pip lets the later ones win
    settings = {key: str(ast.literal_eval(value)) for _, key, value in lines}
    found = dict[str, str]()
    for key, (separator, *names) in VARIABLES.items():
        if settings.get(key) and not any(name in environ for name in names):
            found[names[0]] = separator.join(settings[key].split())
    return found


def mask(text: str, environ: Mapping[str, str]) -> str:
    """The text without passwords in URLs, and with `https://host/…` for all URLs of the hosts of the indexes in
    `environ`, whose paths may hold tokens."""
    text = redact(text)
    urls = redact(" ".join(environ.get(name, "") for name in INDEXES))
    for host in re.findall(r"https?://(?:\*\*\*@)?([^/\s]+)", urls):
        url = rf"(https?://)(?:\*\*\*@)?{re.escape(host)}/(?:[^\s'\"`]*[^\s'\"`),.:;])?"
        text = re.sub(url, rf"\g<1>{host}/…", text)
    return text
