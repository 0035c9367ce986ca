"""Choices that are measured on this machine: precision of a training, and number of workers.

A GPU needs no measurement: bfloat16 and channels-last are the fastest there. On a CPU the precision changes the speed
by a factor of up to three in either direction: plain convolutions gain from bfloat16 where the processor supports it,
depthwise convolutions lose. Each kind of training is measured once and the result is kept in the suite's cache.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from suite.errors import WorkError
from suite.hardware import device
from suite.store.files import cache_dir, write_atomic

VERSION = 2  # of the measurement; results of other versions are not used

BATCH = 64  # inputs of a measured step

ROUNDS = 4  # steps per candidate, taken in turn; the first is a warm-up

MARGIN = 1.15  # least speed-up for which a precision other than the expected one is chosen; above timing noise

WARM_UP_SECONDS = 3.0  # if the warm-up steps take longer, the expected precision is chosen without a measurement


@dataclass(frozen=True)
class Finding:
    """One measurement of precisions, and the choice made by it."""

    what: str  # backbone, image size and strategy
    milliseconds: dict[str, float]  # shortest training step on `BATCH` inputs, by precision; empty if not measured
    chosen: str
    processor: str
    threads: int
    torch: str


def precision(wanted: str, place: torch.device, model: nn.Module, shape: tuple[int, ...], what: str) -> torch.dtype:
    """The dtype of autocast for training `model` on inputs of `shape`, which has no batch dimension.

    'auto' on a CPU that supports bfloat16 chooses by measurement. Otherwise this is `device.precision`. `what`
    describes the training for people, and is part of the key under which its measurement is kept. The model and the
    global random generators are left unchanged. Raises InputError for a precision that the device lacks.
    """
    expected = device.precision(wanted, place, model, training=True)
    if wanted != "auto" or place.type != "cpu" or not device.cpu_has_bf16():
        return expected
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = [VERSION, what, list(shape), trained, device.processor(), torch.get_num_threads(), torch.__version__]
    path = _folder() / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.json"
    found = _read(path)
    if found is None:
        found = _measure(model, shape, device.name_of(expected), what)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(asdict(found)))
        except (OSError, WorkError):  # without a writable cache it is measured again the next time
            pass
    return device.DTYPES[found.chosen]


def findings() -> list[Finding]:
    """All measurements in the cache that were made on this processor with this version of torch."""
    found = [finding for path in sorted(_folder().glob("*.json")) if (finding := _read(path)) is not None]
    return [f for f in found if (f.processor, f.torch) == (device.processor(), str(torch.__version__))]


def as_rows() -> dict[str, Any]:
    """`findings` as rows of `mnist-suite doctor`: the kind of training to the choice and its times."""
    return {
        f"{f.what}, {f.threads} threads": f"{f.chosen} ("
        + ", ".join(f"{name} {value:g} ms a step" for name, value in f.milliseconds.items())
        + ")"
        for f in findings()
    }


def workers(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[int, dict[str, float]]:
    """The number of trials of `model` that use all cores best, and milliseconds of a training step by threads.

    Either one trial with all threads, or one single-threaded trial per core where more threads make a step little
    faster. Measured: two single-threaded workers did 1.6 times the work of one with two threads for `net`, and less
    for `cnn`.
    """
    cores = device.cores()
    before = torch.get_num_threads()
    times: dict[str, list[float]] = {"1": [], str(cores): []}
    trained = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    inputs = torch.randn(BATCH, *shape)
    try:
        for number in range(2 * ROUNDS):
            for threads, seconds in times.items():
                torch.set_num_threads(int(threads))
                elapsed = _step_seconds(trained, inputs, dtype)
                if number > 1:
                    seconds.append(elapsed)
    finally:
        torch.set_num_threads(before)
    fastest = {threads: 1000 * min(seconds) for threads, seconds in times.items()}
    speedup = fastest["1"] / fastest[str(cores)]
    return (cores if speedup < 0.75 * cores else 1), fastest


def _folder() -> Path:
    return cache_dir() / "tuning"


def _read(path: Path) -> Finding | None:
    try:
        found = Finding(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.chosen in device.DTYPES else None


def _measure(model: nn.Module, shape: tuple[int, ...], expected: str, what: str) -> Finding:
    times = _step_times(model, shape, expected)
    fastest = min(times, key=lambda name: times[name], default=expected)
    chosen = fastest if times and times[fastest] * MARGIN < times[expected] else expected
    return Finding(what, times, chosen, device.processor(), torch.get_num_threads(), str(torch.__version__))


def _step_times(model: nn.Module, shape: tuple[int, ...], expected: str) -> dict[str, float]:
    """Milliseconds of the shortest training step in fp32 and bf16, on a copy of `model`; empty if it takes too long."""
    with torch.random.fork_rng(devices=[]):
        trained = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
        inputs = torch.randn(BATCH, *shape)
        if len(shape) == 3:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {expected: [], **{n: [] for n in ("fp32", "bf16") if n != expected}}
        began = time.perf_counter()
        for number in range(ROUNDS):
            for name in times:
                seconds = _step_seconds(trained, inputs, device.DTYPES[name])
                if number:
                    times[name].append(seconds)
                elif time.perf_counter() - began > WARM_UP_SECONDS:
                    return {}
    return {name: round(1000 * min(seconds), 3) for name, seconds in times.items()}  # other load can only add time


def _step_seconds(model: nn.Module, inputs: torch.Tensor, dtype: torch.dtype) -> float:
    """Seconds of one forward and backward pass."""
    begin = time.perf_counter()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        scores = model(inputs)
    F.cross_entropy(scores.float(), torch.zeros(len(inputs), dtype=torch.long)).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - begin
