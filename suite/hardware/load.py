"""What a device draws and holds at present, read while a trial runs: power, memory, and how busy a GPU is.

Unlike the energy of a trial (`energy.Meter`) these are readings of the whole GPU or of all processor packages, whoever
else uses them; memory is that of this process.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, TypedDict

import torch

from suite.hardware.energy import energy_counters, gpu_handle, joules_between


class Load(TypedDict):
    """Fields of `spec.Progress`; None where the device does not tell."""

    watts: float | None
    memory_bytes: int | None
    gpu_busy: float | None


class Gauge:
    """Reads the load of `device`. One reading takes about 0.1 ms; what cannot be read is not tried again."""

    def __init__(self, device: torch.device) -> None:
        import psutil

        self.device = device
        self._process = psutil.Process()
        self._gpu: tuple[Any, Any] | None = None  # pynvml, and its handle of the GPU
        if device.type == "cuda":
            with suppress(Exception):  # pynvml has one class a cause; all mean that there is no figure
                self._gpu = gpu_handle(device)
        self._counters = energy_counters(device) if device.type == "cpu" else ""
        self._read_at = time.monotonic()

    def read(self) -> Load:
        if self.device.type == "cuda":
            return {"watts": self._gpu_watts(), "memory_bytes": self._gpu_memory(), "gpu_busy": self._gpu_busy()}
        return {"watts": self._packages_watts(), "memory_bytes": self._process.memory_info().rss, "gpu_busy": None}

    def _packages_watts(self) -> float | None:
        """Mean power of the processor packages since the last reading."""
        before, since = self._counters, self._read_at
        if isinstance(before, str):
            return None
        self._counters, self._read_at = energy_counters(self.device), time.monotonic()
        if isinstance(self._counters, str):
            return None
        seconds = self._read_at - since
        joules = joules_between(before, self._counters, seconds)
        return round(joules / seconds, 1) if joules else None

    def _gpu_watts(self) -> float | None:
        return self._ask(lambda nvml, handle: round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1))

    def _gpu_busy(self) -> float | None:
        return self._ask(lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

    def _gpu_memory(self) -> int:
        return torch.cuda.memory_allocated(self.device)

    def _ask(self, question: Any) -> float | None:
        if self._gpu is None:
            return None
        nvml, handle = self._gpu
        try:
            return question(nvml, handle)
        except nvml.NVMLError:  # not every GPU supports every query
            return None
