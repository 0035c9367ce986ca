"""What of the Ray engine needs no cluster; tests/faults/test_cluster.py has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.execution.ray_cluster import threads_for


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


SLOW = """
import os, sys, time
from pathlib import Path

import ray

from suite.execution.job import NO_LIMITS
from suite.execution.ray_cluster import Cluster

shutdown = ray.shutdown


def slow_shutdown():
    time.sleep(6)
    shutdown()


ray.shutdown = slow_shutdown
first = Cluster(1, NO_LIMITS, "cpu", Path(sys.argv[1]))
first.close()
second = Cluster(1, NO_LIMITS, "cpu", Path(sys.argv[1]))
time.sleep(8)
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
