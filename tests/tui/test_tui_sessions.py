"""Whole sessions in a real terminal (tmux) on real data: start, leave, come back, watch, export."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from suite.store import StudyDir

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
    limit=200,
)
'''


class Terminal:
    """A tmux server of our own with one dashboard in it."""

    def __init__(self, folder: Path, results: Path) -> None:
        self.socket, self.folder, self.results = folder / "tmux", folder, results

    def tmux(self, *words: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), *words], capture_output=True, text=True, check=False, env=environment
        )
        return done.stdout

    def start(self, size: str = "140x45") -> None:
        width, height = size.split("x")
        command = shlex.join([sys.executable, "-m", "suite.cli", "tui", "--results", str(self.results)])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, "-c", os.getcwd(), command)

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

    def until(self, wanted: str, seconds: float = 60) -> str:
        deadline = time.monotonic() + seconds
        while wanted not in (text := self.screen()):
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


def launch(terminal: Terminal) -> None:
    terminal.start()
    terminal.until("Press n to launch")
    terminal.keys("n")
    terminal.until("mnist-suite sweep mnist")  # the form is there, with its first field in focus
    time.sleep(0.5)
    terminal.type(str(terminal.folder / "quick.py"))
    terminal.keys("Tab")
    terminal.type("quick")
    terminal.until("Does it start?")
    terminal.keys("C-s")
    terminal.until("Start study quick?")
    terminal.keys("y")


def wait_for_end(study: StudyDir, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while (status := study.status()) is None or status.state == "running":
        assert time.monotonic() < deadline, status
        time.sleep(0.3)
    assert status.state == "done" and status.finished + status.pruned == 2


@pytest.mark.parametrize("leave", ["q", "SIGKILL"])
def test_a_sweep_outlives_the_dashboard(terminal: Terminal, leave: str) -> None:
    study = StudyDir(terminal.results, "quick")
    launch(terminal)
    deadline = time.monotonic() + 60
    while not (study.path / "console.log").exists():  # the child is there; let it not even have begun its work
        assert time.monotonic() < deadline, terminal.screen()
        time.sleep(0.05)
    if leave == "q":
        terminal.keys("q")
    else:
        os.kill(terminal.pid, signal.SIGKILL)
    terminal.close()
    wait_for_end(study)


def test_start_watch_and_export(terminal: Terminal) -> None:
    launch(terminal)
    terminal.until("● 1 running", 90)
    terminal.until("✓ 2 finished", 120)
    terminal.keys("Enter")
    terminal.until("validation accuracy")
    terminal.keys("l", "l", "l", "l")
    terminal.until("The most confident mistakes")
    terminal.keys("Escape", "e")
    terminal.until("mnist-suite export quick/")
    terminal.keys("C-a", "C-k")
    terminal.type(str(terminal.folder / "model"))
    terminal.keys("Enter")
    terminal.until("Exported to", 90)
    assert any((terminal.folder / "model").glob("*.safetensors"))
    terminal.keys("q")


def test_a_running_sweep_is_stopped(terminal: Terminal) -> None:
    (terminal.folder / "quick.py").write_text(EXPERIMENT.replace("epochs=2", "epochs=2000"))
    study = StudyDir(terminal.results, "quick")
    launch(terminal)
    terminal.until("● 1 running", 90)
    terminal.keys("x")
    terminal.until("Stop study quick?")
    terminal.keys("y")
    deadline = time.monotonic() + 60
    while (status := study.status()) is None or status.state == "running":
        assert time.monotonic() < deadline, terminal.screen()
        time.sleep(0.2)
    assert status.state == "stopped"
    terminal.until("stopped")
    terminal.keys("q")
