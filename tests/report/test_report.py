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
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InstallError, NetworkError, SourcesError
from tasks.models import Check, EnvironmentState, Outcome, Result, Verification
from tasks.report import console
from tasks.report.report import Report
from tasks.report.tables import cells
from tests.report.values import CHECKS, CLONED, ENVIRONMENT, FAILED, FIX, FOUND, UPDATED, succeeded

ROOT = Path(__file__).resolve().parent.parent.parent
NOWHERE: Mapping[str, str] = {}
ENDED = Result("clone", 3, ENVIRONMENT, {"clone": [CLONED, FAILED]}, {"clone": 41.0}, verification=FOUND)

PREAMBLE = """
import sys
from tasks.errors import NetworkError
from tasks.models import Result
from tasks.report.report import Report
from tests.report.test_report import ENDED
"""
DRAWS = """
with Report() as report:
    report.event("sglang", "cloning main")
    for percent in range(0, 101, 6):
        report.progress("sglang", "receiving objects", percent / 100, percent * 123_000, 3_100_000.0)
        report.progress("flashinfer/3rdparty/cutlass", "checking out", None, 0, 0.0)
        if live := report._live._progress:
            live.refresh()  # eight times a second otherwise
    report.warn("sglang", "a warning")
    report.event("sglang", "cloned")
    report.finish(ENDED)
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


def live_lines(sent: str, repository: str) -> list[str]:
    """The states of a repository's live line, in the order in which they were drawn."""
    lines = re.split(r"[\r\n]+", without_escapes(sent))
    return [line.rstrip() for line in lines if re.match(rf"\S {repository} ", line)]


def shown(tell: Callable[[Report], object], environ: Mapping[str, str] = NOWHERE, **options: Any) -> tuple[str, str]:
    """What `tell` makes a report print where no terminal is: on standard output, on standard error."""
    out, err = io.StringIO(), io.StringIO()
    with Report(stream=out, errors=err, environ=environ, **options) as report:
        tell(report)
    return re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE), err.getvalue()


def finished(result: Result, environ: Mapping[str, str] = NOWHERE, **options: Any) -> tuple[str, str]:
    """What is shown at the end of a run."""
    return shown(lambda report: report.finish(result), environ, **options)


# On a terminal


def test_live_lines_say_what_is_done_how_far_how_much_and_how_fast_and_leave_no_trace() -> None:
    sent = on_terminal(DRAWS)
    lines = live_lines(sent, "sglang")
    assert any(
        re.search(r"receiving objects 48%, 5\.9 MB of ~12\.3 MB, 3\.1 MB/s, ~2\.1 s left$", line) for line in lines
    )
    assert live_lines(sent, "flashinfer")[-1].endswith(" checking out 3rdparty/cutlass")
    assert "receiving" not in without_escapes(sent).partition("sglang: cloned")[2]
    assert sent.count("\x1b[?25h") >= sent.count("\x1b[?25l") > 0, "the cursor is shown again"


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_live_lines_are_cut_between_words_only(columns: int) -> None:
    for line in live_lines(on_terminal(DRAWS, columns=columns), "sglang"):
        assert len(line) <= columns
        said = re.sub(r"^\S sglang +[━╸╺ ]+", "", line)
        figures = r", [\d.]+ \wB( of ~[\d.]+ MB(, 3\.1 MB/s(, ~\S+ s left)?)?)?"
        assert re.fullmatch(rf"(receiving (\.\.\.|objects( \.\.\.| \d+%({figures})?)))?", said), line


def test_a_bar_never_runs_backwards_over_the_transfers_of_a_repository() -> None:
    work, seen = console.Work(), [0.0]
    for who, doing, moves in (
        ("f", "receiving", 0), ("f", "receiving", 1000), ("f", "resolving deltas", 0), ("f/sub", "receiving", 500),
        ("f/other", "receiving", 700), ("f", "checking out", 0),
    ):  # fmt: skip
        for percent in (0, 30, 100, 50, 100):
            work.add(who, console.Transfer(doing, percent / 100, moves * percent, 1.0))
            seen.append(1 - work.left)
    assert seen == sorted(seen)
    assert 0 < seen[-1] < 1
    assert work.figures()[0] == "440.0 kB"  # each was received twice


def test_colours_are_used_on_a_terminal_and_not_under_no_color() -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_terminal(DRAWS))
    assert not colour.search(on_terminal(DRAWS, NO_COLOR="1"))


def test_a_dumb_terminal_gets_plain_lines() -> None:
    sent = on_terminal(DRAWS, TERM="dumb")
    assert "\x1b" not in sent
    assert re.search(r"^\d\d:\d\d:\d\d sglang: cloned$", sent, re.MULTILINE)


def test_in_a_narrow_terminal_words_stay_whole_and_commands_are_not_broken() -> None:
    sent = without_escapes(on_terminal(DRAWS, columns=60))
    assert f"     {FIX}\n" in sent
    for line in sent.replace(FIX, "").splitlines():
        assert all(len(drawn.strip()) <= 60 or "Next: " in drawn for drawn in line.split("\r"))
    table = sent[sent.index("repository  REF") :]
    words = "repository REF version outcome flashinfer matching (v0.6.7.post3) (option) sglang (configuration)"
    assert set(words.split()) <= set(table.split())


def test_where_letters_are_ascii_only_everything_is_said_in_ascii() -> None:
    code = DRAWS + 'report.event("sglang", "na\\xefve \\u2192 \\udc80")'
    sent = on_terminal(code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii:strict")
    assert sent.isascii()
    assert "na\\xefve \\u2192 \\udc80" in sent
    assert re.search(r"fail +version", without_escapes(sent))


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
    monkeypatch.setattr(console, "QUIET", 0.0)
    out, _ = shown(lambda report: report.progress("sglang/a/b", "receiving objects", 0.421, 12_340_000, 31e3))
    assert out.endswith(" sglang: receiving objects a/b 42%, 12.3 MB of ~29.3 MB, 31.0 kB/s, ~9 min 7 s left\n")


def test_a_step_in_which_nothing_happens_has_no_heading() -> None:
    def tell(report: Report) -> None:
        with report.step("clone"):
            report.event("sglang", "cloned")
        with report.step("install"):
            pass

    assert re.fullmatch(r"clone\n\S+ sglang: cloned\n", shown(tell)[0])
    assert re.fullmatch(
        r"::group::clone\n\S+ sglang: cloned\n::endgroup::\n", shown(tell, {"GITHUB_ACTIONS": "true"})[0]
    )


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


@pytest.mark.parametrize("options", ["", "json=True"])
def test_a_reader_that_leaves_early_stops_nothing(options: str) -> None:
    code = PREAMBLE + DRAWS.replace("Report()", f"Report({options})") + "print('to the end', file=sys.stderr)"
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
        report.finish(ENDED)

    out, err = shown(tell, hide="both")
    assert "fail  version" in out and FIX in out
    for text in ("cloning", "Collecting", "pass", "cloned", "clone incomplete"):
        assert text not in out
    assert err == "sglang: https://example.org/sglang.git: connection reset\n  Check the network.\n  invoke clone\n"
    assert "cloning" in shown(tell, hide="err")[0]


def test_echo_shows_commands_as_a_shell_takes_them_without_passwords() -> None:
    def tell(report: Report) -> None:
        report.command(["git", "clone", "https://me:s3'cret@example.org/a b.git"], Path("/some where"))

    assert shown(tell)[0] == ""
    assert shown(tell, echo=True)[0] == "cd '/some where' && git clone 'https://***@example.org/a b.git'\n"


# What came of it


def test_an_error_is_what_happened_then_advice_then_a_command() -> None:
    error = InstallError("pip failed: no space\nlast line", "Free some space.", "pip install -e 'a b'")
    out, err = finished(Result("install", 6, error=error, seconds={"install": 0.26}))
    assert out == "\ninstall incomplete after 0.3 s. Next: pip install -e 'a b'\n"
    assert err == "error: pip failed: no space\n    last line\n  Free some space.\n  pip install -e 'a b'\n"


def test_a_task_ends_with_one_table_its_warnings_its_errors_and_what_to_do_next() -> None:
    out, err = finished(Result("update", 3, ENVIRONMENT, {"update": [CLONED, FAILED, UPDATED]}, {"update": 200.0}))
    assert [re.split(r" {2,}", line.strip()) for line in out.strip().splitlines()] == [
        ["repository", "REF", "REF from", "commit", "version", "outcome", "moved", "time"],
        ["flashinfer", "matching (v0.6.7.post3)", "option", "1a2b3c4d5e", "0.6.7.post3", "cloned", "52.3 MB", "41 s"],
        ["sglang", "main", "configuration", "failed", "12 s"],
        ["third", "main → matching (v0.6.7.post3)", "this checkout", "ffffffffff", "0.6.18 → 0.6.7.post3", "updated",
         "3 min 20 s"],
        [""],
        ["warning: flashinfer: attempt 1 of 5 failed: connection reset"],
        [""],
        ["update incomplete after 3 min 20 s. Next: invoke clone"],
    ]  # fmt: skip
    assert err == "sglang: https://example.org/sglang.git: connection reset\n  Check the network.\n  invoke clone\n"


def test_the_summary_says_what_each_step_did_and_what_a_failure_left_undone() -> None:
    installed = Outcome("flashinfer", "installed", version="0.6.7.post3", seconds=9)
    also = Outcome("third", "installed", seconds=9)
    steps = {
        "clone": [FAILED, CLONED],
        "update": [Outcome("flashinfer", "up to date", seconds=0.3)],
        "install": [installed, also],
    }
    seconds = {"clone": 41.0, "update": 0.3, "install": 9.0, "verify": 2.0}
    out, err = finished(Result("setup", 3, ENVIRONMENT, steps, seconds, verification=FOUND))
    rows = [re.split(r" {2,}", line.strip()) for line in out[out.index("repository  REF") :].splitlines()]
    assert ["sglang", "main", "configuration", "clone: failed", "12 s"] in rows
    for row in ("update: skipped (clone failed)", "install: skipped (clone failed)", "verify: 1 fail, 1 skip"):
        assert [row] in rows
    assert ["update: up to date", "0.3 s"] in rows
    assert [row for row in rows if "install: installed" in row] == [["install: installed"]], (
        "its time stands below, once"
    )
    assert "sglang: clone: https://example.org/sglang.git" in err
    assert rows[-1] == ["Not ready after 52 s (clone 41 s, update 0.3 s, install 9 s, verify 2 s). Next: invoke clone"]


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (succeeded("clone"), "clone finished in 1.2 s. Next: invoke install"),
        (succeeded("install"), "install finished in 1.2 s. Next: invoke verify"),
        (succeeded("verify"), "Ready with 1 warning in 1.2 s. Next: run your programs with /p/.venv/bin/python"),
        (replace(succeeded("clone"), exit_status=130, error=SourcesError("Interrupted.")),
         "Interrupted after 1.2 s. Next: the same command again"),
        (Result("update", 2, error=SourcesError("what")),
         "update incomplete. Next: fix what failed, then run it again"),
        (Result("install", 6, error=InstallError("what", command=f"uv pip install --python /p {'x' * 60}")),
         "install incomplete. Next: fix what failed, then run it again"),
        (Result("verify", 1, ENVIRONMENT, seconds={"verify": 3}, verification=FOUND),
         f"Not ready after 3 s. Next: {FIX}"),
        (Result("setup", steps={"clone": [Outcome("sglang", "already cloned")]}, dry=True),
         "Nothing was changed (--dry). Next: the same command without --dry"),
    ],
)  # fmt: skip
def test_the_last_line_says_whether_all_is_ready_and_what_to_do_next(result: Result, line: str) -> None:
    assert finished(result)[0].splitlines()[-1] == line


def test_the_last_line_names_the_activation_of_an_environment_that_is_not_active(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/activate").touch()
    result = replace(succeeded("setup"), environment=EnvironmentState(tmp_path / "bin/python", tmp_path, "uv"))
    assert finished(result)[0].endswith(f" Next: source {tmp_path}/bin/activate\n")
    assert finished(result, {"VIRTUAL_ENV": str(tmp_path)})[0].endswith(" Next: import sglang and flashinfer.\n")


def test_checks_are_grouped_each_with_what_was_found_and_a_command_that_can_be_copied() -> None:
    out, _ = finished(Result("verify", 1, verification=FOUND))
    assert out.startswith(f"""
sglang
  pass  repository  tmp/sglang
  warn  tree        2 files changed
        git -C tmp/sglang stash

flashinfer
  fail  version     0.6.18 is installed, 0.6.7.post3 is checked out
        {FIX}
  skip  imports     not installed

4 checks: 1 pass, 1 warn, 1 fail, 1 skip
""")


def test_failed_attempts_name_their_repository_once_and_are_repeated_only_where_the_last_one_succeeded() -> None:
    def tell(report: Report) -> None:
        for who in ("flashinfer/3rdparty/cccl", "sglang"):
            report.warn(who, f"{who}: lost. Attempt 2 of 2 in 1 s.")
        got = replace(CLONED, warnings=report.take_warnings("flashinfer"))
        report.finish(
            Result("clone", 3, steps={"clone": [got, replace(FAILED, warnings=report.take_warnings("sglang"))]})
        )

    out, err = shown(tell)
    cccl = "flashinfer/3rdparty/cccl: {}lost. Attempt 2 of 2 in 1 s.\n"
    assert cccl.format("warning: ") in err and "sglang: warning: lost. Attempt 2 of 2 in 1 s.\n" in err
    assert f"\nwarning: {cccl.format('')}" in out and "warning: sglang" not in out


def test_checks_that_were_skipped_for_one_reason_are_one_line_below_it() -> None:
    lost = Check("sglang: repository", "fail", "nothing at tmp/sglang", command="invoke clone")
    checks = (lost, *(Check(f"sglang: check {number}", "skip", "not cloned") for number in range(14)))
    out, _ = finished(Result("verify", 1, verification=Verification(False, {}, {}, None, checks)))
    assert out.startswith("""
sglang
  fail  repository  nothing at tmp/sglang
        invoke clone
  skip  14 checks skipped: not cloned

15 checks: 1 fail, 14 skip
""")


LONG = Check(f"kernels: {'gqa_paged_' * 5}", "pass", "24 passed, 7 s, largest error 0.50 of what is allowed " * 5)
SHORT = Check("kernels: total", "pass", "24 tests ran kernels")


def test_a_long_name_and_what_was_found_are_one_line_where_no_terminal_is() -> None:
    found = Verification(True, {}, {}, None, (LONG, SHORT))
    out, _ = finished(Result("verify", verification=found))
    assert f"  pass  {LONG.name.partition(': ')[2]}  {LONG.detail.strip()}\n" in out


def test_the_long_name_of_one_file_does_not_move_what_was_found_by_other_checks() -> None:
    broken = Check("trace: definitions/rmsnorm/rmsnorm.json", "fail", "axes must be object", "fix it")
    found = Verification(False, {}, {}, None, (SHORT, broken))
    out, _ = finished(Result("verify", 1, verification=found))
    assert "  pass  total  24 tests ran kernels\n" in out


@pytest.mark.parametrize(("columns", "last"), [(80, "outcome"), (120, "time")])
def test_no_title_no_outcome_and_no_time_is_folded(columns: int, last: str) -> None:
    code = """
from dataclasses import replace
from tests.report.values import CLONED, FAILED, FOUND, UPDATED
steps = {"clone": [CLONED, FAILED], "update": [replace(UPDATED, repository="flashinfer")]}
Report().finish(Result("setup", 3, steps=steps, verification=FOUND))
"""
    lines = [line.rstrip() for line in without_escapes(on_terminal(code, columns=columns)).splitlines()]
    assert any(re.match(f"repository +REF .*{last}$", line) for line in lines)
    assert any(line.endswith("update: skipped (clone failed)") for line in lines)
    assert columns == 80 or any(re.search("update: updated +3 min 20 s$", line) for line in lines)


def test_a_warning_that_a_terminal_folds_is_indented() -> None:
    code = 'Report().warn("sglang", "https://example.org/sglang.git: " + "the connection was closed. " * 4)'
    first, *rest = without_escapes(on_terminal(code, columns=80)).splitlines()
    assert first.startswith("sglang: warning: https://example.org/sglang.git: the connection was closed.")
    assert rest and all(re.match(r"  \S", line) and len(line) <= 80 for line in rest)


def test_on_a_terminal_a_long_name_has_a_line_of_its_own_and_what_was_found_is_folded_beside_it() -> None:
    code = f"found = Verification(True, {{}}, {{}}, None, ({LONG!r}, {SHORT!r}))\n"
    code = f"from tasks.models import Check, Verification\n{code}Report().finish(Result('verify', verification=found))"
    lines = without_escapes(on_terminal(code, columns=80)).splitlines()
    at = lines.index(f"  ✓  {LONG.name.partition(': ')[2]}")
    end, indent = next((number, line.index("24")) for number, line in enumerate(lines) if line.startswith("  ✓  total"))
    below = lines[at + 1 : end]
    assert all(line.startswith(" " * indent) and line[indent] != " " and len(line) <= 80 for line in below)
    assert " ".join(" ".join(below).split()) == LONG.detail.strip()


def test_warnings_are_taken_by_the_repository_that_they_are_about() -> None:
    def tell(report: Report) -> None:
        for who in ("sglang", "flashinfer", "flashinfer/3rdparty/cutlass", "install"):
            report.warn(who, "odd")
        assert report.take_warnings("flashinfer") == ("odd", "flashinfer/3rdparty/cutlass: odd")
        assert report.take_warnings() == ("sglang: odd", "install: odd")
        assert report.take_warnings() == ()

    assert re.search(r"^\S+ sglang: warning: odd$", shown(tell)[1], re.MULTILINE)


# GitHub Actions


def test_github_gets_annotations_and_one_summary_with_all_that_was_done(tmp_path: Path) -> None:
    odd = Check("a: b, c", "fail", "100 % | <b>\n2", "fix | it", "run | it")
    found = replace(FOUND, checks=(*CHECKS, odd))
    result = replace(ENDED, verification=found, error=InstallError("pip failed\nlast line", "Try again."))
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    _, err = finished(result, {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)})
    assert err.splitlines() == [
        "::error title=sglang::https://example.org/sglang.git: connection reset%0ACheck the network.%0Ainvoke clone",
        "::error title=error::pip failed%0Alast line%0ATry again.",
        "::warning title=sglang%3A tree::2 files changed%0Agit -C tmp/sglang stash",
        f"::error title=flashinfer%3A version::0.6.18 is installed, 0.6.7.post3 is checked out%0A{FIX}",
        "::error title=a%3A b%2C c::100 %25 | <b>%0A2%0Afix | it%0Arun | it",
    ]
    text = summary.read_text()
    assert text.startswith(
        "before\n### invoke clone\n\nclone incomplete after 41 s. Next: invoke clone\n\n| repository |"
    )
    assert "| flashinfer | matching (v0.6.7.post3) | option | 1a2b3c4d5e | 0.6.7.post3 |" in text
    assert "| 52.3 MB | 41 s |" in text
    assert "- warning: flashinfer: attempt 1 of 5 failed: connection reset\n" in text
    assert r"| fail | a: b, c | 100 % \| \<b\><br>2 | fix \| it<br><code>run \| it</code> |" in text


def test_a_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path)}
    assert "::warning title=GITHUB_STEP_SUMMARY::" in finished(ENDED, environ)[1]


def test_what_a_remote_says_is_no_workflow_command() -> None:
    def tell(report: Report) -> None:
        report.output("install", "##[error]a ::error::b")
        report.finish(
            Result("clone", 6, error=InstallError("what\n  ::error::c\n::stop-commands::d", "::set-output name=e::f"))
        )

    for text in (*shown(tell), *shown(tell, {"GITHUB_ACTIONS": "true"})):
        assert "##[" not in text
        assert not re.search(r"^\s*::(?!error title=error::what%0A)", text, re.MULTILINE)


# Text from elsewhere

SEQUENCES = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://a.b\x1b\\link", "\x9b31m", "\u202eback", "a\rb"]
HOSTILE = st.text(max_size=40) | st.sampled_from(SEQUENCES)
PASSWORD = "hunter2"  # a word that nothing else prints


@settings(deadline=None, max_examples=40)
@given(before=HOSTILE, after=HOSTILE, torn=st.sampled_from(["", "\x00", "\x1b[0m", "\u200b", "\x7f", "\x1f"]))
def test_no_control_character_and_no_password_survives(before: str, after: str, torn: str) -> None:
    text = f"{before} https://me:{torn}{PASSWORD[:3]}{torn}{PASSWORD[3:]}@example.org/x.git {after}"
    error = NetworkError(text, text, text)

    def tell(report: Report) -> None:
        with report.step(text):
            report.event(text, text)
            report.warn(text, text)
            report.output(text, text)
            report.progress(text, text, None, 0, 0.0)
            report.command([text, text], None)
        outcome = Outcome(text, text, text, text, text, before_version=text + "1", before_ref=text, resolved=text,
                          warnings=(text,), error=error)  # fmt: skip
        found = Verification(False, {}, {}, None, (Check(text, "fail", text, text, text),))
        report.finish(Result("setup", 3, None, {"clone": [outcome]}, {}, (text,), error, found))

    for environ in ({}, {"GITHUB_ACTIONS": "true"}):
        for printed in shown(tell, environ, echo=True):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", printed)
            assert PASSWORD not in printed and PASSWORD[3:] not in printed


def test_markup_is_shown_as_it_stands() -> None:
    text = "[bold red]not markup[/] :smile: [link=https://a.b]c"
    code = f"Report().event('sglang', {text!r})\nReport().finish(Result('clone', 3, error=NetworkError({text!r})))"
    assert without_escapes(on_terminal(code)).count(text) == 2


def test_what_a_word_leads_to_stands_beside_that_word_alone() -> None:
    steps = {
        "clone": [Outcome("flashinfer", "already cloned", "matching", resolved="v0.6.7.post3")],
        "update": [Outcome("flashinfer", "updated", "main", before_ref="matching")],
    }
    assert cells(Result("setup", steps=steps), "→")["REF"] == ["matching → main"]
