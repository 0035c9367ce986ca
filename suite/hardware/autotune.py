"""What is fastest on this processor: tried once for each kind of training, kept in the cache, shown by `doctor`.

A GPU needs none of it: bfloat16 and channels last win there. On a CPU the type of the arithmetic decides by factors,
either way: plain convolutions gain from bfloat16 where the processor has it, depthwise ones lose.
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from suite.errors import WorkError
from suite.hardware import device
from suite.store.files import cache_dir, write_atomic

VERSION = 2  # raise when what is measured changes

BATCH = 64

ROUNDS = 4  # of each candidate, in turn; the first is not counted

MARGIN = 1.15  # by which another type must beat the expected one: so that noise decides nothing

PATIENCE = 3.0  # seconds after which the expected one is taken untried


@dataclass(frozen=True)
class Finding:
    """One measurement: milliseconds of a training step of 64 inputs by type, at its fastest, and what was chosen."""

    what: str  # backbone, size and strategy
    milliseconds: dict[str, float]
    chosen: str
    processor: str
    threads: int
    torch: str


def precision(wanted: str, place: torch.device, model: nn.Module, shape: tuple[int, ...], what: str) -> torch.dtype:
    """The arithmetic's type for training `model` on inputs of `shape`; `what` names them for a person.

    'auto' on a CPU with bfloat16 takes what is measured to be faster. Raises InputError for a type the device lacks.
    """
    expected = device.precision(wanted, place, model, training=True)
    if wanted != "auto" or place.type != "cpu" or not device.cpu_has_bf16():
        return expected
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = [VERSION, what, list(shape), trained, device.processor(), torch.get_num_threads(), torch.__version__]
    path = _folder() / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.json"
    found = _read(path)
    if found is None:
        times = _race(model, shape, device.name_of(expected))
        chosen = device.name_of(expected)
        best = min(times, key=lambda name: times[name])
        if times[best] * MARGIN < times.get(chosen, 0.0):
            chosen = best
        found = Finding(what, times, chosen, device.processor(), torch.get_num_threads(), str(torch.__version__))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(asdict(found)))
        except (OSError, WorkError):  # a cache that cannot be written: measured again next time
            pass
    return device.DTYPES[found.chosen]


def findings() -> list[Finding]:
    """All that was measured for this processor and this torch."""
    here = [found for path in sorted(_folder().glob("*.json")) if (found := _read(path)) is not None]
    return [f for f in here if (f.processor, f.torch) == (device.processor(), str(torch.__version__))]


def _folder() -> Path:
    return cache_dir() / "tuning"


def _read(path: Path) -> Finding | None:
    try:
        found = Finding(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.chosen in device.DTYPES else None


def _race(model: nn.Module, shape: tuple[int, ...], expected: str) -> dict[str, float]:
    """Milliseconds of a training step of a copy at its fastest, fp32 and bf16 in turn; nothing where one takes long."""
    with torch.random.fork_rng(devices=[]):
        racer = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
        inputs = torch.randn(BATCH, *shape)
        if len(shape) == 3:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {expected: [], **{n: [] for n in ("fp32", "bf16") if n != expected}}
        began = time.perf_counter()
        for number in range(ROUNDS):
            for name in times:
                seconds = _step(racer, inputs, device.DTYPES[name])
                if number:
                    times[name].append(seconds)
                if number == 0 and time.perf_counter() - began > PATIENCE:
                    return {}
    return {name: round(1000 * min(seconds), 3) for name, seconds in times.items()}  # load can only add


def _step(model: nn.Module, inputs: torch.Tensor, dtype: torch.dtype) -> float:
    begin = time.perf_counter()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        scores = model(inputs)
    F.cross_entropy(scores.float(), torch.zeros(len(inputs), dtype=torch.long)).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - begin


# --- threads and workers ---------------------------------------------------------------------------------------------


def workers(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[int, dict[str, float]]:
    """How many trials of this model at once use all cores best, and the milliseconds of a step by threads.

    Threads that make one step little faster are better spent on a trial each: measured, two single-thread workers did
    1.6 times the work of one with two threads for `net`, and less for `cnn`.
    """
    cores = device.cores()
    before = torch.get_num_threads()
    times: dict[str, list[float]] = {"1": [], str(cores): []}
    racer = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    inputs = torch.randn(BATCH, *shape)
    try:
        for number in range(2 * ROUNDS):
            for threads, seconds in times.items():
                torch.set_num_threads(int(threads))
                spent = _step(racer, inputs, dtype)
                if number > 1:
                    seconds.append(spent)
    finally:
        torch.set_num_threads(before)
    fastest = {threads: 1000 * min(seconds) for threads, seconds in times.items()}
    gain = fastest["1"] / fastest[str(cores)]
    return (cores if gain < 0.75 * cores else 1), fastest


# --- memory ----------------------------------------------------------------------------------------------------------


@cache
def keep_memory() -> None:
    """Let the C library keep freed memory: otherwise each step's large tensors are handed back to the kernel and come
    again page by page. Measured at 1.4 times the speed where that happened; glibc alone knows these settings."""
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # of mallopt(3)
    try:
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 1 << 30)
        library.mallopt(top_pad, 64 << 20)
    except (OSError, AttributeError):
        pass


def as_rows() -> dict[str, Any]:
    """The findings as `doctor` shows them."""
    return {
        f"{f.what}, {f.threads} threads": f"{f.chosen} ("
        + ", ".join(f"{name} {value:g} ms a step" for name, value in f.milliseconds.items())
        + ")"
        for f in findings()
    }
