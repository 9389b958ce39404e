"""Processes: each ends, with its children, at its end, at a deadline or at Ctrl-C; its output is read to the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import processes

SLEEP = "import time; time.sleep(1000)"


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    """Processes may start, whatever the test did."""
    processes.start()
    yield
    processes.start()


def python(code: str, **options: object) -> processes.Completed:
    """Run Python code."""
    return processes.run([sys.executable, "-c", code], **options)  # type: ignore[arg-type]


def is_gone(file: Path) -> bool:
    """Whether the process whose id is in the file has ended; it waits for that a little."""
    pid = int(file.read_text())
    for _ in range(500):
        try:
            os.kill(pid, 0)
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


def test_output_messages_and_status_are_kept_apart() -> None:
    done = python("import sys; print('output'); print(sys.stdin.read(), file=sys.stderr); sys.exit(3)", stdin=b"given")
    assert (done.status, done.output, done.errors, done.ended) == (3, b"output\n", b"given\n", "")


def test_large_outputs_on_both_streams_are_read_whole() -> None:
    code = "import sys; [sys.stdout.write('x' * 1000) and sys.stderr.write('y' * 100) for _ in range(5000)]"
    done = python(code)
    assert (len(done.output), len(done.errors)) == (5_000_000, 500_000)


@pytest.mark.parametrize("deadline", ["silence", "timeout"])
def test_a_process_is_ended_at_its_deadline_with_its_children(deadline: str, tmp_path: Path) -> None:
    child = f"import os; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); {SLEEP}"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = python(code, **{deadline: 1})
    assert done.status == -signal.SIGTERM
    assert done.ended == {"silence": "no data for 1 s", "timeout": "not finished after 1 s"}[deadline]
    assert is_gone(tmp_path / "child")


def test_a_byte_on_either_stream_puts_off_the_deadline_of_silence_but_not_that_of_the_whole() -> None:
    code = "import sys, time\nfor n in range(8):\n    print(n, file=sys.stderr if n % 2 else sys.stdout, flush=True)"
    assert python(f"{code}\n    time.sleep(0.2)", silence=1).ended == ""
    assert python(f"{code}\n    time.sleep(0.2)", silence=1, timeout=1.2).ended == "not finished after 1.2 s"


def test_a_process_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    ignoring = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"
    assert python(ignoring, silence=1).status == -signal.SIGKILL


def test_a_process_gets_the_time_to_clean_up(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = f"import atexit, os, signal, sys; open({str(lock)!r}, 'w'); atexit.register(os.unlink, {str(lock)!r})"
    code = f"{code}; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); print('ready', flush=True)"
    python(f"{code}; {SLEEP}", silence=1)
    assert not lock.exists()


def test_a_child_that_lives_on_with_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    child = f"import os; open({str(tmp_path / 'child')!r}, 'w').write(str(os.getpid())); {SLEEP}"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    try:
        done = python(f"{code}; print('done', flush=True)", timeout=60)
        assert (done.status, done.output, done.ended) == (0, b"done\n", "")
    finally:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.02)
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_endless_messages_are_bounded_and_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST", 5_000_000)
    seen = 0

    def count(block: bytes) -> None:
        nonlocal seen
        seen += len(block)

    done = python("import sys\nwhile True: sys.stderr.write('x' * 1000)", on_errors=count, silence=60)
    assert "5,000,000 bytes" in done.ended
    assert len(done.errors) == processes.KEPT < seen < 6_000_000


@pytest.mark.parametrize("stubborn", [False, True])
def test_interrupting_ends_running_processes_and_lets_none_start(
    stubborn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    running, raised = threading.Event(), []

    def work() -> None:
        code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else "None"
        code = f"import os, signal, sys; {code}; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
        try:
            python(f"{code}; print('ready', file=sys.stderr, flush=True); {SLEEP}", on_errors=lambda _: running.set())
        except KeyboardInterrupt:
            raised.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert running.wait(20)
    processes.stop_all()
    thread.join(20)
    assert raised == [True]
    assert is_gone(tmp_path / "pid")
    with pytest.raises(KeyboardInterrupt):
        python("open('never', 'w')")
    with pytest.raises(KeyboardInterrupt):
        processes.wait(1000)


def test_ctrl_c_is_not_held_up_by_what_the_same_thread_was_doing() -> None:
    """A signal handler runs between any two steps of the main thread, which may hold the lock of the processes."""
    code = """import faulthandler, signal
from tasks import processes
faulthandler.dump_traceback_later(20, exit=True)
signal.signal(signal.SIGINT, lambda *_: processes.stop_all())
with processes._lock:
    signal.raise_signal(signal.SIGINT)
"""
    assert python(code, timeout=60).status == 0


def test_a_program_that_cannot_be_started_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        processes.run([tmp_path / "nothing"])
