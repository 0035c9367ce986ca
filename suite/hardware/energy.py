"""Energy and peak memory of a trial while it runs.

Processor energy comes from the RAPL counters of Intel and AMD
(https://docs.kernel.org/power/powercap/powercap.html), GPU energy from NVML
(nvmlDeviceGetTotalEnergyConsumption). Both count for whole processor packages and GPUs, so a figure is reported only
if this process had the device practically to itself.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")

MAX_WATTS = 2000.0  # above what a package or a GPU draws; a higher average means that a counter wrapped or restarted

TICK_SECONDS = 10.0  # least time between two readings of the counters

EXCLUSIVE_SHARE = 0.9  # of all processor time; below it, a package's energy is not attributed to this process


class Meter:
    """Peak memory and energy of this process on `device` since construction."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.init()  # the next call fails in a process that has not used the GPU yet
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_resident_peak()
        self._counters, self._read_at = energy_counters(device), time.monotonic()
        self._joules, self._processor_seconds = 0.0, _processor_seconds()

    def memory(self) -> tuple[int, str]:
        """Peak memory in bytes, and its source: the CUDA allocator or the process's resident set."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device), "cuda allocator"
        return resident_peak(), "resident set"

    def tick(self) -> None:
        """Read the counters if the last reading is old. To be called repeatedly while the trial runs.

        A processor's counters wrap within minutes, and another process may come to use the GPU.
        """
        if time.monotonic() - self._read_at > TICK_SECONDS:
            self._read_counters()

    def add(self, joules: float | None) -> None:
        """Add the energy of an earlier attempt at the same trial; None, for unknown, makes the sum unknown."""
        if joules is not None:
            self._joules += joules
        elif not isinstance(self._counters, str):
            self._counters = "unavailable (of an earlier attempt)"

    def energy(self) -> tuple[float | None, str]:
        """Energy in joules and its source ('rapl' or 'nvml'), or None and the reason why it is unknown."""
        self._read_counters()
        if isinstance(self._counters, str):
            return None, self._counters
        if self.device.type == "cuda":
            return self._joules, "nvml"
        own, total = (now - start for now, start in zip(_processor_seconds(), self._processor_seconds))
        if own < EXCLUSIVE_SHARE * total:
            return None, "unattributable (the processor is shared)"
        return self._joules, "rapl"

    def _read_counters(self) -> None:
        """Add the energy since the last reading. After a failure the sum stays unknown."""
        before, elapsed = self._counters, time.monotonic() - self._read_at
        if isinstance(before, str):
            return
        now = energy_counters(self.device)
        self._counters, self._read_at = now, time.monotonic()
        if isinstance(now, str):
            return
        joules = joules_between(before, now, elapsed)
        if joules is None:
            self._counters = "unavailable"
            return
        self._joules += joules


def reset_resident_peak() -> None:
    """Reset the kernel's record of this process's peak memory, so that a trial's peak excludes earlier trials.

    See clear_refs in https://man7.org/linux/man-pages/man5/proc.5.html. No effect on systems other than Linux.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_peak() -> int:
    """Peak resident set size of this process in bytes, since the last reset on Linux, else since its start."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


Counter = tuple[float, float]  # joules counted so far, and the number of joules at which the counter wraps to 0


def joules_between(before: list[Counter], now: list[Counter], seconds: float) -> float | None:
    """The energy between two readings; None where it cannot be told: a counter may have wrapped more than once, or
    differs by more than `MAX_WATTS`, or the counters are others than before."""
    if len(now) != len(before):
        return None
    total = 0.0
    for (previous, wraps_at), (current, _) in zip(before, now):
        joules, limit = (current - previous) % wraps_at, seconds * MAX_WATTS
        if not joules <= limit < wraps_at:
            return None
        total += joules
    return total


def energy_counters(device: torch.device) -> list[Counter] | str:
    """One counter per processor package, or that of the GPU; the reason if they cannot be read."""
    if device.type == "cuda":
        return _nvml_counters(device)
    # Top-level zones are packages; zones with a second colon are parts of them.
    packages = sorted(p for p in RAPL.glob("intel-rapl:*") if p.name.count(":") == 1) if device.type == "cpu" else []
    try:
        return [(_joules(p / "energy_uj"), _joules(p / "max_energy_range_uj")) for p in packages] or "unavailable"
    except (OSError, ValueError):  # on most systems only root may read them
        return "unavailable"


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6  # the file has microjoules


def gpu_handle(device: torch.device) -> tuple[Any, Any]:
    """The module pynvml and its handle of a GPU. Raises exceptions of several kinds where there is none."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def _nvml_counters(device: torch.device) -> list[Counter] | str:
    try:
        pynvml, handle = gpu_handle(device)
        others = {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)} - {os.getpid()}
        if others:
            return "unattributable (the GPU is shared)"
        return [(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, math.inf)]  # NVML has millijoules
    except Exception:  # pynvml has one exception class per cause; all mean that there is no figure
        return "unavailable"


def _processor_seconds() -> tuple[float, float]:
    """Processor time in seconds of this process, and of all processes of this machine. Only differences matter."""
    import psutil

    own, total = os.times(), psutil.cpu_times()._asdict()
    idle_or_in_user = ("idle", "iowait", "steal", "guest", "guest_nice")  # guest time is part of user time
    return own.user + own.system, sum(seconds for kind, seconds in total.items() if kind not in idle_or_in_user)
