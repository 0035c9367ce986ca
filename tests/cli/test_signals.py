"""How commands that start processes of their own end when they are asked to stop. Real processes and signals."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from suite.cli import main
from suite.cli.signals import cleaning_up
from suite.interpreter import command


@pytest.fixture
def silent_proxy() -> Iterator[str]:
    """The address of a server that takes connections and never answers, as a bad network does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_download_ends_with_the_command_that_started_it(tmp_path: Path, silent_proxy: str) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), silent_proxy)
    environment = {**os.environ, **proxies, "MNIST_SUITE_CACHE": str(tmp_path / "cache"), "no_proxy": ""}
    process = subprocess.Popen(command("data", "fetch", "emnist", "--quiet"), env=environment, stderr=subprocess.PIPE)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not children and time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.05)
    assert children
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


class _Slow:
    """An object whose finaliser takes long enough for a signal to arrive in it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_a_signal_in_a_finaliser_is_not_lost() -> None:
    gc.collect()
    with pytest.raises(SystemExit) as ended, cleaning_up():
        _Slow()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended.value.code == 143


def test_other_dropped_exceptions_are_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: seen.append(dropped.exc_type))

    class Failing:
        def __del__(self) -> None:
            raise KeyError

    with cleaning_up():
        Failing()
    assert seen == [KeyError]


def test_an_interrupt_after_the_command_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mnist-suite", "--version"])
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert main._run() == (0, "")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
