"""What people are shown: on a terminal, in a pipe, under GitHub Actions."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InstallError, NetworkError, SourcesError
from tasks.models import Check, Outcome, RepositoryState, Result, Verification
from tasks.report import Report, screen
from tests.report.values import CHECKS, CLONED, ENVIRONMENT, FAILED, FIX, FOUND, UPDATED, succeeded

ROOT = Path(__file__).resolve().parent.parent.parent
NOWHERE: Mapping[str, str] = {}
ENDED = Result("clone", 3, ENVIRONMENT, {"clone": [CLONED, FAILED]}, verification=FOUND)
PREAMBLE = """
import sys
from tasks.errors import NetworkError
from tasks.models import Result
from tasks.report import Report
from tests.report.test_report import ENDED, STATUS
from tests.report.values import CHECKS, succeeded
"""
DRAWS = """
report = Report()
report.event("sglang", "cloning main")
for percent in range(0, 101, 6):
    report.progress("sglang", "receiving objects", percent / 100, percent * 123_000, 3_100_000.0)
    report.progress("flashinfer/3rdparty/cutlass", "checking out", None, 0, 0.0)
    if display := report._live._display:
        display.refresh()  # four times a second otherwise
report.warn("sglang", "a warning")
report.event("sglang", "cloned")
report.finish(ENDED)
"""
STATUS = Result(
    "status",
    verification=Verification(
        True,
        {
            "sglang": RepositoryState(
                Path("/p/tmp/sglang"), "https://example.org/sglang.git", "main", "0" * 40, "0.5.23",
                ref_source="configuration", branch="my-kernel", ahead=2, behind=1, changed=("a", "b", "c", "d"),
            ),
            "flashinfer": RepositoryState(
                Path("/p/tmp/flashinfer"), "https://example.org/f.git", "matching", "f" * 40, "0.7.2",
                ref_source="this checkout", resolved="v0.7.2",
            ),
            "third": RepositoryState(Path("/p/tmp/third"), "https://example.org/t.git", "main", problem="not cloned"),
        },
        FOUND.packages, None, (),
    ),
)  # fmt: skip


def on_terminal(code: str, columns: int = 100, **environ: str) -> str:
    """Everything that `code` sends to a terminal, escape sequences included."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    variables = {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environ}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], env=variables, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        sent = b""
        try:
            while chunk := os.read(master, 65536):
                sent += chunk
        except OSError:  # the other end is closed
            pass
        os.close(master)
    assert process.returncode == 0, sent.decode()
    return sent.decode().replace("\r\n", "\n")


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def shown(tell: Callable[[Report], object], environ: Mapping[str, str] = NOWHERE, **options: Any) -> tuple[str, str]:
    """What `tell` makes a report print where no terminal is: on standard output, on standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "NO_COLOR", "VIRTUAL_ENV"):
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        tell(Report(**options))
    return out.getvalue(), err.getvalue()


def finished(result: Result, environ: Mapping[str, str] = NOWHERE, **options: Any) -> tuple[str, str]:
    """What is shown at the end of a run."""
    return shown(lambda report: report.finish(result), environ, **options)


# On a terminal


def test_live_lines_say_what_is_done_and_leave_no_trace() -> None:
    sent = on_terminal(DRAWS)
    lines = [line.strip() for line in re.split(r"[\r\n]+", without_escapes(sent))]
    assert any(re.search("sglang +receiving objects 48%, 5.9 MB, 3.1 MB/s$", line) for line in lines)
    assert not any("objects 48%" in line and " of ~" in line for line in lines), "estimated from half of it on"
    assert any("receiving objects 60%, 7.4 MB of ~12.3 MB, 3.1 MB/s, ~1.6 s left" in line for line in lines)
    assert any(line.endswith("flashinfer/3rdparty/cutlass checking out") for line in lines)
    assert "receiving" not in without_escapes(sent).partition("sglang: cloned")[2]
    assert sent.count("\x1b[?25h") >= sent.count("\x1b[?25l") > 0, "the cursor is shown again"


def test_colours_are_used_on_a_terminal_not_under_no_color_and_elsewhere_under_force_color() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    sent = on_terminal("Report().finish(succeeded('verify'))")
    assert re.search(r"\x1b\[1;33m[^\n]* with 1 warning", sent), "yellow"
    assert not colour.search(on_terminal(DRAWS, NO_COLOR="1"))
    assert colour.search(finished(ENDED, {"FORCE_COLOR": "1"})[0])
    assert not colour.search(finished(ENDED, {"FORCE_COLOR": "1", "NO_COLOR": "1"})[0])
    assert "\x1b" not in finished(ENDED)[0]


@pytest.mark.parametrize("columns", [60, 80])
def test_words_stay_whole_and_commands_are_not_broken(columns: int) -> None:
    code = "Report().finish(STATUS)\nReport().checked('flashinfer', CHECKS[2:])\nReport().finish(ENDED)"
    sent = without_escapes(on_terminal(code, columns=columns))
    for line in sent.replace(FIX, "").splitlines():
        assert len(line.rstrip()) <= columns
    words = "matching flashinfer (v0.7.2), my-kernel, configuration, (v0.6.7.post3),"
    assert set(words.split()) <= set(sent.split())
    assert f"        {FIX}\n" in sent


def test_where_letters_are_ascii_only_everything_is_said_in_ascii_and_a_dumb_terminal_gets_plain_lines() -> None:
    code = DRAWS + 'report.event("sglang", "na\\xefve \\u2192 \\udc80")'
    sent = on_terminal(code, TERM="dumb", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert sent.isascii() and "\x1b" not in sent
    assert re.search(r"^\d\d:\d\d:\d\d sglang: na\\xefve \\u2192 \\udc80$", sent, re.MULTILINE)


def test_markup_is_shown_as_it_stands() -> None:
    text = "[bold red]not markup[/] :smile: [link=https://a.b]c"
    code = f"Report().event('sglang', {text!r})\nReport().finish(Result('clone', 3, error=NetworkError({text!r})))"
    assert without_escapes(on_terminal(code)).count(text) == 2


# Elsewhere


def test_elsewhere_events_are_lines_with_their_time_below_the_heading_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tell(report: Report) -> None:
        report.heading("clone")
        report.event("sglang", "cloning main")
        report.progress("sglang", "receiving objects", 0.5, 1, 1.0)
        monkeypatch.setattr(screen, "QUIET", 0.0)
        report.progress("sglang/a/b", "receiving objects", 0.421, 12_340_000, 31e3)

    assert re.fullmatch(
        r"clone\n(\d\d:){2}\d\d sglang: cloning main\n"
        r"\S+ sglang/a/b: receiving objects 42%, 12.3 MB, 31.0 kB/s\n",
        shown(tell)[0],
    )


@pytest.mark.parametrize("redirection", ["| true", "> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_an_output_that_is_closed_or_full_or_not_read_stops_nothing(redirection: str, tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    both = DRAWS + DRAWS.replace("Report()", "Report(json=True)")
    code.write_text(f"{PREAMBLE}{both * 20}\nopen({str(tmp_path / 'end')!r}, 'w')")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = f"set -o pipefail; {sys.executable} {code} {redirection}"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (tmp_path / "end").exists(), done.stderr
    assert done.returncode == 0
    assert not re.search("Traceback|Errno|Exception", done.stderr)


def test_echo_shows_commands_as_a_shell_takes_them_without_passwords() -> None:
    def tell(report: Report) -> None:
        report.command(["git", "clone", "https://me:s3'cret@example.org/a b.git"], Path("/some where"))

    assert shown(tell)[0] == ""
    assert shown(tell, echo=True)[0] == "cd '/some where' && git clone 'https://***@example.org/a b.git'\n"


# The end of a run


def test_an_error_is_what_happened_then_advice_then_a_command() -> None:
    error = InstallError("uv failed: no space\nlast line", "Free some space.", "uv pip install -e 'a b'")
    _, err = finished(Result("install", 6, error=error))
    assert err == "error: uv failed: no space\n    last line\n  Free some space.\n  uv pip install -e 'a b'\n"


def test_what_was_done_to_each_repository_then_errors_with_what_to_do() -> None:
    steps = {"update": [CLONED, FAILED, UPDATED]}
    result = Result("update", 3, ENVIRONMENT, steps, 200.0, ("flashinfer: attempt 1 of 5 failed",))
    out, err = finished(result)
    assert (
        out
        == """
flashinfer  matching (v0.6.7.post3), from the option, 1a2b3c4d5e, 0.6.7.post3
            update: cloned, 52.3 MB, 41 s
sglang      main, from the configuration
            update: failed, 12 s
third       main → matching (v0.6.7.post3), from this checkout, ffffffffff, 0.6.7.post3
            update: updated, 3 min 20 s


update incomplete.
"""
    )
    assert err == "sglang: https://example.org/sglang.git: connection reset\n  Check the network.\n  invoke clone\n"


def test_each_step_is_a_line_and_those_that_a_failure_left_undone_say_so() -> None:
    installed = Outcome("flashinfer", "installed", version="0.6.7.post3", seconds=9)
    moved = Outcome("flashinfer", "updated", "main", before_ref="matching", seconds=0.3)
    steps = {"clone": [FAILED, CLONED], "update": [moved], "install": [installed]}
    out, _ = finished(Result("setup", 3, ENVIRONMENT, steps, verification=FOUND))
    assert (
        """
sglang      main, from the configuration
            clone: failed, 12 s
            update: skipped (clone failed)
            install: skipped (clone failed)
            verify: 1 passed, 1 warned
flashinfer  matching → main, from the option, 1a2b3c4d5e, 0.6.7.post3
            clone: cloned, 52.3 MB, 41 s
            update: updated, 0.3 s
            install: installed, 9 s
            verify: 1 failed, 1 skipped
"""
        in out
    )
    assert out.endswith("\nNot ready.\n")


def test_status_shows_what_is_here() -> None:
    assert (
        finished(STATUS)[0]
        == """
sglang      main, from the configuration, 0000000000, 0.5.23, 0.5.10.post1 installed
            on my-kernel, 2 ahead, 1 behind, 4 changed files: a, b, c and 1 more
flashinfer  matching (v0.7.2), from this checkout, ffffffffff, 0.7.2, not installed
            clean
third       main
            not cloned
"""
    )


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (succeeded("clone"), "clone finished in 1.2 s."),
        (succeeded("verify"), "Ready with 1 warning in 1.2 s."),
        (Result("update", 2, error=SourcesError("what")), "update incomplete."),
        (Result("verify", 1, ENVIRONMENT, verification=FOUND), "Not ready."),
        (Result("setup", steps={"clone": [Outcome("sglang", "already cloned")]}, dry=True),
         "Nothing was changed (--dry)."),
    ],
)  # fmt: skip
def test_the_last_line_says_whether_all_is_ready(result: Result, line: str) -> None:
    assert finished(result)[0].splitlines()[-1] == line


def test_a_group_that_passes_is_one_line_and_faults_stand_below_with_what_to_do() -> None:
    skipped = [Check("cuda: gpus", "skip", "no GPU"), Check("cuda: driver", "skip", "no GPU")]
    passed = [Check("trace: definitions", "pass", "9")]

    def tell(report: Report) -> None:
        report.checked("flashinfer", CHECKS[2:])
        report.checked("trace", passed)
        report.checked("cuda", skipped)

    bad = f"""\
flashinfer: 1 failed, 1 skipped
  fail  version: 0.6.18 is installed, 0.6.7.post3 is checked out
        {FIX}
"""
    assert shown(tell)[0] == f"{bad}trace: 1 passed\ncuda: 2 skipped: no GPU\n"
    assert shown(tell, hide=True) == ("", "")
    assert "trace: 1 passed\n  pass  definitions: 9\n" in shown(tell, verbose=True)[0]


def test_github_gets_annotations() -> None:
    odd = Check("a: b, c", "fail", "100 % | <b>\n2", "fix | it", "run | it")
    error = InstallError("pip failed\n::stop-commands::x", "Try again.")
    _, err = finished(
        replace(ENDED, verification=replace(FOUND, checks=(*CHECKS, odd)), error=error), {"GITHUB_ACTIONS": "true"}
    )
    assert err.splitlines() == [
        "::error title=sglang::https://example.org/sglang.git: connection reset%0ACheck the network.%0Ainvoke clone",
        "::error title=error::pip failed%0A: :stop-commands::x%0ATry again.",
        f"::error title=flashinfer%3A version::0.6.18 is installed, 0.6.7.post3 is checked out%0A{FIX}",
        "::error title=a%3A b%2C c::100 %25 | <b>%0A2%0Afix | it%0Arun | it",
        "::warning title=sglang%3A tree::2 files changed%0Agit -C tmp/sglang stash",
    ]


# Text from elsewhere

SEQUENCES = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://a.b\x1b\\link", "\x9b31m", "\u202eback", "a\rb"]
HOSTILE = st.text(max_size=40) | st.sampled_from([*SEQUENCES, "##[error]a ::error::b", "\n  ::error::c"])
PASSWORD = "hunter2"  # a word that nothing else prints


@settings(deadline=None, max_examples=40)
@given(before=HOSTILE, after=HOSTILE, torn=st.sampled_from(["", "\x00", "\x1b[0m", "\u200b", "\x7f", "\x1f"]))
def test_no_control_character_workflow_command_or_password_survives(before: str, after: str, torn: str) -> None:
    text = f"{before} https://me:{torn}{PASSWORD[:3]}{torn}{PASSWORD[3:]}@example.org/x.git {after}"
    error = NetworkError(text, text, text)
    state = RepositoryState(Path("/p"), text, text, text, text, branch=text, changed=(text,), problem=text)

    def tell(report: Report) -> None:
        report.event(text, text)
        report.progress(text, text, None, 0, 0.0)
        report.command([text, text], None)
        report.checked(text, [Check(text, "fail", text, text, text)])
        report.warn(text, text)
        outcome = Outcome(text, text, text, text, text, before_ref=text + "1", resolved=text,
                          error=error)  # fmt: skip
        found = Verification(False, {}, {}, None, (Check(text, "fail", text, text, text),))
        report.finish(Result("setup", 3, None, {"clone": [outcome]}, 0.0, (text,), error, found))
        report.finish(Result("status", verification=Verification(True, {text: state}, {}, None, ())))

    for environ in ({}, {"GITHUB_ACTIONS": "true"}):
        for printed in shown(tell, environ, echo=True):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", printed)
            assert PASSWORD not in printed and PASSWORD[3:] not in printed
            assert "##[" not in printed
            assert not re.search(r"^\s*::(?!(error|warning) title=)", printed, re.MULTILINE)
