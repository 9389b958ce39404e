"""What uv's failures mean, and what is hidden of its output."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tasks.errors import DiskError, InstallError, NetworkError, SourcesError
from tasks.packages import uv as uv_module
from tasks.packages.uv import Output, explain
from tests.packages.conftest import Heard

CRATES = """error: Failed to build `sglang @ file:///t/sglang/python`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.build_editable` failed (exit status: 1)

         [stderr]
         error: failed to get `pyo3` as a dependency of package `sglang-multimodal v0.1.0 (/t/sglang/rust)`

         Caused by:
           failed to download from `https://index.crates.io/config.json`

         Caused by:
           [6] Could not resolve hostname (Could not resolve host:
         index.crates.io)
         error: `cargo metadata --manifest-path ../rust/Cargo.toml` failed with code 101
         -- Output captured from stdout:

hint: Build failures usually indicate a problem with the package or the build environment"""
OLD_CARGO = f"""{CRATES.partition("         error:")[0]}
         error: `cargo metadata --manifest-path ../rust/Cargo.toml` failed with code 101
         error: failed to parse manifest at `/t/sglang/rust/Cargo.toml`
         Caused by:
           feature `edition2024` is required"""
UNREACHABLE = """error: Failed to fetch: https://host.example/simple/torch/
  cause: error sending request for url (https://host.example/simple/torch/)
  cause: tcp connect error"""
FULL = """error: Failed to download `torch==2.14.1`
  cause: failed to write to file `/c/x`: No space left on device (os error 28)"""
OLDER = """  \u00d7 No solution found when resolving dependencies:
  ╰─▶ Because nothing was not found in the package registry and you require
      nothing, we can conclude that your requirements are unsatisfiable."""


@pytest.mark.parametrize(
    ("status", "text", "kind", "sentence"),
    [
        (2, CRATES, NetworkError, "Failed to build `sglang @ file:///t/sglang/python`"),
        (2, OLD_CARGO, InstallError, "Failed to build `sglang @ file:///t/sglang/python`"),
        (2, UNREACHABLE, NetworkError, "Failed to fetch: https://host.example/simple/torch/: error sending request"),
        (2, FULL, DiskError, "uv cannot write: Failed to download `torch==2.14.1`: failed to write"),
        (2, OLDER, InstallError, "No solution found when resolving dependencies: Because nothing was not found"),
        (2, "", InstallError, "uv failed with status 2"),
        (-9, "", InstallError, "uv was ended by signal 9 (out of memory?)"),
    ],
)
def test_a_failure_is_one_sentence_of_the_right_kind(
    status: int, text: str, kind: type[SourcesError], sentence: str
) -> None:
    error = explain(status, text.splitlines(), Path("/t/install.log"), "uv pip install x", "invoke setup --only=sglang")
    assert type(error) is kind
    assert error.what.startswith(sentence)
    assert len(error.what.splitlines()) <= 2
    if text in (CRATES, OLD_CARGO):
        assert error.command == "SGLANG_BUILD_RUST_EXTS=none invoke setup --only=sglang"
        assert ("crates.io could not be reached" if text is CRATES else "rustup") in error.hint
        assert error.what.endswith(("(Could not resolve host: index.crates.io)", "`edition2024` is required"))
        assert "native gRPC server" in error.hint and "/t/install.log" in error.hint


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_terminal_shows_uvs_own_output_without_secrets_however_it_is_cut(size: int) -> None:
    text = "\x1b[2mResolved\x1b[0m 1 package\r\n\u280b drawn  \r\x1b[2K      Built x            "
    text += "\x1b[1merror\x1b[0m: http://u:SECRET@x\n\n     sour"
    log, terminal = io.StringIO(), io.StringIO()
    output = Output(log, terminal, Heard(), {})
    for start in range(0, len(text), size):
        output.write(text[start : start + size])
    output.close()
    assert terminal.getvalue() == text.replace("u:SECRET", "***") + "\n"
    assert log.getvalue() == "Resolved 1 package\n      Built x            error: http://***@x\n\n     sour\n"
    assert output.failure == ["error: http://***@x", "", "     sour"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("UV_DEFAULT_INDEX='http://user:SECRET PW@a.example/simple'", "UV_DEFAULT_INDEX='http://a.example/…'"),
        ("http://user:***@a.example/simple/torch/", "http://a.example/…/"),
        ("https://b.example:8443/T0KEN, or", "https://b.example:8443/…, or"),
        ("(https://b.example:8443/T0KEN/torch/)", "(https://b.example:8443/…)"),
        ("`https://b.example:8443/files/T0KEN/x-1.whl?key=K#sha256=1`", "`https://b.example:8443/…`"),
        ("https://b.example:8443/T0'K\"EN/x, or", "https://b.example:8443/…, or"),
        ("""'UV_INDEX=https://b.example:8443/T0'"'"'KEN'""", "'UV_INDEX=https://b.example:8443/…'"),
        ("file:///a/index/x.whl https://c.example/simple", "file:///a/index/x.whl https://c.example/simple"),
    ],
)
def test_urls_of_indexes_are_shown_without_what_may_be_secret(text: str, hidden: str) -> None:
    environ = {
        "UV_DEFAULT_INDEX": "http://user:SECRET PW@a.example/simple",
        "UV_INDEX": "corp=https://b.example:8443/T0KEN https://b.example:8443/T0 file:///a/index",
    }
    assert uv_module.mask(text, environ) == hidden.replace("…/", "…")


def test_pips_configuration_becomes_that_of_uv_where_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://user:SECRET PW@a.example/simple\ntrusted-host = a\n  b\nfind-links = /x /y\n"
        "cert = /c.pem\n[install]\nconstraint = /k.txt\nextra-index-url =\n  https://b.example/simple\n"
    )
    environ = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_FIND_LINKS": "/z", "UV_CONSTRAINT": "/own.txt"}
    assert uv_module.from_pip({"PATH": "", "HOME": str(tmp_path), **environ}).items() >= {
        "UV_DEFAULT_INDEX": "http://user:SECRET PW@a.example/simple", "UV_INDEX": "https://b.example/simple",
        "UV_INSECURE_HOST": "a b", "UV_FIND_LINKS": "/z", "SSL_CERT_FILE": "/c.pem",
    }.items()  # fmt: skip
