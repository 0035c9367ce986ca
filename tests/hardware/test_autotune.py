"""Measured choices: made once per kind of training, kept in the cache, and without side effects."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suite.hardware import autotune, device
from suite.hardware.activations import MEASUREMENT_BYTES, peak_bytes
from suite.hardware.budget import result
from suite.models import backbones
from suite.store.files import cache_dir

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))


def net() -> torch.nn.Module:
    return backbones.build("net", classes=10, channels=1, size=28, seed=0)


def precision(wanted: str, model: torch.nn.Module, what: str, images: int = 10**6) -> torch.dtype:
    return result(autotune.precision(wanted, CPU, model, (1, 28, 28), what, images))


@pytest.mark.skipif(not device.cpu_has_bf16(), reason="this processor has no bfloat16: nothing to choose")
def test_a_kind_of_training_is_measured_once_and_listed() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    chosen = precision("auto", model, "net at 28 px, scratch")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())  # the global generator is not advanced
    (finding,) = autotune.findings()
    assert set(finding.milliseconds) == {"fp32", "bf16"} and min(finding.milliseconds.values()) > 0
    assert device.DTYPES[finding.chosen] is chosen
    assert finding.chosen in autotune.as_rows()[f"net at 28 px, scratch, {torch.get_num_threads()} threads"]

    (path,) = (cache_dir() / "tuning").glob("*.json")
    other = {"fp32": "bf16", "bf16": "fp32"}[finding.chosen]
    path.write_text(path.read_text().replace(f'"chosen": "{finding.chosen}"', f'"chosen": "{other}"'))
    assert precision("auto", model, "net at 28 px, scratch") is device.DTYPES[other]

    path.write_text("{")  # damaged: measured again
    precision("auto", model, "net at 28 px, scratch")
    assert len(autotune.findings()) == 1


@dataclass
class Simulated:
    """Steps that take a given time for each input, by precision or number of threads."""

    each: dict[str, float]
    fixed: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list)  # inputs and seconds of each

    def __call__(self, model: object, inputs: torch.Tensor, dtype: torch.dtype) -> float:
        name = device.name_of(dtype) if "bf16" in self.each else str(torch.get_num_threads())
        seconds = self.fixed + self.each[name] * len(inputs)
        self.steps.append((len(inputs), seconds))
        return seconds

    def within(self, seconds: float) -> bool:
        """Whether no more than one step went beyond `seconds`."""
        return sum(taken for _, taken in self.steps) <= seconds * (1 + 1e-9) + max(taken for _, taken in self.steps)


TIMES = st.floats(1e-5, 10)


@given(fp32=TIMES, bf16=TIMES, fixed=st.floats(0, 1), images=st.integers(2, 10**6))
def test_a_race_of_precisions_keeps_to_its_budget(fp32: float, bf16: float, fixed: float, images: int) -> None:
    """Slow models have a choice too: what fits the budget is measured, else the expected precision is taken."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        patch.setenv("MNIST_SUITE_CACHE", cache)
        patch.setattr(device, "cpu_has_bf16", lambda: True)
        steps = Simulated({"fp32": fp32, "bf16": bf16}, fixed)
        patch.setattr(autotune, "_step_seconds", steps)
        expected = device.precision("auto", CPU, net(), training=True)
        chosen = precision("auto", net(), "net", images)
        assert steps.within(autotune.MOST_SECONDS)
        assert steps.within(max(autotune.LEAST_SECONDS, 0.05 * images * steps.steps[-1][1])) or len(steps.steps) < 3
        found = autotune.findings()
        if not found:
            assert chosen is expected
        else:
            assert set(found[0].milliseconds) == {"fp32", "bf16"}
            assert found[0].batch == steps.steps[-1][0] >= autotune.LEAST_BATCH


def race(monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, shape: tuple[int, ...], **each: float) -> Simulated:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    steps = Simulated(each)
    monkeypatch.setattr(autotune, "_step_seconds", steps)
    result(autotune.precision("auto", CPU, model, shape, "a model", 10**6))
    return steps


def test_a_slow_model_is_measured_on_fewer_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps on 64 inputs would take longer than the whole budget."""
    race(monkeypatch, net(), (1, 28, 28), fp32=0.02, bf16=0.05)
    (found,) = autotune.findings()
    assert autotune.LEAST_BATCH <= found.batch < autotune.BATCH
    assert found.chosen == "fp32"  # not the expected one


def test_a_model_with_large_activations_is_measured_on_fewer_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbones.build("timm:tf_efficientnet_lite0", classes=3, channels=3, size=224, seed=0)
    steps = race(monkeypatch, model, (3, 224, 224), fp32=1e-4, bf16=1e-4)
    each, once = peak_bytes(model, (3, 224, 224), training=True)
    largest = max(inputs for inputs, _ in steps.steps)
    assert largest * each + once <= MEASUREMENT_BYTES < 2 * largest * each + once


def test_a_model_that_no_budget_suffices_for_gets_the_expected_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = race(monkeypatch, net(), (1, 28, 28), fp32=5.0, bf16=5.0)
    assert autotune.findings() == []  # asked again by a longer training
    assert len(steps.steps) == 1


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_an_explicit_precision_is_not_measured(wanted: str) -> None:
    assert precision(wanted, net(), "net") is device.DTYPES[wanted]
    assert autotune.findings() == []


def test_precision_is_chosen_without_a_writable_cache(tmp_path: Path) -> None:
    (tmp_path / "tuning").write_text("a file where the folder would be")
    assert precision("auto", net(), "net") in device.DTYPES.values()


def test_workers_are_one_or_all_cores_and_the_thread_count_is_restored() -> None:
    before = torch.get_num_threads()
    count, times = result(autotune.workers(net(), (1, 28, 28), torch.float32, 10**6))
    assert count in (1, device.cores())
    assert set(times) == {"1", str(device.cores())} and min(times.values()) > 0
    assert torch.get_num_threads() == before


@given(one=TIMES, all_cores=TIMES, images=st.integers(2, 10**9))
def test_measuring_workers_keeps_to_its_budget(one: float, all_cores: float, images: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "cores", lambda: 2)
        steps = Simulated({"1": one, "2": all_cores})
        patch.setattr(autotune, "_step_seconds", steps)
        count, times = result(autotune.workers(net(), (1, 28, 28), torch.float32, images))
    assert steps.within(autotune.MOST_SECONDS)
    assert count == 1 if not times else set(times) == {"1", "2"}
