"""Hostile REFs, URLs and repositories: nothing is executed, written elsewhere, or shown that is secret."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.checkout.test_clone import FETCH
from tests.conftest import Project
from tests.sources import Sources, fingerprint, url
from tests.upstream.host import GitHost
from tests.upstream.store import File, Gitlink, Symlink, Upstream, git

CANARY = "canary"
REFS = [
    "--upload-pack=touch canary", "-u touch canary", "--help", "-", "--", "-c", "--exec=touch canary",
    "--output=canary",
    "refs/heads/--upload-pack=touch canary", "refs/tags/-x", "ext::sh -c touch% canary", "main;touch canary",
    "$(touch canary)", "`touch canary`", "main\ntouch canary", "main\0", "main\x1b[31m", "main\x7f", "main\r", "ma\tin",
    "..", "main..v0.5.3", "../main", "main/../main", "main/..", "/main", "main/", "a//b", ".hidden", "a/.b",
    "main.lock",
    "main~1", "main^", "main^{tree}", "main:README.md", "HEAD@{1}", "@", "@{-1}", "*", "refs/heads/*", "ma?n", "[m]ain",
    "main\\", "x" * 10_000, "refs/" + "heads/" * 2_000, "refs/heads/", "refs/remotes/origin/main", "refs/notes/commits",
    "refs/pull/1/head", "HEAD", "FETCH_HEAD", "MAIN", "Main", "main ", " main", "\u200bmain", "m\u0430in", "\udcffmain",
    "0" * 7, "g" * 40, "matching",
]  # fmt: skip
URLS = [
    "--upload-pack=touch canary", "-u", "ext::sh -c touch% canary", "ext::touch canary", "fd::17", "a::b", "::", "",
    "https://", "https:///x", "https://-oProxyCommand=touch/x", "ssh://-oProxyCommand=touch canary/x",
    "-oProxyCommand=touch:x", "ssh://-l@host/x", "ftp://host/x", "gopher://host/x",
    "https://host/x\n--upload-pack=touch canary", "https://host/\0", "https://host/x\x1b[31m", "https://host/a b",
    "https://host/%0a", "https://host/" + "x" * 10_000, "tmp", "./x", "../x", "~/x", "x", "https://host:port/x",
    "https://[::1/x", "C:\\x", "\\\\host\\x", "https://host", "https://host/",
]  # fmt: skip


def unharmed(folder: Path) -> None:
    """No injected command has run."""
    assert not [file for file in folder.rglob("*") if CANARY in file.name]
    assert not Path(CANARY).exists()


def clean(text: str) -> None:
    """The message is safe to print on a terminal, and is no traceback."""
    assert "Traceback" not in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_ref_is_data(sglang: Sources, host: GitHost, tmp_path: Path) -> None:
    """ARCHITECTURE.md, guarantee 7: it never becomes an option or a command."""
    for ref in REFS:
        result = sglang("clone", check=2, sglang=ref)
        clean(result.out + result.err)
        assert len(result.err) < 2000
    assert host.count(FETCH) == 0
    unharmed(tmp_path)
    assert {path.name for path in sglang.path.iterdir()} <= {".lock"}


def test_a_ref_on_the_command_line_is_data(project: Project, host: GitHost) -> None:
    for argument in ("--sglang-branch=--upload-pack=touch canary", "--sglang-branch=-uroot"):
        result = project.invoke("clone", argument, check=2)
        clean(result.out + result.err)
        assert "sglang" not in str(host.requests)
    unharmed(project.path)


def test_a_url_is_data(sglang: Sources, tmp_path: Path) -> None:
    """ARCHITECTURE.md, guarantee 7: neither an option, nor a command, nor a transport that runs one."""
    for address in URLS:
        sglang.repositories["sglang"]["url"] = address
        result = sglang("clone", check=2)
        clean(result.out + result.err)
        assert "sources.repositories.sglang.url" in result.err
        assert len(result.err) < 2000
    unharmed(tmp_path)


def test_branches_whose_names_differ_only_in_case_are_different(sglang: Sources, upstream: Upstream) -> None:
    lower = upstream.add_commit("sglang", "feature", parent="main")
    upper = upstream.add_commit("sglang", "Feature", parent="main")
    sglang("clone", sglang="feature")
    assert sglang.head("sglang") == lower
    sglang("update", sglang="Feature")
    assert sglang.head("sglang") == upper
    assert sglang.git("sglang", "rev-parse", "feature") == lower


def module(name: str, path: str, address: str) -> str:
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in (name, path, address)]
    return '[submodule "{}"]\n\tpath = "{}"\n\turl = "{}"\n'.format(*quoted)


GOOD = url("spdlog")
MODULES = {
    "option for url": ("x", "deps/x", "--upload-pack=touch canary"),
    "short option for url": ("x", "deps/x", "-u./canary"),
    "helper for url": ("x", "deps/x", "ext::sh -c touch% canary"),
    "file descriptor for url": ("x", "deps/x", "fd::17"),
    "file url": ("x", "deps/x", "file:///etc"),
    "folder for url": ("x", "deps/x", "/etc"),
    "url out of the host": ("x", "deps/x", "../../../../../../../etc"),
    "option for host": ("x", "deps/x", "ssh://-oProxyCommand=touch canary/x"),
    "line end in url": ("x", "deps/x", "https://example.org/x\\n--upload-pack=touch"),
    "name out of modules": ("../../hooks", "deps/x", GOOD),
    "name of the parent": ("..", "deps/x", GOOD),
    "name with the parent": ("a/../../b", "deps/x", GOOD),
    "absolute name": ("/tmp/canary", "deps/x", GOOD),
    "option for name": ("-u", "deps/x", GOOD),
    "hidden name": (".git", "deps/x", GOOD),
    "name with a backslash": ("..\\..\\hooks", "deps/x", GOOD),
    "option for path": ("x", "-p", GOOD),
    "path in a git folder": ("x", "a/git~1/hooks", GOOD),
}


@pytest.mark.parametrize("case", MODULES)
def test_a_hostile_submodule_is_refused(case: str, sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    name, path, address = MODULES[case]
    link = Gitlink(upstream.commit("spdlog"))
    upstream.add_commit("sglang", "main", {".gitmodules": module(name, path, address), path: link})
    home = fingerprint(tmp_path / "home", r"\.cache")
    result = sglang("clone", check=1)
    clean(result.out + result.err)
    assert ".gitmodules" in result.err or "invalid path" in result.err
    assert {path.name for path in sglang.path.iterdir()} <= {".lock"}
    assert fingerprint(tmp_path / "home", r"\.cache") == home
    unharmed(tmp_path)


def test_names_inside_each_other_are_refused(sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    link = Gitlink(upstream.commit("spdlog"))
    both = module("x", "deps/x", GOOD) + module("x/hooks", "deps/y", GOOD)
    upstream.add_commit("sglang", "evil", {".gitmodules": both, "deps/x": link, "deps/y": link}, parent="main")
    sglang("clone", check=1, sglang="evil")
    upstream.add_commit("sglang", "main", {".gitmodules": module("x", "deps/x", GOOD), "deps/x": link})
    sglang("clone")
    files: dict[str, File | None] = {".gitmodules": module("x/hooks", "deps/y", GOOD), "deps/x": None, "deps/y": link}
    upstream.add_commit("sglang", "main", files)
    head = sglang.head("sglang")
    sglang("update", check=1)
    assert sglang.head("sglang") == head
    assert not (sglang.path / "sglang/.git/modules/x/hooks").exists()


@pytest.mark.parametrize("link", ["deps", "Deps"])
def test_no_submodule_is_written_through_a_symbolic_link(
    link: str, sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    submodule: dict[str, File] = {
        ".gitmodules": module("x", "deps/x", GOOD),
        "deps/x": Gitlink(upstream.commit("spdlog")),
    }
    point(upstream, "sglang", raw_tree(upstream, "sglang", {link: Symlink(str(outside)), **submodule}))
    assert "lead out of the checkout" in sglang("clone", check=1).err
    assert list(outside.iterdir()) == []
    assert not (sglang.path / "sglang").exists()


def test_a_symbolic_link_that_becomes_a_submodules_directory_is_not_followed(
    sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    upstream.add_commit("sglang", "main", {"deps": Symlink(str(outside))})
    sglang("clone")
    link = Gitlink(upstream.commit("spdlog"))
    upstream.add_commit("sglang", "main", {"deps": None})
    upstream.add_commit("sglang", "main", {".gitmodules": module("x", "deps/x", GOOD), "deps/x": link})
    sglang("update")
    assert list(outside.iterdir()) == []
    assert (sglang.path / "sglang/deps/x/README.md").exists()


def test_a_symbolic_link_of_the_users_where_a_submodule_comes_is_not_followed(
    sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    sglang("clone")
    (sglang.path / "sglang/deps").symlink_to(outside)
    link = Gitlink(upstream.commit("spdlog"))
    upstream.add_commit("sglang", "main", {".gitmodules": module("x", "deps/x", GOOD), "deps/x": link})
    sglang("update", check=5)
    assert list(outside.iterdir()) == []
    sglang.resolve()
    assert (sglang.path / "sglang/deps/x/README.md").exists()
    assert list(outside.iterdir()) == []


def write_object(upstream: Upstream, name: str, kind: str, data: bytes) -> str:
    command = ["git", "hash-object", "--literally", "-w", "--stdin", "-t", kind]
    written = subprocess.run(command, input=data, cwd=upstream.path(name), capture_output=True, check=True)
    return written.stdout.decode().strip()


def raw_tree(upstream: Upstream, name: str, files: dict[str, File]) -> str:
    """A tree object as git itself would never write it: any names, also twice."""
    entries: list[tuple[str, str, str]] = []
    folders: dict[str, dict[str, File]] = {}
    for path, file in files.items():
        first, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(first, {})[rest] = file
        elif isinstance(file, Gitlink):
            entries.append(("160000", first, file.commit))
        else:
            mode, text = ("120000", file.target) if isinstance(file, Symlink) else ("100755", file)
            data = text if isinstance(text, bytes) else text.encode()
            entries.append((mode, first, write_object(upstream, name, "blob", data)))
    entries += [("40000", first, raw_tree(upstream, name, inner)) for first, inner in folders.items()]
    data = b"".join(f"{mode} {path}\0".encode() + bytes.fromhex(oid) for mode, path, oid in entries)
    return write_object(upstream, name, "tree", data)


def point(upstream: Upstream, name: str, tree: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    commit = git(upstream.path(name), *who, "commit-tree", "-m", "evil", tree)
    git(upstream.path(name), "update-ref", "refs/heads/main", commit)


@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/post-checkout",
        ".git/config",
        "../canary",
        "../../canary",
        "a/../../canary",
        ".GIT/hooks/x",
        "a/.git/x",
    ],
)
def test_a_tree_that_leads_out_of_itself_is_refused(
    path: str, sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    before = upstream.read("sglang", "python/pyproject.toml", "v0.4.0")
    script = "#!/bin/sh\ntouch canary\n"
    point(upstream, "sglang", raw_tree(upstream, "sglang", {path: script, "python/pyproject.toml": before}))
    result = sglang("clone", check=None)
    clean(result.out + result.err)
    if path not in (".GIT/hooks/x",):  # which is a name like any other where case counts
        assert result.status == 1
        assert {path.name for path in sglang.path.iterdir()} <= {".lock"}
    unharmed(tmp_path)


def test_no_hook_runs_whatever_a_user_has_configured(sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman", "post-merge"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
        (hooks / name).chmod(0o755)
    for key, value in {
        "core.hooksPath": hooks,
        "init.templateDir": hooks.parent,
        "core.fsmonitor": hooks / "post-merge",
    }.items():
        subprocess.run(["git", "config", "--global", key, value], check=True)
    link = Gitlink(upstream.commit("spdlog"))
    modules = module("x", "deps/x", GOOD) + "\tupdate = !touch canary\n"
    sglang("clone")
    (sglang.path / "sglang/.git/hooks").mkdir()
    for hook in hooks.iterdir():
        (sglang.path / "sglang/.git/hooks" / hook.name).write_bytes(hook.read_bytes())
        (sglang.path / "sglang/.git/hooks" / hook.name).chmod(0o755)
    subprocess.run(["git", "config", "--global", "--unset", "core.hooksPath"], check=True)
    upstream.add_commit("sglang", "main")
    sglang("update")
    upstream.add_commit("sglang", "main", {".gitmodules": modules, "deps/x": link})
    result = sglang("update", check=None)
    clean(result.err)
    unharmed(tmp_path)


def test_metadata_behind_symbolic_links_is_not_read(sources: Sources, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "secret.toml").write_text(
        '[project]\nname = "sglang"\nversion = "6.6.6"\ndependencies = ["flashinfer_python==0.6.7"]\n'
    )
    files: dict[str, File | None] = {
        ".gitmodules": Symlink(str(tmp_path / "secret.toml")),
        "python/pyproject.toml": Symlink(str(tmp_path / "secret.toml")),
    }
    upstream.add_commit("sglang", "main", files)
    result = sources("clone", check=None, flashinfer="matching")
    clean(result.out + result.err)
    assert "6.6.6" not in result.out + result.err
    assert not (sources.path / "flashinfer").exists()
    result = sources("update", check=None)
    assert "6.6.6" not in result.out + result.err


@pytest.mark.parametrize(
    "text",
    [
        "[project\nname = 1",
        "\xff\xfe",
        "project = 1",
        "[project]\ndependencies = 5",
        "a = " + "[" * 5000,
        "",
        "x = 1\n" * 2,
    ],
)
def test_metadata_that_is_broken_stops_matching_with_a_clear_error(
    text: str, sources: Sources, upstream: Upstream
) -> None:
    upstream.add_commit("sglang", "main", {"python/pyproject.toml": text.encode("latin-1")})
    result = sources("clone", check=None, flashinfer="matching")
    clean(result.out + result.err)
    assert result.status in (1, 2, 5)
    assert "flashinfer" in result.err
    assert not (sources.path / "flashinfer").exists()
    assert (sources.path / "sglang").exists()


def test_no_password_is_ever_shown(sglang: Sources, host: GitHost, upstream: Upstream) -> None:
    """ARCHITECTURE.md, guarantee 7: in no message, whatever goes wrong."""
    address = host.url.replace("http://", "http://somebody:hunter2@") + "/sgl-project/sglang.git"
    sglang.repositories["sglang"]["url"] = address
    host.credentials = "somebody:hunter2"
    said = [sglang("clone"), sglang("update"), sglang("update", check=2, sglang="nothing-like-it")]
    upstream.add_commit("sglang", "main")
    said.append(sglang("update"))
    with host.refusing():
        said.append(sglang("update", check=3))
    host.credentials = "somebody:else"
    said.append(sglang("update", check=3))
    host.credentials = ""
    upstream.add_commit("sglang", "main")
    host.fault("status", FETCH, status=500, times=9)
    said.append(sglang("update", check=3))
    sglang.repositories["sglang"]["url"] = address.replace("hunter2", "hunter2b")
    said.append(sglang("update", check=5))
    sglang.repositories["sglang"]["url"] = address.replace("http://", "bad://")
    said.append(sglang("update", check=2))
    for result in said:
        assert "hunter2" not in result.out + result.err
        clean(result.out + result.err)


def test_no_password_is_shown_in_the_log_either(project: Project, host: GitHost) -> None:
    address = host.url.replace("http://", "http://somebody:hunter2@") + "/sgl-project/sglang.git"
    environment = {"INVOKE_SOURCES_REPOSITORIES_SGLANG_URL": address, "INVOKE_DEBUG": "1"}
    result = project.invoke("--echo", "clone", "--flashinfer-branch=v0.6.7", env=environment)
    ours = [
        line for line in (result.out + result.err).splitlines() if not line.startswith("invoke.") and "hunter2" in line
    ]
    assert ours == []
    assert "somebody" not in "".join(line for line in result.out.splitlines())


def test_the_command_for_a_url_with_a_password_works(sglang: Sources, host: GitHost) -> None:
    address = host.url.replace("http://", "http://somebody:hunter2@") + "/sgl-project/sglang.git"
    sglang("clone")
    sglang.repositories["sglang"]["url"] = address
    result = sglang("update", check=5)
    assert "***" not in sglang.fix(result)
    sglang("clone")
    sglang("update")


def test_no_prompt_and_no_hang(project: Project, host: GitHost) -> None:
    """ARCHITECTURE.md, guarantee 6: on a terminal, with a host that demands a password, the run ends by itself."""
    host.credentials = "somebody:hunter2"
    status, told = in_a_terminal(project, "clone", "--sglang-branch=v0.4.0")
    assert status == 3, told.decode()
    assert b"Password" not in told
    assert b"Username" not in told.replace(b"could not read Username", b"")


def in_a_terminal(project: Project, *arguments: str) -> tuple[int, bytes]:
    """The exit status of Invoke on a terminal of its own, and what it printed."""
    python = project.environment.python
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execve(python, [str(python), "-m", "invoke", *arguments], project.environ)
    told, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                told += os.read(terminal, 4096)
            except OSError:
                break
    else:
        os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), told


@pytest.mark.parametrize("configured", ["environment", "configuration"])
def test_ssh_never_prompts_whatever_ssh_command_is_configured(
    configured: str, project: Project, tmp_path: Path
) -> None:
    ssh = tmp_path / "mine/ssh"
    ssh.parent.mkdir()
    script = '#!/bin/sh\necho "$@" >>"{0}"\n: </dev/tty && echo prompted >>"{0}"\nexit 255\n'
    ssh.write_text(script.format(tmp_path / "asked"))
    ssh.chmod(0o755)
    if configured == "environment":
        project.environ["GIT_SSH_COMMAND"] = f"{ssh} -i key"
    else:
        subprocess.run(
            ["git", "config", "--global", "core.sshCommand", f"{ssh} -i key"], env=project.environ, check=True
        )
    project.environ["INVOKE_SOURCES_REPOSITORIES_SGLANG_URL"] = "git@example.org:sgl-project/sglang.git"
    project.environ["INVOKE_SOURCES_ATTEMPTS"] = "1"
    status, told = in_a_terminal(project, "clone", "--only=sglang")
    asked = (tmp_path / "asked").read_text()
    assert "-i key" in asked
    assert "prompted" not in asked, "ssh has no terminal to ask on"
    assert status == 3
    assert b"git@example.org:sgl-project/sglang.git" in told
