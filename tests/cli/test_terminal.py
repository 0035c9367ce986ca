"""What is drawn where there is no terminal, and what is said where the program cannot run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pytest

from suite.cli import view
from suite.cli.console import _PlainConsole
from suite.cli.main import _import_advice, main
from suite.errors import InputError
from suite.interpreter import ROOT

VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "TERM", "CI")


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    master, slave = os.openpty()
    with open(slave, "w") as file:
        yield file
    os.close(master)


@pytest.mark.parametrize(
    ("environment", "live"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1"}, True),
        ({"CI": "false"}, True),
        ({"CI": "true"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, False),
        ({"TTY_COMPATIBLE": "0"}, False),
        ({"TTY_INTERACTIVE": "0"}, False),
    ],
)
def test_progress_is_live_on_real_terminals_only(
    monkeypatch: pytest.MonkeyPatch, terminal: TextIO, environment: dict[str, str], live: bool
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _PlainConsole(file=terminal).live is live
    with open(os.devnull, "w") as file:
        assert _PlainConsole(file=file).live is False


@pytest.mark.slow
def test_a_log_has_a_line_a_trial_whatever_asks_for_colour(suite: Callable[..., Any]) -> None:
    words = ("pretrain", "--backbone", "net", "--limit", "100", "--set", "epochs=1", "--set", "batch_size=32")
    done = suite(*words, FORCE_COLOR="1", TTY_COMPATIBLE="1")
    assert done.returncode == 0 and "1/1" in done.stderr
    assert not any(mark in done.stderr for mark in ("\x1b[?25", "\x1b[2K", "\x1b[1A", "\r"))


def test_the_dashboard_says_that_it_needs_a_terminal(suite: Callable[..., Any]) -> None:
    done = suite("tui")
    assert done.returncode == 2 and done.stdout == "" and "\x1b" not in done.stderr
    assert "needs a terminal" in done.stderr and "leaderboard --watch" in done.stderr and "--web" in done.stderr


def test_a_dumb_terminal_is_none_and_a_browser_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTUAL_DRIVER", raising=False)
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.setenv("TERM", "xterm")
    view._need_terminal()
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(InputError, match="TERM=dumb"):
        view._need_terminal()
    monkeypatch.setenv("TEXTUAL_DRIVER", "textual.drivers.web_driver:WebDriver")
    view._need_terminal()


def test_a_system_without_fcntl_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "mnist-suite: This program runs on Linux and macOS; on Windows, run it in WSL.\n"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (
            ImportError("x.so: failed to map segment: Cannot allocate memory"),
            "too little memory",
        ),
        (ModuleNotFoundError("No module named 'timm'"), "incomplete"),
        (ImportError("cannot import name 'Random' from 'random' (./random.py)"), "PYTHONPATH"),
    ],
)
def test_only_what_ran_out_of_memory_speaks_of_it(error: ImportError, word: str) -> None:
    advice = _import_advice(error)
    assert word in advice and str(error) in advice
    assert ("memory" in advice.removeprefix(str(error))) is (word == "too little memory")


def test_the_version_and_where_it_is_from(suite: Callable[..., Any]) -> None:
    done = suite("--version")
    assert done.returncode == 0 and done.stdout.startswith("mnist-suite ") and " from /" in done.stdout


@pytest.mark.parametrize(
    ("words", "lost", "code"),
    [
        (["data", "list"], {"out": "gone"}, 0),
        (["data", "list", "--json"], {"out": "gone"}, 0),
        (["--help"], {"out": "gone"}, 0),
        (["data", "list", "--json"], {"out": "/dev/full"}, 1),
        (["--help"], {"out": "/dev/full"}, 1),
        (["data", "list"], {"out": "/dev/full", "err": "gone"}, 1),
        (["evaluate", "--workers", "nan", "x"], {"out": "gone", "err": "gone"}, 2),
        (["evaluate", "--workers", "nan", "x"], {"err": "/dev/full"}, 2),
        (["evaluate", "x"], {"err": "/dev/full"}, 2),
    ],
)
def test_output_that_nobody_takes_changes_no_other_exit_code(
    start: Callable[..., Any], words: list[str], lost: dict[str, str], code: int
) -> None:
    """A pipe whose reader has gone is no error; a full disk is one. Python itself would exit with 120."""
    done = start(*words, asking=lost)
    assert done.wait() == code
    assert "err" in lost or len(done.errors.splitlines()) == (code != 0), done.errors


def test_an_interrupt_during_the_imports_leaves_no_traceback() -> None:
    """`run` is the first function of ours: what it imports takes most of a short command's time."""
    code = "import os, signal, sys; from suite.cli.__main__ import run;\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
    code += "class Finder:\n find_spec = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    code += "sys.meta_path.insert(0, Finder()); run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and done.stderr == ""
