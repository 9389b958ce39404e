"""What uv's failures mean, and what is hidden of its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DiskError, InstallError, NetworkError, SourcesError
from tasks.packages import indexes
from tasks.packages.uv import explain

CRATES = """error: Failed to build `sglang @ file:///t/sglang/python`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.build_editable` failed (exit status: 1)

         [stderr]
         error: failed to get `bytes` as a dependency of package `grpc`
         Caused by:
           failed to download from `https://index.crates.io/config.json`
           [6] Could not resolve hostname (Could not resolve host: index.crates.io)

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
    ("text", "kind", "sentence"),
    [
        (CRATES, NetworkError, "crates.io, where Rust packages come from, could not be reached."),
        (OLD_CARGO, InstallError, "Failed to build `sglang @ file:///t/sglang/python`"),
        (UNREACHABLE, NetworkError, "Failed to fetch: https://host.example/simple/torch/: error sending request"),
        (FULL, DiskError, "The disk is full: Failed to download `torch==2.14.1`: failed to write"),
        (OLDER, InstallError, "No solution found when resolving dependencies: Because nothing was not found"),
        ("", InstallError, "uv failed with status 2"),
    ],
)
def test_a_failure_is_one_sentence_of_the_right_kind(text: str, kind: type[SourcesError], sentence: str) -> None:
    error = explain(2, text.splitlines(), Path("/t/install.log"), "uv pip install x", "invoke setup --only=sglang")
    assert type(error) is kind
    assert error.what.startswith(sentence)
    assert len(error.what.splitlines()) <= 2
    if text in (CRATES, OLD_CARGO):
        assert error.command == "SGLANG_BUILD_RUST_EXTS=none invoke setup --only=sglang"
        assert ("https_proxy" if text is CRATES else "rustup") in error.hint
        assert error.what.endswith(("error: failed to get `bytes` as a dependency of package `grpc`", "Cargo.toml`"))
        assert "native gRPC server" in error.hint and "/t/install.log" in error.hint


def test_a_killed_uv_is_not_blamed_on_the_package() -> None:
    assert "signal 9 (out of memory?)" in explain(-9, [], Path("/t/log"), "uv pip install x", "invoke setup").what


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("UV_DEFAULT_INDEX='http://user:SECRET PW@a.example/simple'", "UV_DEFAULT_INDEX='http://a.example/…'"),
        ("http://user:***@a.example/simple/torch/", "http://a.example/…/"),
        ("https://b.example:8443/T0KEN, or", "https://b.example:8443/…, or"),
        ("(https://b.example:8443/T0KEN/torch/)", "(https://b.example:8443/…/torch/)"),
        ("`https://b.example:8443/files/T0KEN/x-1.whl?key=K#sha256=1`", "`https://b.example:8443/…/x-1.whl`"),
        ("file:///a/index/x.whl https://c.example/simple", "file:///a/index/x.whl https://c.example/simple"),
    ],
)
def test_urls_of_indexes_are_shown_without_what_may_be_secret(text: str, hidden: str) -> None:
    environ = {
        "UV_DEFAULT_INDEX": "http://user:SECRET PW@a.example/simple",
        "UV_INDEX": "corp=https://b.example:8443/T0KEN https://b.example:8443/T0 file:///a/index",
    }
    assert indexes.mask(text, environ) == hidden


def test_pips_configuration_becomes_that_of_uv_where_nothing_else_is_said(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://user:SECRET PW@a.example/simple\ntrusted-host = a\n  b\nfind-links = /x /y\n"
        "cert = /c.pem\n[install]\nconstraint = /k.txt\nextra-index-url =\n  https://b.example/simple\n"
    )
    environ = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_FIND_LINKS": "/z", "UV_CONSTRAINT": "/own.txt"}
    assert indexes.from_pip({"PATH": "", "HOME": str(tmp_path), **environ}).items() >= {
        "UV_DEFAULT_INDEX": "http://user:SECRET PW@a.example/simple", "UV_INDEX": "https://b.example/simple",
        "UV_INSECURE_HOST": "a b", "UV_FIND_LINKS": "/z", "SSL_CERT_FILE": "/c.pem",
    }.items()  # fmt: skip
