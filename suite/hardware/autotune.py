"""Choices that are measured on this machine: precision of a training, and number of workers.

A GPU needs no measurement: bfloat16 and channels-last are the fastest there. On a CPU the precision changes the speed
by a factor of up to three in either direction: plain convolutions gain from bfloat16 where the processor supports it,
depthwise convolutions lose. Each kind of training is measured once and the result is kept in the suite's cache.

Measurements take up to 5 % of the work that they serve, and up to 3 s: steps of slow models are measured on fewer
inputs, those of the slowest not at all. They are generators, which yield before they take longer than
`budget.WORD_SECONDS`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from suite.hardware import device
from suite.hardware.activations import MEASUREMENT_BYTES, largest_batch
from suite.hardware.budget import Budget, share
from suite.hardware.memory import bounded, channels_last
from suite.store.files import cache_dir, keep

VERSION = 3  # of the measurement; results of other versions are not used

BATCH, LEAST_BATCH = 64, 4  # inputs of a measured step: of fast models, and of the slowest that are measured

PROBE = 2  # inputs of the first steps, which tell how many inputs the budget allows; batch norm cannot train on one

ROUNDS = 4  # steps per candidate, taken in turn; the first is a warm-up

MARGIN = 1.15  # least speed-up for which a precision other than the expected one is chosen; above timing noise

LEAST_SECONDS, MOST_SECONDS = 1.0, 3.0  # bounds of a measurement's budget


@dataclass(frozen=True)
class Finding:
    """One measurement of precisions, and the choice made by it."""

    what: str  # backbone, image size and strategy
    milliseconds: dict[str, float]  # shortest training step on `batch` inputs, by precision
    chosen: str
    processor: str
    threads: int
    torch: str
    batch: int = BATCH


def precision(
    wanted: str, place: torch.device, model: nn.Module, shape: tuple[int, ...], what: str, images: int
) -> Generator[None, None, torch.dtype]:
    """The dtype of autocast for training `model` on inputs of `shape`, which has no batch dimension.

    'auto' on a CPU that supports bfloat16 chooses by measurement. Otherwise, and where the budget does not allow for
    one, this is `device.precision`. `what` describes the training for people, and is part of the key under which its
    measurement is kept. `images` are trained on, over all epochs. The model and the global random generators are left
    unchanged. Raises InputError for a precision that the device lacks.
    """
    expected = device.precision(wanted, place, model, training=True)
    if wanted != "auto" or place.type != "cpu" or not device.cpu_has_bf16():
        return expected
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = [VERSION, what, list(shape), trained, device.processor(), torch.get_num_threads(), torch.__version__]
    path = _folder() / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.json"
    if (found := _read(path)) is not None:
        return device.DTYPES[found.chosen]
    found = yield from _measure(model, shape, device.name_of(expected), what, images)
    if found is None:
        return expected
    keep(path, json.dumps(asdict(found)))
    return device.DTYPES[found.chosen]


def findings() -> list[Finding]:
    """All measurements in the cache that were made on this processor with this version of torch."""
    found = [finding for path in sorted(_folder().glob("*.json")) if (finding := _read(path)) is not None]
    return [f for f in found if (f.processor, f.torch) == (device.processor(), str(torch.__version__))]


def as_rows() -> dict[str, Any]:
    """`findings` as rows of `mnist-suite doctor`: the kind of training to the choice and its times."""
    return {
        f"{f.what}, {f.threads} threads": f"{f.chosen} ("
        + ", ".join(f"{name} {value:g} ms a step of {f.batch}" for name, value in f.milliseconds.items())
        + ")"
        for f in findings()
    }


def workers(
    model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, images: int
) -> Generator[None, None, tuple[int, dict[str, float]]]:
    """The number of trials of `model` that use all cores best, and milliseconds of a training step by threads.

    Either one trial with all threads, or one single-threaded trial per core where more threads make a step little
    faster. Measured: two single-threaded workers did 1.6 times the work of one with two threads for `net`, and less
    for `cnn`. Where the budget does not allow for a measurement it is one trial: the steps of slow models are long
    enough to occupy all threads. `images` are trained on, over all epochs and trials.
    """
    cores, before = device.cores(), torch.get_num_threads()
    trained = channels_last(copy.deepcopy(model).train())

    def seconds(threads: str, inputs: torch.Tensor) -> float:
        torch.set_num_threads(int(threads))
        try:
            return _step_seconds(trained, inputs, dtype)
        finally:
            torch.set_num_threads(before)

    race = _Race(seconds, ("1", str(cores)), rounds=2 * ROUNDS, warm_ups=2)
    times = yield from race.run(model, shape, images)
    if not times:
        return 1, {}
    return (cores if times["1"] / times[str(cores)] < 0.75 * cores else 1), times


def _folder() -> Path:
    return cache_dir() / "tuning"


def _read(path: Path) -> Finding | None:
    try:
        found = Finding(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.chosen in device.DTYPES else None


def _measure(
    model: nn.Module, shape: tuple[int, ...], expected: str, what: str, images: int
) -> Generator[None, None, Finding | None]:
    """None where the budget does not allow for a measurement."""
    with torch.random.fork_rng(devices=[]):
        trained = channels_last(copy.deepcopy(model).train())
    others = [name for name in ("fp32", "bf16") if name != expected]

    def step(name: str, inputs: torch.Tensor) -> float:
        with torch.random.fork_rng(devices=[]):  # for dropout
            return _step_seconds(trained, inputs, device.DTYPES[name])

    race = _Race(step, (expected, *others), ROUNDS, warm_ups=1)
    times = yield from race.run(trained, shape, images)
    if not times:
        return None
    fastest = min(times, key=lambda name: times[name])
    chosen = fastest if times[fastest] * MARGIN < times[expected] else expected
    facts = (device.processor(), torch.get_num_threads(), str(torch.__version__))
    return Finding(what, times, chosen, *facts, batch=race.batch)


@dataclass
class _Race:
    """Candidates whose training steps are timed in turn, within a budget."""

    step: Callable[[str, torch.Tensor], float]  # carries out a step of a candidate, returns its seconds
    names: tuple[str, ...]
    rounds: int
    warm_ups: int  # rounds that are not counted
    batch: int = PROBE  # inputs of a step

    def run(self, model: nn.Module, shape: tuple[int, ...], images: int) -> Generator[None, None, dict[str, float]]:
        """Milliseconds of each candidate's shortest step on `batch` inputs; empty where the budget is too small.

        The shortest, since other load can only add time. Each candidate has at least one step that counts.
        """
        budget = Budget(MOST_SECONDS)
        each = self._probe(model, shape, budget) / PROBE
        budget.seconds = share(each * images, least=LEAST_SECONDS, most=MOST_SECONDS)
        self.batch = self._fitting(model, shape, each, budget)
        if self.batch < LEAST_BATCH:
            return {}
        inputs = _inputs(self.batch, shape)
        last = dict.fromkeys(self.names, self.batch * each)
        times: dict[str, list[float]] = {name: [] for name in self.names}
        for number in range(self.rounds):
            for name in self.names:
                if not budget.affords(last[name]):
                    return _fastest(times) if number > self.warm_ups else {}
                if budget.announces(last[name]):
                    yield
                last[name] = self.step(name, inputs)
                budget.spent += last[name]
                if number >= self.warm_ups:
                    times[name].append(last[name])
        return _fastest(times)

    def _probe(self, model: nn.Module, shape: tuple[int, ...], budget: Budget) -> float:
        """Seconds of the first candidate's second step on `PROBE` inputs; of its first, where that was long."""
        inputs = _inputs(PROBE, shape)
        seconds = self.step(self.names[0], inputs)
        budget.spent += seconds
        if budget.affords(seconds):
            seconds = self.step(self.names[0], inputs)
            budget.spent += seconds
        return seconds

    def _fitting(self, model: nn.Module, shape: tuple[int, ...], each: float, budget: Budget) -> int:
        """Inputs of a step: the largest power of two up to `BATCH` that fits time and memory, or 0."""
        steps = self.rounds * len(self.names)
        affordable = (budget.seconds - budget.spent) / (steps * each)
        if affordable < LEAST_BATCH:
            return 0
        bound = min(
            affordable, largest_batch(model, shape, most=BATCH, within=bounded(MEASUREMENT_BYTES), training=True)
        )
        return 1 << (int(bound).bit_length() - 1)


def _fastest(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(1000 * min(seconds), 3) for name, seconds in times.items()}


def _inputs(batch: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Random inputs (batch, ...), drawn from a generator of their own."""
    inputs = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    return inputs.contiguous(memory_format=torch.channels_last) if len(shape) == 3 else inputs


def _step_seconds(model: nn.Module, inputs: torch.Tensor, dtype: torch.dtype) -> float:
    """Seconds of one forward and backward pass."""
    begin = time.perf_counter()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        scores = model(inputs)
    F.cross_entropy(scores.float(), torch.zeros(len(inputs), dtype=torch.long)).backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - begin
