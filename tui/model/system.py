"""Load of this machine, and the health of all processes that write to the results directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.spec import Progress
from tui.model.snapshot import Ended, Snapshot


@dataclass(frozen=True)
class Gpu:
    """Load of one GPU; None: the driver does not tell."""

    name: str
    busy: float | None  # 0 to 1
    used: int | None  # bytes of memory
    total: int | None  # bytes of memory
    watts: float | None
    limit: float | None  # watts
    celsius: int | None


@dataclass(frozen=True)
class Sample:
    """Load of this machine at one time."""

    host: str
    cores: tuple[float, ...]  # 0 to 1 each
    load: tuple[float, float, float]
    used: int  # bytes of memory
    total: int  # bytes of memory
    free_disk: int | None  # bytes, on the disk of the results
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Writer:
    """One process that writes to the results directory: a controller or a trial."""

    name: str
    host: str
    pid: int
    silent: float  # seconds since its last write
    health: str  # "ok", "stale" (silent for long) or "gone" (no such process on this host)
    load: Progress | None = None  # of a trial: its newest report


@dataclass(frozen=True)
class Host:
    """A machine that writes to the results directory or has done so."""

    name: str
    writers: tuple[Writer, ...]
    ended: Ended  # trials that ended there

    @property
    def silent(self) -> float | None:
        """Seconds since the last write of a process there; None where none should be writing."""
        return min((writer.silent for writer in self.writers), default=None)


def hosts(snapshot: Snapshot, found: Sequence[Writer], here: str) -> list[Host]:
    """All hosts that files tell of: this one first, then those with writers, then those that trained last."""
    ended = snapshot.ended
    names = filter(None, dict.fromkeys([here, *(writer.host for writer in found), *ended]))
    every = [Host(name, tuple(w for w in found if w.host == name), ended.get(name, Ended())) for name in names]
    return sorted(every, key=lambda host: (host.name != here, not host.writers, -host.ended.last, host.name))


def writers(snapshot: Snapshot, now: float, here: str, alive: Callable[[int], bool]) -> list[Writer]:
    """The processes that should be writing, by their files; on the host `here` their pid is checked with `alive`."""
    found: list[Writer] = []

    def add(name: str, host: str, pid: int, last: float, stale: bool, load: Progress | None = None) -> None:
        silent = max(0.0, now - last)
        gone = host == here and not alive(pid)
        found.append(Writer(name, host, pid, silent, "gone" if gone else "stale" if stale else "ok", load))

    for view in snapshot.studies:
        if view.status is not None and view.status.state == "running":
            add(f"{view.name} (controller)", view.status.host, view.status.pid, view.status.heartbeat, view.stale)
        for run in view.runs:
            if run.row.state in ("running", "stale") and run.started is not None:
                add(
                    f"{view.name}/{run.row.trial}",
                    run.started.host,
                    run.started.pid,
                    run.last,
                    run.row.state == "stale",
                    run.progress,
                )
    return found


class Sampler:
    """Measures with psutil and, where present, NVML. Slow at first, so it is not to be called on the UI thread."""

    def __init__(self, results: Path, host: str) -> None:
        self.results, self.host = results, host
        self._nvml: bool | None = None  # whether NVML works; None: not tried yet

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
        except Exception:  # no driver, no library or no permission: no GPU is shown
            self._nvml = False
            return ()

    @staticmethod
    def _gpu(nvml, index: int) -> Gpu:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)

        def ask(question: Callable[[], float]) -> float | None:
            try:
                return question()
            except nvml.NVMLError:
                return None  # not every GPU supports every query

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
