"""Complete sessions in a real terminal (tmux) on real data: launching, quitting, attaching again, exporting."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.store.study import StudyDir

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]
EXPERIMENT = '''"""One quick arm."""
from suite.spec import Arm, Experiment, LogFloat, Recipe

EXPERIMENT = Experiment(
    name="quick",
    question="Does it start?",
    dataset="mnist",
    arms={"cnn": Arm(backbone="net", recipe=Recipe(epochs=2))},
    space={"lr": LogFloat(low=0.01, high=0.1)},
    trials=2,
    pruning=None,
    limit=200,
)
'''


# removed from the environment: set by the shell, or leading to another package, directory or database
REMOVED = ("COLUMNS", "LINES", "PYTHONPATH", "MNIST_SUITE_RESULTS", "MNIST_SUITE_STORAGE")
PROGRAM = (sys.executable, "-m", "suite.cli")


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in REMOVED} | {"OMP_NUM_THREADS": "1"}


class Terminal:
    """A separate tmux server with one dashboard in it, started in a folder outside the sources."""

    def __init__(self, folder: Path, results: Path, name: str = "tmux") -> None:
        self.socket, self.folder, self.results = folder / name, folder, results

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.socket), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment()).stdout

    def start(self, size: str = "140x45", command: str = "") -> None:
        width, height = size.split("x")
        command = command or shlex.join([*PROGRAM, "tui", "--results", str(self.results)])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, "-c", str(self.folder), command)

    @property
    def pid(self) -> int:
        return int(self.tmux("list-panes", "-F", "#{pane_pid}"))

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.tmux("send-keys", key)
            time.sleep(0.15)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)
        time.sleep(0.3)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p")

    def until(self, wanted: str, seconds: float = 200) -> str:
        """Wait until a text is on the screen; where a line of a box is broken does not matter."""
        deadline = time.monotonic() + seconds
        while wanted not in (text := self.screen()) and wanted not in re.sub(r"[\s│]+", " ", text):
            assert time.monotonic() < deadline, f"no {wanted!r} on the screen:\n{text}"
            time.sleep(0.2)
        return text

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "quick.py").write_text(EXPERIMENT)
    terminal = Terminal(tmp_path, tmp_path / "results")
    yield terminal
    terminal.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Terminal]:
    """A second terminal on the same results."""
    terminal = Terminal(tmp_path, tmp_path / "results", "other")
    yield terminal
    terminal.close()


@pytest.fixture
def sweep(tmp_path: Path, start: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Starts a real sweep of the experiment in a process of its own; returns once it is running."""
    started: list[Any] = []

    def begin(changes: dict[str, str], *words: str) -> Any:
        text = EXPERIMENT
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "quick.py").write_text(text)
        process = start("sweep", "./quick.py", "--study", "quick", "-q", *words)
        started.append(process)
        study = StudyDir(tmp_path / "results", "quick")
        # after an epoch of the first trial, there is a row on the leaderboard and a checkpoint to resume from
        until(lambda: bool((states := study.states()) and states[0].curve), lambda: process.errors)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.signal(signal.SIGKILL, group=True)
        process.wait()


def until(condition: Callable[[], bool], explain: Callable[[], object], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)


def launch(terminal: Terminal) -> None:
    terminal.start()
    terminal.until("Press n to launch")
    terminal.keys("n")
    terminal.until("mnist-suite sweep mnist")  # the form is open, its first field has the focus
    time.sleep(0.5)
    terminal.type(str(terminal.folder / "quick.py"))
    terminal.until("ctrl+t runs this file")
    terminal.keys("C-t")
    terminal.until("Does it start?")
    terminal.keys("Tab")
    terminal.type("quick")
    terminal.until("--study quick")
    terminal.keys("C-s")
    terminal.until("Start study quick?")
    terminal.keys("y")
    terminal.until("quick: starting, then 2 trials")


def wait_for_end(study: StudyDir, seconds: float = 200, trials: int = 2) -> None:
    deadline = time.monotonic() + seconds
    while (status := study.status()) is None or status.state == "running":
        assert time.monotonic() < deadline, status
        time.sleep(0.3)
    assert status.state == "done" and status.finished + status.pruned == trials


@pytest.mark.slow
def test_a_sweep_outlives_a_dashboard_that_is_killed(terminal: Terminal) -> None:
    study = StudyDir(terminal.results, "quick")
    launch_and_wait_for_its_log(terminal, study)
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.close()
    wait_for_end(study)


def launch_and_wait_for_its_log(terminal: Terminal, study: StudyDir) -> None:
    launch(terminal)
    deadline = time.monotonic() + 200
    while not (study.path / "console.log").exists():  # the command has started; it need not have done anything yet
        assert time.monotonic() < deadline, terminal.screen()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_stranger_starts_compares_looks_draws_and_exports(terminal: Terminal) -> None:
    study = StudyDir(terminal.results, "quick")
    launch_and_wait_for_its_log(terminal, study)
    terminal.keys("q")
    terminal.close()
    wait_for_end(study)  # a sweep outlives the dashboard that started it
    terminal.start(size="80x24")
    board = terminal.until("✓ 2")
    assert "FLOPs/img" in board and re.search(r"1 +000[01] .*%.* best +\d", board)  # the best model and its cost
    for shown in ("⏎ Open", "n Launch", "x Stop", "c Compare", "e Export", "5 Pad"):
        assert shown in board
    terminal.keys("c")
    terminal.until("recipe.lr")
    terminal.keys("Escape", "Enter")
    terminal.until("] Next tab")
    terminal.keys("]")
    terminal.until("The most confident mistakes")
    terminal.keys("Escape", "5")
    terminal.until("ready; it takes 28 x 28 pixels")
    terminal.keys("Space", "Down", "Down", "Down", "Down", "Down")
    terminal.until("▶")
    terminal.keys("1")
    terminal.keys("e")
    terminal.until("mnist-suite export quick/")
    terminal.keys("C-a", "C-k")
    terminal.type(str(terminal.folder / "model"))
    terminal.keys("Enter")
    terminal.until("Exported to")
    assert any((terminal.folder / "model").glob("*.safetensors"))
    terminal.keys("q")


# a fault at the key "?"
FAULTY = """
import os, sys
os.environ["MNIST_SUITE_CACHE"] = "cache"
from suite.cli.main import main
from tui.app import Dashboard

Dashboard.action_help = lambda self: 1 / 0
sys.argv[1:] = ["tui", "--results", "results"]
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGTERM", "SIGHUP", "fault"])
def test_whatever_ends_it_restores_the_terminal_and_says_one_sentence(terminal: Terminal, end: str) -> None:
    (terminal.folder / "faulty.py").write_text(FAULTY)
    terminal.start(command=shlex.join(["bash", "-c", f"{sys.executable} faulty.py; echo code $?; stty -a; cat"]))
    terminal.until("Press n to launch")
    if end == "fault":
        terminal.keys("?")
    else:
        child = psutil.Process(terminal.pid).children()[0]
        child.send_signal(signal.Signals[end])
    terminal.until("code 1" if end == "fault" else "code 143")
    screen = terminal.until("echoke")  # in the last line of stty
    said = " ".join(screen.partition("code")[0].split())
    assert said.startswith("mnist-suite: ") and "Traceback" not in said, screen
    assert (f"{end} ended the dashboard" if end != "fault" else "ZeroDivisionError") in said
    assert (terminal.folder / "cache" / "dashboard-fault.log").exists() == (end == "fault")
    assert terminal.tmux("display", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}").split() == ["0", "0", "1"]
    assert re.search(r"(?<!-)icanon\b", screen) and re.search(r"(?<!-)echo\b", screen), screen


@pytest.mark.slow
def test_a_lost_terminal_ends_it(terminal: Terminal) -> None:
    terminal.start()
    terminal.until("Press n to launch")
    process = psutil.Process(terminal.pid)
    terminal.close()
    process.wait(200)


def rows(screen: str) -> list[tuple[str, ...]]:
    """Trial, state and accuracy of every line of the leaderboard, best first."""
    return re.findall(r"(\d{4})  cnn  +\S (\w+)(?: \d+%)? +([\d.]+%)", screen)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_two_dashboards_show_the_same_and_write_nothing(
    terminal: Terminal, other: Terminal, sweep: Callable[..., Any]
) -> None:
    study = StudyDir(terminal.results, "quick")
    process = sweep({"epochs=2": "epochs=50"})
    for viewer in (terminal, other):
        viewer.start()
    for viewer in (terminal, other):
        viewer.until("● 1 running")
    assert process.poll() is None  # both were attached while it was running
    assert process.wait(200) == 0
    states = study.states()
    expected = [(f"{s.trial.number:04d}", s.state, f"{100 * (s.best or 0):.2f}%") for s in states if s.record]
    for viewer in (terminal, other):
        until(lambda viewer=viewer: sorted(rows(viewer.screen())) == sorted(expected), viewer.screen)
    assert len(expected) == 2 and rows(terminal.screen()) == rows(other.screen())
    before = contents(study.path)

    def check_independence(closed: Terminal, stays: Terminal) -> None:
        until(lambda: not closed.screen(), closed.screen)
        stays.keys("Enter")  # it still reacts
        stays.until("epoch")
        stays.keys("Escape")
        until(lambda: sorted(rows(stays.screen())) == sorted(expected), stays.screen)
        assert contents(study.path) == before

    os.kill(terminal.pid, signal.SIGKILL)
    check_independence(terminal, other)
    terminal.start()
    until(lambda: sorted(rows(terminal.screen())) == sorted(expected), terminal.screen)
    other.keys("q")
    check_independence(other, terminal)


@pytest.mark.slow
def test_a_running_sweep_is_stopped_and_resumed_by_keys(terminal: Terminal, sweep: Callable[..., Any]) -> None:
    study = StudyDir(terminal.results, "quick")
    process = sweep({"epochs=2": "epochs=20", "trials=2": "trials=3"}, "--seed", "7", "--set", "batch_size=50")
    process.signal(signal.SIGSTOP)  # it shall not come to its end meanwhile
    (terminal.folder / "quick.py").unlink()  # resuming needs study.json only
    terminal.start()
    terminal.until("● 1 running")
    terminal.keys("x")
    terminal.until("Stop study quick?")
    terminal.keys("y")
    until(study.stop_path.exists, terminal.screen)
    process.signal(signal.SIGCONT)
    assert process.wait(200) == 143
    terminal.until("0/3 · ■ stopped")  # the study, not only its trial
    status, asked, begun = study.status(), study.study(), study.states()
    assert status is not None and status.state == "stopped" and status.finished < 3
    assert asked is not None and asked.experiment.seed == 7
    terminal.keys("R")
    terminal.until("Resume study quick?")
    terminal.until("mnist-suite sweep --study quick --resume")
    terminal.keys("y")
    until(lambda: (now := study.status()) is not None and now.started > status.started, terminal.screen)
    wait_for_end(study, trials=3)
    terminal.until("✓ done")
    states = study.states()
    assert [state.trial.number for state in states] == [0, 1, 2]
    assert [state.id for state in states][: len(begun)] == [state.id for state in begun]  # continued, not started again
    assert all(state.trial.recipe.batch_size == 50 for state in states)
    assert study.study() == asked
    until(lambda: [row[0] for row in sorted(rows(terminal.screen()))] == ["0000", "0001", "0002"], terminal.screen)
    terminal.keys("q")
