"""Controllers on two hosts. The second host is a process with a host name of its own; that a lock does not reach it,
as on some network disks, is a lock file that is gone."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from suite.store.study import StudyDir

CLONE_NEWUTS = 0x04000000


def can_be_another_host() -> bool:
    code = f"import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare({CLONE_NEWUTS}) != 0)"
    return hasattr(ctypes.CDLL(None), "unshare") and subprocess.run([sys.executable, "-c", code]).returncode == 0


pytestmark = pytest.mark.skipif(not can_be_another_host(), reason="a process may not take another host name here")


def test_a_controller_on_another_host_is_left_alone(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "small")
    first = start("sweep", experiment, "--results", tmp_path, host="first")
    faults.wait_for(lambda: first.poll() is not None or faults.events_of(tmp_path))
    (directory.path / "controller.lock").unlink()
    second = start("sweep", experiment, "--resume", "--results", tmp_path, host="second")
    figures.fault("second controller")
    assert second.wait() == 2, second.errors
    assert f"already has a controller: pid {first.pid} on first" in second.errors
    assert first.wait() == 0, first.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def test_a_controller_that_was_taken_for_dead_gives_way(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    """Its host stands still for so long that its lock is lost and another host finishes the study; then it wakes up."""
    directory = StudyDir(tmp_path, "small")
    first = start("sweep", experiment, "--results", tmp_path, host="first")
    faults.wait_for(lambda: first.poll() is not None or list(directory.path.glob("trials/*/checkpoint.json")))
    first.signal(signal.SIGSTOP)
    figures.fault("frozen host")
    (directory.path / "controller.lock").unlink()
    status = json.loads(directory.status_path.read_text())
    directory.status_path.write_text(json.dumps(status | {"heartbeat": time.time() - 57}))
    os.utime(directory.status_path, (time.time() - 57,) * 2)
    second = start("sweep", experiment, "--resume", "--results", tmp_path, host="second")
    assert second.wait() == 0, second.errors
    assert f"pid {first.pid} on first was at work on it just now" in second.errors
    before = {p: p.read_bytes() for p in directory.path.rglob("*.*") if p.suffix in (".json", ".safetensors")}
    first.signal(signal.SIGCONT)
    assert first.wait() == 1, first.errors
    assert "Traceback" not in first.errors
    assert {p: p.read_bytes() for p in before} == before
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def test_stop_reaches_another_host_and_a_request_left_over_stops_nobody(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "small")
    first = start("sweep", experiment, "--results", tmp_path, host="first")
    faults.wait_for(lambda: first.poll() is not None or faults.events_of(tmp_path))
    asked = start("stop", "small", "--results", tmp_path, host="second")
    assert asked.wait() == 0, asked.errors
    assert f"Asked pid {first.pid} on first" in asked.output
    figures.fault("stop request")
    assert first.wait() == 143, first.errors
    assert not directory.stop_path.exists()
    killed = start("sweep", experiment, "--resume", "--results", tmp_path, host="second")
    faults.wait_for(lambda: killed.poll() is not None or f'"pid": {killed.pid}' in directory.status_path.read_text())
    killed.signal(signal.SIGKILL)
    figures.fault("controller")
    killed.wait()
    late = start("stop", "small", "--results", tmp_path, host="second")
    assert late.wait() == 0, late.errors
    assert directory.stop_path.exists() or "not running" in late.output
    last = start("sweep", experiment, "--resume", "--results", tmp_path, host="second")
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    assert not os.path.exists(directory.stop_path)
