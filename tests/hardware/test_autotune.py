"""Measured choices: made once per kind of training, kept in the cache, and without side effects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from suite.hardware import autotune, device
from suite.models import backbones
from suite.store.files import cache_dir

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))


def net() -> torch.nn.Module:
    return backbones.build("net", classes=10, channels=1, size=28, seed=0)


@pytest.mark.skipif(not device.cpu_has_bf16(), reason="this processor has no bfloat16: nothing to choose")
def test_a_kind_of_training_is_measured_once_and_listed() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    chosen = autotune.precision("auto", CPU, model, (1, 28, 28), "net at 28 px, scratch")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())  # the global generator is not advanced
    (finding,) = autotune.findings()
    assert set(finding.milliseconds) == {"fp32", "bf16"} and min(finding.milliseconds.values()) > 0
    assert device.DTYPES[finding.chosen] is chosen
    assert finding.chosen in autotune.as_rows()[f"net at 28 px, scratch, {torch.get_num_threads()} threads"]

    (path,) = (cache_dir() / "tuning").glob("*.json")
    other = {"fp32": "bf16", "bf16": "fp32"}[finding.chosen]
    path.write_text(path.read_text().replace(f'"chosen": "{finding.chosen}"', f'"chosen": "{other}"'))
    assert autotune.precision("auto", CPU, model, (1, 28, 28), "net at 28 px, scratch") is device.DTYPES[other]

    path.write_text("{")  # damaged: measured again
    autotune.precision("auto", CPU, model, (1, 28, 28), "net at 28 px, scratch")
    assert len(autotune.findings()) == 1


@pytest.mark.skipif(not device.cpu_has_bf16(), reason="this processor has no bfloat16: nothing to choose")
def test_a_model_with_long_steps_gets_the_expected_precision_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the warm-up takes longer than its limit, the choice falls to the expected precision instead of an error."""
    monkeypatch.setattr(autotune, "WARM_UP_SECONDS", 0.0)
    expected = device.precision("auto", CPU, net(), training=True)
    assert autotune.precision("auto", CPU, net(), (1, 28, 28), "net") is expected
    (finding,) = autotune.findings()
    assert finding.milliseconds == {}


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_an_explicit_precision_is_not_measured(wanted: str) -> None:
    assert autotune.precision(wanted, CPU, net(), (1, 28, 28), "net") is device.DTYPES[wanted]
    assert autotune.findings() == []


def test_precision_is_chosen_without_a_writable_cache(tmp_path: Path) -> None:
    (tmp_path / "tuning").write_text("a file where the folder would be")
    assert autotune.precision("auto", CPU, net(), (1, 28, 28), "net") in device.DTYPES.values()


def test_workers_are_one_or_all_cores_and_the_thread_count_is_restored() -> None:
    before = torch.get_num_threads()
    count, times = autotune.workers(net(), (1, 28, 28), torch.float32)
    assert count in (1, device.cores())
    assert set(times) == {"1", str(device.cores())} and min(times.values()) > 0
    assert torch.get_num_threads() == before
