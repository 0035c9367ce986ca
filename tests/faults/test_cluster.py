"""Trials on a real Ray cluster: its processes killed, nodes that do not see the results, and who may send it work."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.store.events import EventReader
from suite.store.study import StudyDir

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


def can_hide() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def shared(lasting_cluster) -> dict[str, str]:
    """How to reach a cluster that several tests use and none ends."""
    return lasting_cluster()


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["shared", "apart"])
def test_workers_and_controllers_are_killed_and_it_comes_out_bit_for_bit(
    start, request, cluster, experiment: Path, reference, tmp_path: Path, seed: int, figures, faults, apart: bool
) -> None:
    """Sequentially, on a node that sees the results directory and on one that does not."""
    if apart and not can_hide():
        pytest.skip("cannot hide a directory from a process here")
    chance = random.Random(seed)
    reach = cluster(apart=True) if apart else request.getfixturevalue("shared")
    directory = StudyDir(tmp_path, "small")
    command = ("sweep", experiment, "--resume", "--engine", "ray", "--results", tmp_path)

    def until_it_works(run: Any) -> None:
        before = faults.events_of(tmp_path)
        faults.wait_for(
            lambda: (
                run.poll() is not None
                or (faults.events_of(tmp_path) > before and list(directory.path.glob("trials/*/checkpoint.json")))
            )
        )
        time.sleep(chance.uniform(0, 0.3))

    for number in (signal.SIGKILL,) if apart else (signal.SIGKILL, signal.SIGTERM):
        run = start(*command, **reach)
        until_it_works(run)
        for pid in faults.pids(directory):
            if faults.alive(pid):
                os.kill(pid, signal.SIGKILL)
                figures.fault("worker")
        until_it_works(run)
        run.signal(number)
        if run.wait() == 0:
            break
        assert run.wait() == (143 if number == signal.SIGTERM else -number), run.errors
        figures.fault("signal" if number == signal.SIGTERM else "controller")
    last = start(*command, **reach)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    started = [line.event for t in directory.trials() for line in EventReader(t.events).poll() if line.seq]
    assert any(event.kind == "started" and event.step > 0 for event in started)  # from a checkpoint
    assert all((trial.path / "console.log").exists() for trial in directory.trials())


@pytest.mark.slow
def test_a_study_whose_cluster_has_gone_goes_on_elsewhere(
    start, cluster, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    reach = {**cluster(), "RAY_gcs_rpc_server_reconnect_timeout_s": "12"}
    directory = StudyDir(tmp_path, "small")
    run = start("sweep", experiment, "--engine", "ray", "--results", tmp_path, **reach)
    faults.wait_for(lambda: run.poll() is not None or faults.events_of(tmp_path))
    cluster.end()
    figures.fault("cluster")
    assert run.wait() == 1
    assert "has gone. No trial is lost" in run.errors
    last = start("sweep", experiment, "--resume", "--results", tmp_path)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def test_a_cluster_of_our_own_ends_with_its_controller(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    """No address: one is started for the time, which asks for a token."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    directory = StudyDir(tmp_path, "small")
    command = ("sweep", experiment, "--resume", "--engine", "ray", "--results", tmp_path)
    run = start(*command, RAY_TMPDIR=folder, RAY_ADDRESS="")
    faults.wait_for(lambda: run.poll() is not None or faults.pids(directory))
    ours = {*psutil.Process(run.pid).children(recursive=True)}
    assert any(process.pid in faults.pids(directory) for process in ours)
    servers = [process for process in ours if process.name() in ("gcs_server", "raylet")]
    assert [process.environ().get("RAY_AUTH_MODE") for process in servers] == ["token", "token"]
    run.signal(signal.SIGKILL)
    figures.fault("controller")
    left = {*faults.pids(directory), *(server.pid for server in servers)}
    faults.wait_for(lambda: not any(faults.alive(pid) for pid in left), 60)
    last = start(*command, RAY_TMPDIR=folder, RAY_ADDRESS="")
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    for process in ours:  # Ray's own agents sleep on for minutes
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_cluster_asks_who_sends_it_work_and_one_that_does_not_is_refused(
    start, shared, cluster, experiment: Path, tmp_path: Path
) -> None:
    command = ("sweep", experiment, "--engine", "ray", "--results", tmp_path)
    stranger = start(*command, **{**shared, "RAY_AUTH_TOKEN": "0" * 64})
    open_to_all = cluster(mode="disabled")
    careless = start(*command, "--study", "open", **{**open_to_all, "RAY_AUTH_MODE": "token"})
    meant = start(*command, "--study", "meant", "--trials", 1, **open_to_all)
    assert stranger.wait() == 2, stranger.errors
    assert "asks for another token" in stranger.errors
    assert careless.wait() == 1
    assert "RAY_AUTH_MODE=token on all nodes" in careless.errors
    assert meant.wait() == 0, meant.errors
    assert not [s for s in StudyDir(tmp_path, "open").states() if s.record or s.started]
