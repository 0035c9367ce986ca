"""What of the Ray engine needs no cluster; tests/faults/test_cluster.py has the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.execution.ray_cluster import threads_for
from suite.execution.ray_connection import missing_module


@given(st.lists(st.integers(0, 200), max_size=8), st.integers(1, 64))
def test_every_worker_finds_room_and_no_more_would_do(cpus: list[int], workers: int) -> None:
    """By placing them one after another, as Ray does."""

    def fit(threads: int) -> bool:
        left, placed = list(cpus), 0
        for node in range(len(left)):
            while left[node] >= threads:
                left[node] -= threads
                placed += 1
        return placed >= workers

    found = threads_for(cpus, workers)
    assert (found == 0) == (sum(cpus) < workers)
    assert not found or fit(found)
    assert not fit(found + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "no Ray cluster answers there"), ("[::1]:99999", "answers"), ("ray://127.0.0.1:1", "own address")],
)
def test_an_address_where_nobody_listens_is_refused_at_once(suite, tmp_path, address: str, why: str) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    found = suite("sweep", "mnist", "--engine", "ray", "--limit", "400", RAY_ADDRESS=address)
    assert found.returncode == 2, found.stderr
    assert f"RAY_ADDRESS={address}: " in found.stderr
    assert why in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("study.json"))


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("... (pid=1, ip=10.0.0.7, actor_id=a)\nModuleNotFoundError: No module named 'suite'", ("suite", "10.0.0.7")),
        ("... (pid=1, ip=fe80::1, actor_id=a)\nNo module named 'torch._C'", ("torch", "fe80::1")),
        ("The actor is dead because its node has died.", None),
    ],
)
def test_a_missing_module_is_read_from_the_error(text: str, missing: tuple[str, str] | None) -> None:
    found = missing_module(RuntimeError(text))
    assert (found and (found.module, found.address)) == missing


@pytest.mark.slow
def test_auto_without_a_cluster_says_so(suite, tmp_path) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    words = ("--engine", "ray", "--limit", "400", "--trials", "4")
    found = suite("sweep", "mnist", *words, RAY_ADDRESS="auto", RAY_TMPDIR=str(tmp_path))
    assert found.returncode == 2, found.stderr
    assert "RAY_ADDRESS=auto: no Ray cluster runs on this machine" in found.stderr and "token" not in found.stderr
    assert found.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("study.json"))


@pytest.mark.slow
def test_a_node_that_lacks_the_package_is_named(suite, cluster, tmp_path) -> None:
    """A module of that name that cannot be imported stands before the installed one."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "suite.py").write_text("raise ModuleNotFoundError(\"No module named 'suite'\")")
    reached = cluster(PYTHONPATH=str(tmp_path / "bare"))
    words = ("--engine", "ray", "--limit", "400", "--trials", "4", "--quiet")
    found = suite("sweep", "mnist", *words, **reached)
    assert found.returncode == 1, found.stderr
    assert found.stderr.startswith(f"mnist-suite: {socket.gethostname()} has no mnist-suite: install it there")
    assert found.stderr.count("\n") == 1


SLOW = """
import os, sys, time
from pathlib import Path

import ray

from suite.execution.job import NO_LIMITS
from suite.execution.ray_cluster import Cluster

shutdown = ray.shutdown


def slow_shutdown():
    time.sleep(4)
    shutdown()


ray.shutdown = slow_shutdown
first = Cluster(1, NO_LIMITS, "cpu", Path(sys.argv[1]))
first.close()
second = Cluster(1, NO_LIMITS, "cpu", Path(sys.argv[1]))
time.sleep(5)
print(ray.is_initialized(), ray.get(ray.remote(lambda: 7).remote()))
second.close()
"""


@pytest.mark.slow
def test_a_cluster_may_follow_one_whose_shutdown_takes_long(cluster, tmp_path) -> None:
    """A shutdown that goes on in the background after `close` does not end the connection that is made next."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    patience = {"RAY_gcs_rpc_server_reconnect_timeout_s": "16"}  # `close` waits for an eighth of it
    environment = {**os.environ, **cluster(), **patience}
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.stdout.splitlines()[-1:] == ["True 7"], done.stderr
