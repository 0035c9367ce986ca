"""The number of CPU cores that the suite uses."""

import os

import pytest

from suite.hardware.device import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_cores_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= cores() <= len(before)


@pytest.mark.parametrize(("value", "limit"), [("1", 1), ("100000", None), ("0", None), ("many", None), ("", None)])
def test_omp_num_threads_is_an_upper_bound(monkeypatch: pytest.MonkeyPatch, value: str, limit: int | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    unlimited = cores()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cores() == (limit or unlimited)
