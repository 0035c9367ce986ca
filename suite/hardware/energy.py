"""Energy and peak memory while a trial runs."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")  # Intel's and AMD's counters of the joules of each processor package

MOST_WATTS = 2000.0  # more than a package or GPU draws: beyond it a counter has wrapped round unseen, or begun anew

TICK_SECONDS = 10.0  # between two readings

ALONE = 0.9  # of all processor time: with less, what the package drew was not this process's


class Meter:
    """Peak memory and energy since its making."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_resident_peak()
        self._counters, self._read = _energy_counters(device), time.monotonic()
        self._joules, self._busy = 0.0, _processor_seconds()

    def memory(self) -> tuple[int, str]:
        """Peak bytes, and where the figure comes from."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device), "cuda allocator"
        return resident_peak(), "resident set"

    def tick(self) -> None:
        """Call it now and then: the counters of a processor wrap round within minutes, and a GPU may get company."""
        if time.monotonic() - self._read > TICK_SECONDS:
            self._take()

    def add(self, joules: float | None) -> None:
        """Count what an earlier attempt at the same work drew; None: not known, so neither is the sum."""
        if joules is not None:
            self._joules += joules
        elif not isinstance(self._counters, str):
            self._counters = "unavailable (of an earlier attempt)"

    def energy(self) -> tuple[float | None, str]:
        """Joules since the start, and the source or why there are none."""
        self._take()
        if isinstance(self._counters, str):
            return None, self._counters
        if self.device.type == "cuda":
            return self._joules, "nvml"
        own, everyone = (now - before for now, before in zip(_processor_seconds(), self._busy))
        if own < ALONE * everyone:
            return None, "unattributable (the processor is shared)"
        return self._joules, "rapl"

    def _take(self) -> None:
        """Add up what the counters have counted since they were last read; once they fail they stay out."""
        before, since = self._counters, time.monotonic() - self._read
        if isinstance(before, str):
            return
        now = _energy_counters(self.device)
        self._counters, self._read = now, time.monotonic()
        if isinstance(now, str):
            return
        for (first, range_), (last, _) in zip(before, now):
            drawn, most = (last - first) % range_, since * MOST_WATTS
            if not drawn <= most < range_ or len(now) != len(before):
                self._counters = "unavailable"
                return
            self._joules += drawn


def reset_resident_peak() -> None:
    """Let the kernel forget this process's peak, so that a trial is not charged for the one before it."""
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then the process's own
        Path("/proc/self/clear_refs").write_text("5")


def resident_peak() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


Counter = tuple[float, float]  # joules so far, and at how many it starts again from 0


def _energy_counters(device: torch.device) -> list[Counter] | str:
    """Running counts of joules, one a processor package or GPU; the reason where there are none."""
    if device.type == "cuda":
        return _nvml_energy(device)
    packages = sorted(p for p in RAPL.glob("intel-rapl:*") if p.name.count(":") == 1) if device.type == "cpu" else []
    try:
        return [(_joules(p / "energy_uj"), _joules(p / "max_energy_range_uj")) for p in packages] or "unavailable"
    except (OSError, ValueError):  # readable for root alone on most systems
        return "unavailable"


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def _nvml_energy(device: torch.device) -> list[Counter] | str:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        others = {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)} - {os.getpid()}
        if others:
            return "unattributable (the GPU is shared)"
        return [(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, math.inf)]
    except Exception:  # pynvml raises its own errors, one a cause; all mean the same here
        return "unavailable"


def _processor_seconds() -> tuple[float, float]:
    """Processor time of this process, and that of everything on this machine, since some moment of the past."""
    import psutil

    own, all_ = os.times(), psutil.cpu_times()._asdict()
    counted_twice_or_idle = ("idle", "iowait", "steal", "guest", "guest_nice")
    return own.user + own.system, sum(seconds for kind, seconds in all_.items() if kind not in counted_twice_or_idle)
