"""What this machine is doing, and how everybody who writes below the results directory is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite.store.study import STALE_SECONDS
from tui.model.snapshot import Snapshot


@dataclass(frozen=True)
class Gpu:
    name: str
    busy: float | None  # 0 to 1
    used: int | None  # bytes
    total: int | None
    watts: float | None
    limit: float | None  # watts
    celsius: int | None


@dataclass(frozen=True)
class Sample:
    """This machine, now."""

    host: str
    cores: tuple[float, ...]  # 0 to 1 each
    load: tuple[float, float, float]
    used: int  # bytes of memory
    total: int
    free_disk: int | None  # bytes, where the results lie
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Writer:
    """One process that writes: a controller or a trial."""

    name: str
    host: str
    pid: int
    silent: float  # seconds since its last write
    health: str  # "ok", "stale", "gone"


def writers(snapshot: Snapshot, now: float, here: str, alive: Callable[[int], bool]) -> list[Writer]:
    """Everybody who should be writing. Judged by their own files, and by the pid where it is one of ours."""
    found: list[Writer] = []

    def add(name: str, host: str, pid: int, last: float) -> None:
        silent = max(0.0, now - last)
        gone = host == here and not alive(pid)
        found.append(Writer(name, host, pid, silent, "gone" if gone else "stale" if silent > STALE_SECONDS else "ok"))

    for view in snapshot.studies:
        if view.status is not None and view.status.state == "running":
            add(f"{view.name} (controller)", view.status.host, view.status.pid, view.status.heartbeat)
        for run in view.runs:
            if run.row.state in ("running", "stale") and run.started is not None:
                add(f"{view.name}/{run.row.trial}", run.started.host, run.started.pid, run.last)
    return found


class Sampler:
    """Asks psutil and, where there is one, NVIDIA's library. Slow the first time: call it off the UI thread."""

    def __init__(self, results: Path, host: str) -> None:
        self.results, self.host = results, host
        self._nvml: bool | None = None

    def __call__(self) -> Sample:
        import psutil

        memory = psutil.virtual_memory()
        try:
            free = shutil.disk_usage(self.results).free
        except OSError:
            free = None
        return Sample(
            host=self.host,
            cores=tuple(part / 100 for part in psutil.cpu_percent(percpu=True)),
            load=psutil.getloadavg(),
            used=memory.total - memory.available,
            total=memory.total,
            free_disk=free,
            gpus=self._gpus(),
        )

    def _gpus(self) -> tuple[Gpu, ...]:
        if self._nvml is False:
            return ()
        try:
            import pynvml

            if self._nvml is None:
                pynvml.nvmlInit()
                self._nvml = True
            return tuple(self._gpu(pynvml, i) for i in range(pynvml.nvmlDeviceGetCount()))
        except Exception:  # no driver, no library, no permission: there is no GPU to show
            self._nvml = False
            return ()

    @staticmethod
    def _gpu(nvml, index: int) -> Gpu:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)

        def ask(question: Callable[[], float]) -> float | None:
            try:
                return question()
            except nvml.NVMLError:
                return None  # not every card tells everything

        name = nvml.nvmlDeviceGetName(handle)
        busy = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        used = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        total = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        watts = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        limit = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
        celsius = ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return Gpu(
            name if isinstance(name, str) else name.decode(),
            busy,
            int(used) if used is not None else None,
            int(total) if total is not None else None,
            watts,
            limit,
            int(celsius) if celsius is not None else None,
        )
