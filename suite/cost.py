"""What a training costs: counted (parameters, FLOPs) or measured (seconds, bytes, joules), never guessed."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from suite.spec import Caps

RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counted:
    parameters: int
    trainable: int
    forward_flops: int  # per image
    training_flops: int  # per image: forward, and backward through what is trained


def count(model: nn.Module, shape: tuple[int, ...]) -> Counted:
    """Parameters and FLOPs of a model that takes one input of `shape`; a multiply-add is two FLOPs.

    Counted from the operators that run on the meta device, where attention is not hidden in one fused CPU
    kernel; convolutions and matrix products count, elementwise work does not (torch.utils.flop_counter).
    """
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    ghost = copy.deepcopy(model).to("meta")
    pair = torch.zeros(2, *shape, device="meta")  # two, since batch norm cannot train on one
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        ghost.eval()(pair)
    total = forward.get_total_flops()
    if trainable:
        with FlopCounterMode(display=False) as both:
            F.cross_entropy(ghost.train()(pair), torch.zeros(2, dtype=torch.long, device="meta")).backward()
        total = both.get_total_flops()
    return Counted(parameters, trainable, forward.get_total_flops() // 2, total // 2)


class Meter:
    """Peak memory and energy between its making and `read`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            reset_resident_peak()
        self._energy, self.energy_source = _energy_counter(device)

    def memory(self) -> tuple[int, str]:
        """Peak bytes, and where the figure comes from."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device), "cuda allocator"
        return resident_peak(), "resident set"

    def energy(self) -> tuple[float | None, str]:
        """Joules since the start, and the source or why there are none."""
        if self._energy is None:
            return None, self.energy_source
        now, source = _energy_counter(self.device)
        if now is None or now < self._energy:  # gone, wrapped round, or no longer ours alone
            return None, source if now is None else "unavailable"
        return now - self._energy, source


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


def _energy_counter(device: torch.device) -> tuple[float | None, str]:
    """A running count of joules and its source; None with the reason where there is none."""
    if device.type == "cuda":
        return _nvml_energy(device)
    try:
        packages = [p / "energy_uj" for p in RAPL.glob("intel-rapl:*") if p.name.count(":") == 1]
        if packages:
            return sum(int(p.read_text()) for p in packages) / 1e6, "rapl"
    except OSError:
        pass
    return None, "unavailable"


def _nvml_energy(device: torch.device) -> tuple[float | None, str]:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        others = {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)} - {os.getpid()}
        if others:
            return None, "unattributable (the GPU is shared)"
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000, "nvml"
    except Exception:  # pynvml raises its own errors, one a cause; all mean the same here
        return None, "unavailable"


@torch.inference_mode()
def latency(model: nn.Module, shape: tuple[int, ...], device: torch.device, repeats: int = 15, batch: int = 1) -> float:
    """Median seconds for a batch of inputs of `shape`, in fp32, after a short warm-up."""
    model.eval()
    inputs = torch.zeros(batch, *shape, device=device)
    if len(shape) == 3:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    times: list[float] = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        model(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times[3:])[repeats // 2]


def latency_256(model: nn.Module, shape: tuple[int, ...], device: torch.device, one: float) -> float | None:
    """`latency` of 256 inputs at once; None where, going by `one` input, it would take more than a few seconds."""
    return latency(model, shape, device, repeats=3, batch=256) if 256 * one < 1.0 else None


def beyond(caps: Caps | None, counted: Counted, measure: Callable[[], float]) -> str | None:
    """Which cap a model exceeds, as a sentence; its latency is measured only where it is capped."""
    if caps is None:
        return None
    if caps.flops is not None and counted.forward_flops > caps.flops:
        return f"cap: {counted.forward_flops:,} FLOPs an image, {caps.flops:,} are allowed"
    if caps.params is not None and counted.parameters > caps.params:
        return f"cap: {counted.parameters:,} parameters, {caps.params:,} are allowed"
    if caps.latency is not None and (seconds := measure()) > caps.latency:
        return f"cap: {1000 * seconds:.3g} ms for one image, {1000 * caps.latency:.3g} ms are allowed"
    return None
