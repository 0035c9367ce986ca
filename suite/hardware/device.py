"""What the machine offers: devices, threads, precisions, and how to name them in a record."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from functools import cache
from pathlib import Path

import torch
from torch import nn

from suite.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick(wanted: str) -> torch.device:
    """'auto', 'cpu', 'cuda', 'cuda:1' or 'mps' as a device that works here. Raises InputError."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise InputError(f"There is no device '{wanted}'; take auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise InputError(
                f"Device '{wanted}' is not here: this machine shows {count} CUDA devices. Take --device auto or cpu, "
                "or look at CUDA_VISIBLE_DEVICES and the driver (`mnist-suite doctor`)."
            )
        return torch.device("cuda", int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device 'mps' is not here; take --device auto or cpu.")
    return torch.device(kind)


def cores() -> int:
    """CPU cores this process may use: its affinity, and no more than $OMP_NUM_THREADS."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else here


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX-512 BF16, AMX or Arm's BF16)."""
    flags = ""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def depthwise(model: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in model.modules())


def precision(wanted: str, device: torch.device, model: nn.Module, *, training: bool) -> torch.dtype:
    """The arithmetic's type. 'auto' takes bfloat16 where the hardware has it and it was measured to pay:
    on CPU not for training depthwise convolutions, whose backward pass is two to three times slower in it.
    Raises InputError for a precision the device lacks.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
        if device.type == "cpu" and cpu_has_bf16() and not (training and depthwise(model)):
            return torch.bfloat16
        return torch.float32
    if wanted == "fp16" and device.type == "cpu":
        raise InputError("Precision fp16 needs a GPU; take bf16 or fp32 on a CPU.")
    return DTYPES[wanted]


def name_of(dtype: torch.dtype) -> str:
    return next(name for name, known in DTYPES.items() if known == dtype)


def hardware(device: torch.device) -> str:
    """One line for records: the GPU's name, or the processor's with the cores in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {cores()} cores"


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished all queued work. No effect on a CPU, which works in step with its caller."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def device_time(device: torch.device) -> float:
    """`time.perf_counter()` after `device` has finished all queued work: the clock for timing work on it."""
    synchronize(device)
    return time.perf_counter()


@cache
def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
