"""The number of CPU cores that the suite uses, and the devices that it spreads trials over."""

import os

import pytest
import torch

from suite.errors import InputError
from suite.hardware.device import answers, chosen, cores, pick, sees_only


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


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("auto", [0, 1, 2, 3]),
        ("cuda", [0, 1, 2, 3]),
        ("cuda:2", [2]),
        ("cuda:1,cuda:3", [1, 3]),
        ("cuda:3, cuda", [3, 0]),
    ],
)
def test_the_devices_that_trials_are_spread_over(wanted: str, indices: list[int]) -> None:
    assert chosen(wanted) == [torch.device("cuda", index) for index in indices]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("cuda:1,cuda:1", "different CUDA devices"),
        ("cuda,cuda:0", "different CUDA devices"),
        ("cpu,cuda:1", "different CUDA devices"),
        ("cuda:1,cuda:4", r"'cuda:4' is not here: this machine shows 4"),
        ("cuda:1,", "no device ''"),
        ("cuda:1;cuda:2", "no device"),
    ],
)
def test_a_list_names_different_cuda_devices(wanted: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        chosen(wanted)


@pytest.mark.usefixtures("four_gpus")
def test_commands_of_one_device_refuse_a_list() -> None:
    with pytest.raises(InputError, match="uses one device"):
        pick("cuda:1,cuda:2")


def test_without_gpus_trials_are_spread_over_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("auto") == [pick("auto")]
    assert chosen("cpu") == [torch.device("cpu")]
    assert answers(torch.device("cpu")) and sees_only(torch.device("cpu")) == {}


@pytest.mark.parametrize(
    ("visible", "index", "seen"),
    [(None, 2, "2"), ("5,7", 1, "7"), ("GPU-a, GPU-b", 1, "GPU-b"), ("MIG-x", 0, "MIG-x"), ("", 0, "0")],
)
def test_a_worker_sees_its_device_under_the_name_that_we_were_given(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int, seen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert sees_only(torch.device("cuda", index)) == {"CUDA_VISIBLE_DEVICES": seen}


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it may answer")
def test_a_device_that_is_not_there_does_not_answer() -> None:
    assert not answers(torch.device("cuda"))
