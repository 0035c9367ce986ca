"""Peak memory and energy of a trial, with their sources."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest
import torch

from suite.hardware import energy
from suite.hardware.energy import Meter
from suite.hardware.load import Gauge

CPU = torch.device("cpu")
RANGE = 262_143_328_850  # microjoules at which one of Intel's counters wraps


@contextmanager
def resident(mebibytes: int) -> Iterator[None]:
    """So much memory, mapped and unmapped here: an allocator may serve it from what it keeps of earlier tests."""
    with mmap(-1, mebibytes << 20) as pages:
        for start in range(0, len(pages), PAGESIZE):
            pages[start] = 1
        yield


def test_peak_memory_covers_the_time_since_construction() -> None:
    before = Meter(CPU)
    with resident(400):
        level, source = before.memory()
    assert source == "resident set"
    meter = Meter(CPU)
    small, _ = meter.memory()
    assert small < level - 300 * 2**20
    with resident(200):
        pass
    assert meter.memory()[0] > small + 150 * 2**20


def test_energy_has_a_source_or_a_reason_for_its_absence() -> None:
    meter = Meter(CPU)
    time.sleep(0.05)
    joules, source = meter.energy()
    assert (joules is None) == source.startswith(("unavailable", "unattributable"))
    assert joules is None or joules >= 0


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The powercap files of one processor package, with a subzone that is part of it."""
    for zone in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text("100000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    monkeypatch.setattr(energy, "EXCLUSIVE_SHARE", 0.0)  # other tests may run at the same time
    return tmp_path / "intel-rapl:0"


def drawn(package: Path, *microjoules: int) -> tuple[float | None, str]:
    meter = Meter(CPU)
    for count in microjoules:
        time.sleep(0.01)
        (package / "energy_uj").write_text(f"{count}\n")
        meter._read_counters()
    return meter.energy()


def test_joules_are_the_difference_of_the_counters_also_across_a_wrap(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(package, 100_500_000) == (pytest.approx(0.5), "rapl")
    (package / "energy_uj").write_text(f"{RANGE - 250_000}\n")
    assert drawn(package, 250_000, 1_250_000) == (pytest.approx(1.5), "rapl")
    assert drawn(package, 250_000_000_000) == (None, "unavailable")  # more than the limit: the counter restarted
    monkeypatch.setattr(energy, "MAX_WATTS", 1e9)  # a limit at which it can wrap between two readings
    assert drawn(package, 250_000_000_001) == (None, "unavailable")


def test_power_is_that_between_two_readings(package: Path) -> None:
    gauge = Gauge(CPU)
    for began, now in ((100_000_000, 100_500_000), (RANGE - 250_000, 250_000)):  # also across a wrap
        (package / "energy_uj").write_text(f"{began}\n")
        gauge.read()
        gauge._read_at = time.monotonic() - 0.01
        (package / "energy_uj").write_text(f"{now}\n")
        watts = gauge.read()["watts"]
        assert watts is not None and 1 < watts <= 50.1
    (package / "energy_uj").write_text("90000000\n")  # it restarted
    assert gauge.read()["watts"] is None
    (package / "energy_uj").unlink()
    found = gauge.read()
    assert found["watts"] is None and found["gpu_busy"] is None and (found["memory_bytes"] or 0) > 2**20


def test_energy_of_a_shared_processor_or_an_unknown_attempt_is_unknown(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(CPU)
    meter.add(2.5)
    assert meter.energy() == (pytest.approx(2.5), "rapl")
    meter.add(None)
    assert meter.energy() == (None, "unavailable (of an earlier attempt)")
    monkeypatch.setattr(energy, "EXCLUSIVE_SHARE", 0.9)
    meter = Meter(CPU)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1.0)
        other.kill()
    assert meter.energy() == (None, "unattributable (the processor is shared)")
    (package / "energy_uj").unlink()
    assert Meter(CPU).energy() == (None, "unavailable")
