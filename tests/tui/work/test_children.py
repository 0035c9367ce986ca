import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tui.model.jobs import Task
from tui.work import children
from tui.work.children import Children, start


def test_a_command_has_a_session_of_its_own_and_gets_no_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os, sys; print(os.getsid(0) == os.getpid(), os.environ['NO_COLOR'], sys.argv[1:])"
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", program))
    process = start(["a", "b c"], tmp_path / "study" / "console.log", {**os.environ, "NO_COLOR": "1"})
    assert process.wait(20) == 0
    assert (tmp_path / "study" / "console.log").read_text() == "True 1 ['a', 'b c']\n"


def test_a_command_outlives_a_killed_dashboard(tmp_path: Path) -> None:
    """The process that started the command is killed with SIGKILL; the command runs to its end."""
    done, log = tmp_path / "done", tmp_path / "console.log"
    child = f"import time, pathlib; time.sleep(1); pathlib.Path({str(done)!r}).write_text('x')"
    launcher = (
        "import sys, time; from pathlib import Path; from tui.work import children\n"
        f"children.PROGRAM = (sys.executable, '-c', {child!r})\n"
        f"children.start([], Path({str(log)!r}))\n"
        "print('started', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while not done.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_how_commands_have_ended_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "import sys; sys.exit(sys.argv[1])"))
    monkeypatch.setattr(children, "KEPT", 2)
    started = Children()
    for number in range(4):
        child = started.start([f"reason {number}"], Task(f"try {number}", tmp_path / f"{number}.log"), "", os.environ)
        child.process.wait(20)
        assert [ended.task.said for ended in started.ended()] == [f"reason {number} (code 1)"]
    assert not started.ended()
    assert [task.name for task in started.tasks] == ["try 2", "try 3"]
    newest = started.newest()
    assert newest is not None and newest.failed and started.newest("none") is None
    started.seen(newest.log)
    assert [task.failed for task in started.tasks] == [True, False]
    assert started.newest() == started.tasks[0]  # the one that has a line
