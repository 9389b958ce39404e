"""What people and programs are shown: on a terminal, in a pipe, under GitHub Actions, as JSON."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InstallError, NetworkError
from tasks.models import Check, Outcome, PackageState, RepositoryState, Trace, Verification
from tasks.report import report as room
from tasks.report.report import Report

ROOT = Path(__file__).resolve().parent.parent.parent
NOWHERE: Mapping[str, str] = {}
MEND = "invoke update --flashinfer-branch=matching --sglang-branch=v0.5.10.post1"
CHECKS = [
    Check("sglang: present", "pass", "tmp/sglang"),
    Check("sglang: tree unchanged", "warn", "2 files changed", command="git -C tmp/sglang stash"),
    Check("flashinfer: version", "fail", "0.6.18 is installed, 0.6.7.post3 is checked out", command=MEND),
    Check("flashinfer: imports", "skip", "not installed"),
]
CLONED = Outcome("flashinfer", "cloned", "main", "1a2b3c4d5e" * 4, "0.6.18", moved=52_300_000, seconds=41)
LOST = NetworkError("https://example.org/sglang.git: connection reset", "Try again: invoke clone")
FAILED = Outcome("sglang", "", "main", error=LOST)

PREAMBLE = f"""
import sys
from tasks.errors import NetworkError
from tasks.models import Check, Outcome, PackageState, RepositoryState, Trace, Verification
from tasks.report.report import Report
CHECKS = {CHECKS!r}
CLONED = {CLONED!r}
FAILED = Outcome("sglang", "", "main", error=NetworkError({LOST.what!r}, {LOST.hint!r}))
"""
DRAWS = """
with Report() as report:
    report.event("sglang", "cloning main")
    for percent in range(0, 101, 6):
        report.progress("sglang", "receiving objects", percent / 100, percent * 123_000, 3_100_000.0)
        report.progress("sglang/3rdparty/cutlass", "checking out", None, 0, 0.0)
        if live := getattr(report._printer.screen(), "_live", None):
            live.refresh()  # eight times a second otherwise
    report.warn("sglang", "a warning")
    report.event("sglang", "cloned")
    report.checks(CHECKS, strict=False)
    report.outcomes("clone", [CLONED, FAILED])
"""


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
    with Report(stream=out, errors=err, environ=environ, **options) as report:
        tell(report)
    return out.getvalue(), err.getvalue()


# On a terminal


def test_live_lines_say_what_is_done_how_far_how_much_and_how_fast_and_leave_no_trace() -> None:
    sent = on_terminal(DRAWS)
    live, _, after = without_escapes(sent).partition("sglang: a warning")
    assert re.search(r"sglang +receiving objects .* 48% +5\.9 MB +3\.1 MB/s", live)
    assert re.search(r"^.  +  3rdparty/cutlass +checking out .* s", live, re.MULTILINE)
    assert "receiving" not in after.partition("sglang: cloned")[2]
    assert sent.count("\x1b[?25h") >= sent.count("\x1b[?25l") > 0, "the cursor is shown again"


def test_colours_are_used_on_a_terminal_and_not_under_no_color() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_terminal(DRAWS))
    assert not colour.search(on_terminal(DRAWS, NO_COLOR="1"))


def test_a_dumb_terminal_gets_plain_lines() -> None:
    sent = on_terminal(DRAWS, TERM="dumb")
    assert "\x1b" not in sent
    assert re.search(r"^\d\d:\d\d:\d\d sglang: cloned$", sent, re.MULTILINE)


def test_in_a_narrow_terminal_nothing_is_cut_and_commands_are_not_broken() -> None:
    sent = without_escapes(on_terminal(DRAWS, columns=40))
    assert f"     {MEND}\n" in sent
    for line in sent.replace(MEND, "").splitlines():
        assert all(len(drawn.strip()) <= 40 for drawn in line.split("\r"))
    assert "✗  version\n     0.6.18 is installed, 0.6.7.post3 is\n     checked out" in sent
    assert re.search(r"^repository +REF +version +what happened *$", sent, re.MULTILINE)


def test_where_letters_are_ascii_only_everything_is_said_in_ascii() -> None:
    code = DRAWS + 'report.event("sglang", "na\\xefve \\u2192 \\udc80")'
    sent = on_terminal(code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii:strict")
    assert sent.isascii()
    assert "na\\xefve \\u2192 \\udc80" in sent
    assert re.search(r"fail +version", without_escapes(sent))


def test_rich_is_imported_late_but_nothing_of_it_after_preload() -> None:
    before = """
rich = lambda: {name for name in sys.modules if name.partition(".")[0] == "rich"}
assert not rich()
Report().preload()
before = rich()
"""
    assert "cloned" in on_terminal(before + DRAWS + "assert before and rich() == before")


# Elsewhere


def test_elsewhere_every_event_is_a_line_with_its_time_and_nothing_is_drawn() -> None:
    def tell(report: Report) -> None:
        report.event("sglang", "cloning main")
        report.progress("sglang", "receiving objects", 0.5, 1, 1.0)
        report.output("install", "  Collecting a\r  Collecting b\r\n")
        report.output("install", " \n")

    out, err = shown(tell)
    assert re.fullmatch(r"\d\d:\d\d:\d\d sglang: cloning main\n\d\d:\d\d:\d\d install: Collecting b\n", out)
    assert err == ""


def test_elsewhere_a_long_transfer_says_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SPOKEN", 0.0)
    out, _ = shown(lambda report: report.progress("sglang", "receiving objects", 0.421, 12_340_000, 31e3))
    assert out.endswith(" sglang: receiving objects, 42%, 12.3 MB, 31 kB/s\n")


def test_lines_of_many_threads_stay_whole() -> None:
    def tell(report: Report) -> None:
        def work(name: str) -> None:
            for number in range(50):
                report.progress(name, "receiving", 0.5, number, 1.0)
                report.event(name, f"line {number}")

        threads = [threading.Thread(target=work, args=(f"r{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    lines = shown(tell)[0].splitlines()
    assert sorted(line.partition(" ")[2] for line in lines) == sorted(
        f"r{name}: line {number}" for name in range(8) for number in range(50)
    )


def test_a_reader_that_leaves_early_stops_nothing() -> None:
    code = PREAMBLE + DRAWS + "print('to the end', file=sys.stderr)"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors.endswith("to the end\n")
    assert "Traceback" not in errors and "BrokenPipe" not in errors


def test_hide_leaves_only_what_went_wrong() -> None:
    def tell(report: Report) -> None:
        report.event("sglang", "cloning")
        report.output("install", "Collecting")
        report.checks(CHECKS, strict=False)
        report.outcomes("clone", [CLONED, FAILED])

    out, err = shown(tell, hide="both")
    assert "fail  version" in out and MEND in out
    assert "cloning" not in out and "Collecting" not in out and "pass" not in out and "cloned" not in out
    assert err == "sglang: https://example.org/sglang.git: connection reset\n  Try again: invoke clone\n"
    assert "cloning" in shown(tell, hide="err")[0]


def test_echo_shows_commands_as_a_shell_takes_them_without_passwords() -> None:
    def tell(report: Report) -> None:
        report.command(["git", "clone", "https://me:s3'cret@example.org/a b.git"], Path("/some where"))

    assert shown(tell)[0] == ""
    assert shown(tell, echo=True)[0] == "cd '/some where' && git clone 'https://***@example.org/a b.git'\n"


# What came of it


def test_an_error_is_what_happened_and_what_mends_it() -> None:
    error = InstallError("pip failed: no space\nlast line", "pip install -e 'a b'")
    out, err = shown(lambda report: report.fail(error))
    assert out == ""
    assert err == "error: pip failed: no space\n    last line\n  pip install -e 'a b'\n"


def test_a_task_ends_with_one_table_and_its_errors_beneath() -> None:
    moved = Outcome("third", "moved", "v2", "f" * 40, "0.6.18", before_version="0.6.7.post3", seconds=200)
    out, err = shown(lambda report: report.outcomes("update", [CLONED, FAILED, moved]))
    assert [re.split(r" {2,}", line.strip()) for line in out.strip().splitlines()] == [
        ["repository", "REF", "commit", "version", "what happened", "moved", "time"],
        ["flashinfer", "main", "1a2b3c4d5e", "0.6.18", "cloned", "52.3 MB", "41 s"],
        ["sglang", "main", "failed"],
        ["third", "v2", "ffffffffff", "0.6.7.post3 → 0.6.18", "moved", "3 min 20 s"],
    ]
    assert err.startswith("sglang: https://example.org")


def test_the_summary_says_what_each_step_did_and_what_a_failure_left_undone() -> None:
    steps = {
        "clone": [FAILED, CLONED],
        "update": [Outcome("flashinfer", "up to date")],
        "install": [Outcome("flashinfer", "installed", version="0.6.18", seconds=9)],
    }
    out, err = shown(lambda report: report.summary(steps, CHECKS))
    for line in ("clone: failed", "update: skipped, clone failed", "install: skipped, clone failed"):
        assert line in out
    assert re.search(r"^flashinfer  main .* clone: cloned .* 50 s$", out, re.MULTILINE)
    for line in ("update: up to date", "install: installed", "verify: 1 fail, 1 skip"):
        assert line in out
    assert "sglang: clone: https://example.org/sglang.git" in err


def test_checks_are_grouped_each_with_what_was_found_and_a_command_that_can_be_copied() -> None:
    out, _ = shown(lambda report: report.checks(CHECKS, strict=True))
    expected = f"""
sglang
  pass  present         tmp/sglang
  warn  tree unchanged  2 files changed
        git -C tmp/sglang stash

flashinfer
  fail  version         0.6.18 is installed, 0.6.7.post3 is checked out
        {MEND}
  skip  imports         not installed

4 checks: 1 pass, 1 warn, 1 fail, 1 skip (warnings fail here)
"""
    assert out == expected


# GitHub Actions


def test_github_gets_groups_annotations_and_a_table(tmp_path: Path) -> None:
    def tell(report: Report) -> None:
        with report.step("verify"):
            report.checks([*CHECKS, Check("a: b, c", "fail", "100 % | <b>\n2", "fix | it")], strict=False)
            for _ in range(2):  # in a step and in the summary
                report.outcomes("clone", [FAILED])
                report.summary({"clone": [FAILED]})
            report.fail(InstallError("pip failed\nlast line", "mend it"))

    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    out, err = shown(tell, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)})
    assert out.startswith("::group::verify\n") and out.endswith("::endgroup::\n")
    assert err.splitlines() == [
        "::warning title=sglang%3A tree unchanged::2 files changed%0Agit -C tmp/sglang stash",
        f"::error title=flashinfer%3A version::0.6.18 is installed, 0.6.7.post3 is checked out%0A{MEND}",
        "::error title=a%3A b%2C c::100 %25 | <b>%0A2%0Afix | it",
        "::error title=sglang::https://example.org/sglang.git: connection reset%0ATry again: invoke clone",
        "::error title=error::pip failed%0Alast line%0Amend it",
    ]
    table = summary.read_text()
    assert table.startswith("before\n### verify: 1 pass, 1 warn, 2 fail, 1 skip\n")
    assert r"| fail | a: b, c | 100 % \| \<b\><br>2 | <code>fix \| it</code> |" in table


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)}
    assert "::warning title=GITHUB_STEP_SUMMARY::" in shown(lambda report: report.checks([], strict=False), environ)[1]


def test_what_a_remote_says_is_no_workflow_command() -> None:
    def tell(report: Report) -> None:
        report.output("install", "##[error]a ::error::b")
        report.fail(InstallError("what\n  ::error::c\n::stop-commands::d", "::set-output name=e::f"))

    for text in (*shown(tell), *shown(tell, {"GITHUB_ACTIONS": "true"})):
        assert "##[" not in text
        assert not re.search(r"^\s*::(?!error title=error::what%0A)", text, re.MULTILINE)


# JSON

FOUND = Verification(
    ok=False,
    repositories={
        "sglang": RepositoryState(
            Path("/p/tmp/sglang"),
            "https://me:secret@example.org/sglang.git",
            "main",
            "0" * 40,
            "0.5.10.post1",
            False,
            {"models": Path("/p/tmp/sglang/python/sglang/srt/models")},
        ),
        "flashinfer": RepositoryState(Path("/p/tmp/flashinfer"), "git@example.org:f.git", "main", None, None, None, {}),
    },
    packages={
        "sglang": PackageState("0.5.10.post1", True, Path("/p/tmp/sglang/python/sglang")),
        "flashinfer": PackageState(None, False, None),
    },
    trace=Trace(Path("/p/flashinfer_trace"), {"rmsnorm": 1}, 1, 1, ()),
    checks=tuple(CHECKS),
)


def test_json_is_alone_on_standard_output_and_as_its_schema_says() -> None:
    def tell(report: Report) -> None:
        with report.step("verify"):
            report.event("sglang", "looked at")
            report.checks(CHECKS, strict=False)
        report.verification(FOUND)

    out, err = shown(tell, json=True)
    found = json.loads(out)
    schema = json.loads((ROOT / "tasks/verify/schemas/result.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    assert found["repositories"]["sglang"]["directories"] == {"models": "/p/tmp/sglang/python/sglang/srt/models"}
    assert found["repositories"]["sglang"]["url"] == "https://***@example.org/sglang.git"
    trace = {"path": "/p/flashinfer_trace", "op_types": {"rmsnorm": 1}, "definitions": 1, "reference_tests": 1}
    assert found["trace"] == trace
    assert found["checks"][2] == {
        "name": CHECKS[2].name,
        "status": "fail",
        "detail": CHECKS[2].detail,
        "hint": "",
        "command": MEND,
    }
    assert "looked at" in err and "fail  version" in err


# Text from elsewhere

SEQUENCES = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://a.b\x1b\\link", "\x9b31m", "\u202eback", "a\rb"]
HOSTILE = st.text(max_size=40) | st.sampled_from(SEQUENCES)
PASSWORD = "hunter2"  # a word that nothing else prints


@settings(deadline=None, max_examples=40)
@given(before=HOSTILE, after=HOSTILE, torn=st.sampled_from(["", "\x00", "\x1b[0m", "\u200b", "\x7f", "\x1f"]))
def test_no_control_character_and_no_password_survives(before: str, after: str, torn: str) -> None:
    text = f"{before} https://me:{torn}{PASSWORD[:3]}{torn}{PASSWORD[3:]}@example.org/x.git {after}"
    error = NetworkError(text, text)

    def tell(report: Report) -> None:
        with report.step(text):
            report.event(text, text)
            report.warn(text, text)
            report.output(text, text)
            report.command([text, text], None)
        outcome = Outcome(text, text, text, text, text, before_version=text + "1", error=error)
        report.outcomes("clone", [outcome])
        report.summary({"clone": [outcome]}, [Check(text, "fail", text, text)])
        report.checks([Check(text, "fail", text, text)], strict=False)
        report.fail(error)

    for environ in ({}, {"GITHUB_ACTIONS": "true"}):
        for printed in shown(tell, environ, echo=True):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", printed)
            assert PASSWORD not in printed and PASSWORD[3:] not in printed


def test_markup_is_shown_as_it_stands() -> None:
    text = "[bold red]not markup[/] :smile: [link=https://a.b]c"
    sent = on_terminal(f"Report().event('sglang', {text!r})\nReport().fail(NetworkError({text!r}))")
    assert without_escapes(sent).count(text) == 2
