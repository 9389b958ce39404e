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
from tests.sources import Sources, fingerprint, nothing_but_the_lock, url
from tests.upstream.host import GitHost
from tests.upstream.store import Gitlink, Symlink, Tree, Upstream

CANARY = "canary"
GOOD = url("spdlog")
REFS = ("--upload-pack=touch canary", "refs/heads/-u touch canary", "ext::sh -c touch% canary", "$(touch canary)",
        "main\ntouch canary", "main\x1b[31m", "HEAD@{1}", "\udcffmain", "g" * 40)  # fmt: skip
URLS = ("--upload-pack=touch canary", "ext::sh -c touch% canary", "ssh://-oProxyCommand=touch canary/x",
        "https://host/x\n--upload-pack=touch canary", "https://host/x\x1b[31m")  # fmt: skip
MODULES = {
    "helper for url": ("x", "deps/x", "ext::sh -c touch% canary"),
    "file url": ("x", "deps/x", "file:///etc"),
    "name out of modules": ("../../hooks", "deps/x", GOOD),
    "name with the parent": ("a/../../b", "deps/x", GOOD),
    "name of a draft": (".x.new", "deps/x", GOOD),
    "name that reverses a line": ("a\u202eb", "deps/x", GOOD),
    "option for name": ("-u", "deps/x", GOOD),
    "option for path": ("x", "-p", GOOD),
    "path in a git folder": ("x", "a/git~1/hooks", GOOD),
}


def unharmed(folder: Path) -> None:
    """No injected command has run."""
    assert not [file for file in folder.rglob("*") if CANARY in file.name]
    assert not Path(CANARY).exists()


def clean(text: str) -> None:
    """The message is safe to print on a terminal, and is no traceback."""
    assert "Traceback" not in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_ref_and_a_url_are_data(sglang: Sources, host: GitHost, tmp_path: Path) -> None:
    """ARCHITECTURE.md, guarantee 7: neither an option, nor a command, nor a transport that runs one."""
    for ref in REFS:
        result = sglang("clone", check=2, sglang=ref)
        clean(result.out + result.err)
    assert host.count(FETCH) == 0
    for address in URLS:
        sglang.repositories["sglang"]["url"] = address
        result = sglang("clone", check=2)
        clean(result.out + result.err)
        assert "sources.repositories.sglang.url" in result.err
    unharmed(tmp_path)
    assert nothing_but_the_lock(sglang.path)


def module(name: str, path: str, address: str) -> str:
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in (name, path, address)]
    return '[submodule "{}"]\n\tpath = "{}"\n\turl = "{}"\n'.format(*quoted)


def test_a_submodule_that_leads_elsewhere_is_refused(sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    link, home = Gitlink(upstream.commit("spdlog")), fingerprint(tmp_path / "home")
    for case, (name, path, address) in MODULES.items():
        files: Tree = {".gitmodules": module(name, path, address), path: link}
        upstream.add_commit("sglang", case.replace(" ", "-"), files, parent="main")
        result = sglang("clone", check=1, sglang=case.replace(" ", "-"))
        clean(result.out + result.err)
        assert ".gitmodules" in result.err or "invalid path" in result.err, case
        assert not (sglang.path / "sglang").exists(), case
    assert fingerprint(tmp_path / "home") == home
    unharmed(tmp_path)


def test_names_inside_each_other_are_refused(sglang: Sources, upstream: Upstream) -> None:
    link = Gitlink(upstream.commit("spdlog"))
    both = module("x", "deps/x", GOOD) + module("x/hooks", "deps/y", GOOD)
    upstream.add_commit("sglang", "evil", {".gitmodules": both, "deps/x": link, "deps/y": link}, parent="main")
    sglang("clone", check=1, sglang="evil")
    upstream.add_commit("sglang", "main", {".gitmodules": module("x", "deps/x", GOOD), "deps/x": link})
    sglang("clone")
    head = sglang.head("sglang")
    files: Tree = {".gitmodules": module("x/hooks", "deps/y", GOOD), "deps/x": None, "deps/y": link}
    upstream.add_commit("sglang", "main", files)
    result = sglang("update", check=None)
    inside = sglang.path / "sglang/.git/modules/x/hooks"
    assert not inside.exists(), f"status {result.status}"
    assert (sglang.head("sglang") == head) == (result.status == 1)


@pytest.mark.parametrize("of_the_users", [False, True])
def test_no_submodule_is_written_through_a_symbolic_link(
    of_the_users: bool, sglang: Sources, upstream: Upstream, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    modules, link = module("x", "deps/x", GOOD), Gitlink(upstream.commit("spdlog"))
    if not of_the_users:
        upstream.add_commit("sglang", "main", {"deps": Symlink(str(outside))})
    sglang("clone")
    if of_the_users:
        (sglang.path / "sglang/deps").symlink_to(outside)
    upstream.add_commit("sglang", "main", {"deps": None, ".gitmodules": modules, "deps/x": link})
    result = sglang("update", check=5 if of_the_users else 0)
    assert list(outside.iterdir()) == []
    if result.status:
        (sglang.path / "sglang/deps").unlink()
        sglang("update")
    assert (sglang.path / "sglang/deps/x/README.md").exists()
    assert list(outside.iterdir()) == []


def test_no_hook_runs_whatever_a_user_has_configured(sglang: Sources, upstream: Upstream, tmp_path: Path) -> None:
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "post-merge"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
        (hooks / name).chmod(0o755)
    settings = {"core.hooksPath": hooks, "init.templateDir": hooks.parent, "core.fsmonitor": hooks / "post-merge"}
    for key, value in settings.items():
        subprocess.run(["git", "config", "--global", key, value], check=True)
    sglang("clone")
    subprocess.run(["cp", "-r", hooks, sglang.path / "sglang/.git"], check=True)
    subprocess.run(["git", "config", "--global", "--unset", "core.hooksPath"], check=True)
    link = Gitlink(upstream.commit("spdlog"))
    modules = module("x", "deps/x", GOOD) + "\tupdate = !touch canary\n"
    upstream.add_commit("sglang", "main", {".gitmodules": modules, "deps/x": link})
    clean(sglang("update", check=None).err)
    unharmed(tmp_path)


def test_no_password_is_ever_shown(sglang: Sources, host: GitHost, upstream: Upstream) -> None:
    """ARCHITECTURE.md, guarantee 7: in no message, whatever goes wrong."""
    address = host.url.replace("http://", "http://somebody:hunter2@") + "/sgl-project/sglang.git"
    sglang.repositories["sglang"]["url"] = address
    host.credentials = "somebody:hunter2"
    printed = [sglang("clone"), sglang("update", check=2, sglang="nothing-like-it")]
    upstream.add_commit("sglang", "main")
    printed.append(sglang("update"))
    host.credentials = "somebody:else"
    printed.append(sglang("update", check=3))
    sglang.repositories["sglang"]["url"] = address.replace("http://", "bad://")
    printed.append(sglang("update", check=2))
    for result in printed:
        assert "hunter2@" not in result.out + result.err
        clean(result.out + result.err)


def in_a_terminal(project: Project, *arguments: str) -> tuple[int, bytes]:
    """The exit status of Invoke on a terminal of its own, and what it printed."""
    python = project.environment.python
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execve(python, [str(python), "-m", "invoke", *arguments], project.environ)
    printed, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                printed += os.read(terminal, 4096)
            except OSError:
                break
    else:
        os.kill(pid, 9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), printed


def test_no_prompt_and_no_hang(project: Project, host: GitHost, tmp_path: Path) -> None:
    """ARCHITECTURE.md, guarantee 6: on a terminal, where the host demands a password or ssh has a question."""
    host.credentials = "somebody:hunter2"
    ssh = tmp_path / "ssh"
    script = '#!/bin/sh\necho "$@" >>"{0}"\n: </dev/tty && echo prompted >>"{0}"\nexit 255\n'
    ssh.write_text(script.format(tmp_path / "asked"))
    ssh.chmod(0o755)
    command = ["git", "config", "--global", "core.sshCommand", f"{ssh} -i key"]
    subprocess.run(command, env=project.environ, check=True)
    project.environ["INVOKE_SOURCES_REPOSITORIES_SGLANG_URL"] = "git@example.org:sgl-project/sglang.git"
    project.environ["INVOKE_SOURCES_ATTEMPTS"] = "1"
    status, printed = in_a_terminal(project, "clone")  # SGLang by ssh, FlashInfer from the host
    assert status == 3, printed.decode()
    assert b"Password" not in printed and b"Username" not in printed.replace(b"could not read Username", b"")
    asked = (tmp_path / "asked").read_text()
    assert "-i key" in asked
    assert "prompted" not in asked, "ssh has no terminal to ask on"
    assert b"git@example.org:sgl-project/sglang.git" in printed
