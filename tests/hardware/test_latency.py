"""Inference latency, within its budget of time and memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from suite.hardware import latency
from suite.hardware.activations import peak_bytes
from suite.hardware.budget import SHARE, WORD_SECONDS, Budget, result, share
from suite.hardware.flops import Counted
from suite.models import backbones
from suite.spec import Caps

CPU = torch.device("cpu")


def built(name: str, size: int = 28) -> torch.nn.Module:
    return backbones.build(name, classes=10, channels=1, size=size, seed=0)


class Clock:
    """A clock that only `Timed` advances."""

    now = 0.0
    passes: list[tuple[int, float]]  # inputs and seconds of each


class Timed(nn.Module):
    """A model whose pass takes `fixed` seconds and `each` for every input; of each input it makes `floats` numbers with
    2 * `work` FLOPs a number."""

    def __init__(self, fixed: float, each: float, floats: int = 1, work: int = 1) -> None:
        super().__init__()
        self.fixed, self.each, self.floats = fixed, each, floats
        self.layer = nn.Linear(work, floats, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "meta":
            return self.layer(x.flatten(1).expand(-1, self.layer.in_features))
        seconds = self.fixed + self.each * len(x)
        Clock.now += seconds
        Clock.passes.append((len(x), seconds))
        return x


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_measured", {})


@pytest.fixture
def _simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.now, Clock.passes = 0.0, []
    monkeypatch.setattr(latency, "device_time", lambda device: Clock.now)


def simulated(model: Timed, seconds: float) -> tuple[latency.Latencies, list[float]]:
    """The outcome of `measure`, and the simulated time at each of its words."""
    latency._measured.clear()
    Clock.now, Clock.passes = 0.0, []
    work = latency.measure(model, (1, 1, 1), CPU, seconds)
    words: list[float] = []
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, words
        words.append(Clock.now)


def test_latency_is_the_time_of_one_image() -> None:
    small = result(latency.one_image(built("net"), (1, 28, 28), CPU))
    large = result(latency.one_image(built("timm:resnet18", 64), (1, 64, 64), CPU))
    assert small is not None and large is not None
    assert 0 < small < large


@pytest.mark.usefixtures("_simulated")
def test_256_images_of_a_small_model_are_one_pass() -> None:
    found, words = simulated(Timed(0.001, 0.0001), seconds=latency.LEAST_SECONDS)
    assert found.one == pytest.approx(0.0011)
    assert found.batch_256 == pytest.approx(0.001 + 256 * 0.0001)
    assert found.source == "fastest of several passes"
    sizes = [size for size, _ in Clock.passes]
    assert sizes.count(1) == sizes.count(256) == latency.MAX_PASSES
    assert words == []
    before = len(Clock.passes)
    assert result(latency.measure(Timed(0.001, 0.0001), (1, 1, 1), CPU, 1.0)) == found
    assert len(Clock.passes) == before  # known by its architecture


@pytest.mark.usefixtures("_simulated")
def test_256_images_of_a_model_with_large_activations_are_several_passes() -> None:
    floats = 8 << 20  # 32 MiB an image
    found, _ = simulated(Timed(0.001, 0.0001, floats), seconds=latency.LEAST_SECONDS)
    largest = max(size for size, _ in Clock.passes)
    each, once = peak_bytes(Timed(0, 0, floats), (1, 1, 1))
    assert each * largest + once <= latency.ACTIVATION_BYTES < each * 2 * largest + once
    assert found.batch_256 == pytest.approx(256 / largest * (0.001 + largest * 0.0001))
    assert found.source.endswith(f"256 images in {256 // largest} passes of {largest}")


@pytest.mark.usefixtures("_simulated")
@pytest.mark.parametrize(("work", "batch"), [(100, 256), (10**6, 64), (10**7, 8), (10**8, 1)])
def test_256_images_of_a_model_with_much_work_are_several_passes(work: int, batch: int) -> None:
    found, _ = simulated(Timed(0.0, 0.0001, floats=100, work=work), seconds=1.0)
    assert {size for size, _ in Clock.passes} == {1, batch}
    assert found.batch_256 == pytest.approx(256 * 0.0001)


LARGE = st.sampled_from([1 << 20, 1 << 23])  # numbers made of an image


@pytest.mark.usefixtures("_simulated")
@given(fixed=st.floats(0, 5), each=st.floats(1e-5, 5), seconds=st.floats(0, 100), floats=LARGE)
def test_the_budget_is_exceeded_by_one_pass_at_most(fixed: float, each: float, seconds: float, floats: int) -> None:
    found, words = simulated(Timed(fixed, each, floats), seconds)
    times = [taken for _, taken in Clock.passes]
    assert sum(times) <= seconds * (1 + 1e-9) + times[-1]
    assert (found.one is None) == (3 * (fixed + each) > seconds * (1 + 1e-9))
    assert found.batch_256 is not None or "not measured" in found.source
    silent = next((at for at in words), Clock.now)
    assert silent <= max(WORD_SECONDS, times[0])  # a word before the first pass that ends after two seconds


@pytest.mark.usefixtures("_simulated")
def test_a_cap_on_latency_is_measured_whatever_it_takes() -> None:
    assert result(latency.one_image(Timed(10.0, 0.0), (1, 1, 1), CPU)) == pytest.approx(10.0)
    assert [size for size, _ in Clock.passes] == [1, 1, 1]


@given(st.floats(0, 1e6), st.floats(0, 10))
def test_a_budget_is_a_share_of_the_work(seconds: float, least: float) -> None:
    assert share(seconds, least=least) == max(least, SHARE * seconds)
    assert share(seconds, least=least, most=least) == least
    budget = Budget(seconds)
    assert budget.affords(seconds) and not budget.affords(2 * seconds + 1)


def test_an_exceeded_cap_is_named() -> None:
    counted = Counted(parameters=1000, trainable=10, forward_flops=5000, training_flops=9000)
    assert latency.exceeded_cap(None, counted, 0.002) is None
    assert latency.exceeded_cap(Caps(flops=5000, params=1000), counted, 0.002) is None
    assert "5,000 FLOPs an image, 4,999" in (latency.exceeded_cap(Caps(flops=4999), counted) or "")
    assert "1,000 parameters" in (latency.exceeded_cap(Caps(params=999), counted) or "")
    assert "2 ms for one image, 1 ms" in (latency.exceeded_cap(Caps(latency=0.001), counted, 0.002) or "")
    assert latency.exceeded_cap(Caps(latency=0.003), counted, 0.002) is None
    assert latency.exceeded_cap(Caps(latency=0.001), counted) is None
