"""Devices, CPU cores and precisions of this machine, and their names in records."""

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
from suite.hardware.cores import cores
from suite.hardware.memory import ran_out

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick(wanted: str) -> torch.device:
    """Resolve 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps' to a device that is available here.

    'auto' is the first CUDA device, else Apple's GPU (mps), else the CPU. Raises InputError for an unknown name, for
    a list, which only `chosen` takes, and for a device that this machine lacks.
    """
    if wanted == "auto":
        if cuda_devices():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if "," in wanted:
        raise InputError(f"--device {wanted}: this command uses one device; only `sweep` spreads trials over several.")
    kind, _, index = wanted.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise InputError(f"There is no device '{wanted}'; take auto, cpu, cuda, cuda:N or mps.")
    if kind == "cuda":
        count = cuda_devices()
        if int(index or 0) >= count:
            raise InputError(
                f"Device '{wanted}' is not here: this machine shows {count} CUDA devices. Take --device auto or cpu, "
                "or look at CUDA_VISIBLE_DEVICES and the driver (`mnist-suite doctor`)."
            )
        return torch.device("cuda", int(index or 0))
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device 'mps' is not here; take --device auto or cpu.")
    return torch.device(kind)


def chosen(wanted: str) -> list[torch.device]:
    """The devices over which trials that run at once are spread.

    'auto' and 'cuda' stand for all CUDA devices that this process sees; other names are resolved by `pick`, and
    several CUDA devices are separated by commas. Raises InputError as `pick` does, for a list of other devices, and for
    a device named twice.
    """
    found = [pick(name.strip()) for name in wanted.split(",")]
    if wanted in ("auto", "cuda") and found[0].type == "cuda":
        return [torch.device("cuda", index) for index in range(cuda_devices())]
    if len(found) > 1 and (len(set(found)) < len(found) or any(place.type != "cuda" for place in found)):
        raise InputError(f"--device {wanted}: a list names different CUDA devices, such as cuda:1,cuda:3.")
    return found


def cuda_devices() -> int:
    """Number of CUDA devices that this process sees: those of $CUDA_VISIBLE_DEVICES where it is set."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def sees_only(place: torch.device) -> dict[str, str]:
    """Variables of the environment for a process that is to see the CUDA device `place` alone, as its cuda:0.

    They must be set before it starts. Empty for other devices.
    """
    if place.type != "cuda":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in visible.split(",")] if visible.strip() else []  # numbers or UUIDs
    index = place.index or 0
    return {"CUDA_VISIBLE_DEVICES": names[index] if index < len(names) else str(index)}


def answers(place: torch.device) -> bool:
    """Whether a CUDA device carries out work; True for other devices, and for one whose memory is full."""
    if place.type != "cuda":
        return True
    try:
        torch.zeros(1, device=place).add_(1).item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the second
        return ran_out(error)
    return True


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor has instructions for bfloat16 products (AVX-512 BF16, AMX or Arm's BF16)."""
    flags = ""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def depthwise(model: nn.Module) -> bool:
    """Whether the model has depthwise convolutions: one group per input channel."""
    return any(isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels for m in model.modules())


def precision(wanted: str, device: torch.device, model: nn.Module, *, training: bool) -> torch.dtype:
    """Resolve 'auto', 'fp32', 'bf16' or 'fp16' to the dtype of autocast for `model` on `device`.

    'auto' is bfloat16 where the hardware supports it and it was measured to be faster, else float32. On a CPU it is
    slower for training depthwise convolutions, whose backward pass takes two to three times as long in it.
    Raises InputError for fp16 on a CPU.
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
    """The name of a dtype in `DTYPES`: 'fp32', 'bf16' or 'fp16'."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def hardware(device: torch.device) -> str:
    """A description for records: the GPU's name, or the processor's name with the number of usable cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = cores()
    return f"{processor()}, {count} core{'s' if count > 1 else ''}"


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished all queued work. No effect on a CPU, whose operators are synchronous."""
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
    """The processor's model name; its architecture where the system does not tell the name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
