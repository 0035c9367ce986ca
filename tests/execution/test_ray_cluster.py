"""What of the Ray engine needs no cluster; tests/faults/test_cluster.py has the rest."""

from __future__ import annotations

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
