"""Inference latency of a model, measured within a budget, and the check of an experiment's caps on cost."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass

import torch
from torch import nn

from suite.hardware.activations import MEASUREMENT_BYTES, largest_batch
from suite.hardware.budget import Budget
from suite.hardware.device import device_time
from suite.hardware.flops import Counted, cost_key, count
from suite.hardware.memory import bounded
from suite.spec import Caps

MEASUREMENT_SECONDS = 1.0  # approximate time spent on one of the two figures

MIN_PASSES, MAX_PASSES = 3, 18  # forward passes of one figure; the first is a warm-up

MANY = 256  # images of the second figure

ACTIVATION_BYTES = MEASUREMENT_BYTES // 2  # counted for a pass of the second figure; scratch memory comes on top

PASS_FLOPS = {"cpu": 2 * 10**10, "gpu": 2 * 10**12}  # of such a pass: a fraction of a second

LEAST_SECONDS = 1.0  # budget of both figures where 5 % of the training are less


@dataclass(frozen=True)
class Latencies:
    """Seconds of a model in evaluation mode, in float32; None where not measured."""

    one: float | None = None  # the fastest pass of one image
    batch_256: float | None = None  # of 256 images: the fastest pass of `pass_size` images times 256 / `pass_size`
    source: str = ""  # how they were measured, or why not


NOT_MEASURED = Latencies()

HOW = "fastest of several passes"

_measured: dict[Hashable, float] = {}


def one_image(
    model: nn.Module, shape: tuple[int, ...], device: torch.device, budget: Budget | None = None
) -> Generator[None, None, float | None]:
    """Seconds of one forward pass of one image in float32, with the current number of threads.

    The minimum of several passes: other load on the machine can only add to the time, as the documentation of
    `timeit.Timer.repeat` argues. None where the budget does not allow for `MIN_PASSES`; without a budget these are
    always made. Yields before a pass at whose end the measurement will have taken `WORD_SECONDS`. Puts the model into
    evaluation mode. Results are cached for the life of the process, by architecture.
    """
    key = (*_key(model, shape, device), 1)
    if key not in _measured:
        budget = Budget(float("inf")) if budget is None else budget
        found = yield from _fastest(model, shape, device, 1, budget, expected=0.0)
        if found is None:
            return None
        _measured[key] = found
    return _measured[key]


def measure(
    model: nn.Module, shape: tuple[int, ...], device: torch.device, seconds: float
) -> Generator[None, None, Latencies]:
    """Both latencies of `model` for inputs of `shape`, within `seconds` and `MEASUREMENT_BYTES`; yields as `one_image`.

    256 images are measured in passes of `pass_size` images. Small models, which take 256 in one pass, need no budget:
    `MEASUREMENT_SECONDS` limit each figure, but for the first three passes.
    """
    batch = pass_size(model, shape, device)
    budget = Budget(seconds if batch < MANY else float("inf"))
    one = yield from one_image(model, shape, device, budget)
    if one is None:
        return Latencies(source=f"not measured: {MIN_PASSES} passes of one image would exceed {seconds:.2g} s")
    key = (*_key(model, shape, device), batch)
    if batch == 1:
        _measured[key] = one
    elif key not in _measured:
        found = yield from _fastest(model, shape, device, batch, budget, expected=batch * one)
        if found is None:
            why = f"256 images not measured: {MIN_PASSES} passes of {batch} would exceed {seconds:.2g} s"
            return Latencies(one, source=f"{HOW}; {why}")
        _measured[key] = found
    parts = f"; 256 images in {MANY // batch} passes of {batch}" if batch < MANY else ""
    return Latencies(one, _measured[key] * (MANY // batch), HOW + parts)


def pass_size(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """Images of one pass of the second figure: the largest power of two up to 256 within the bounds of memory and work.

    It depends on the model, its input and the kind of device, so that the figures of several trials compare, and on
    the memory where there is less than 4 GiB.
    """
    within = PASS_FLOPS["cpu" if device.type == "cpu" else "gpu"] // max(1, count(model, shape).forward_flops)
    most = max(1, min(MANY, within))
    return 1 << (largest_batch(model, shape, most=most, within=bounded(ACTIVATION_BYTES)).bit_length() - 1)


def _fastest(
    model: nn.Module, shape: tuple[int, ...], device: torch.device, batch: int, budget: Budget, *, expected: float
) -> Generator[None, None, float | None]:
    """Seconds of the fastest of up to `MAX_PASSES` passes, without the first; None where fewer than `MIN_PASSES` fit.

    The first pass is `expected` to take that many seconds at most, and is made where any of the budget is left.
    """
    times: list[float] = []
    while len(times) < MIN_PASSES or (len(times) < MAX_PASSES and sum(times) < MEASUREMENT_SECONDS):
        if not budget.affords(min(times, default=0.0)):
            break
        expected = min(times, default=expected)  # the first pass may take many times as long as the others
        if budget.announces(expected):
            yield
        times.append(_pass(model, shape, device, batch, budget))
    return min(times[1:]) if len(times) >= MIN_PASSES else None


@torch.inference_mode()
def _pass(model: nn.Module, shape: tuple[int, ...], device: torch.device, batch: int, budget: Budget) -> float:
    """Seconds of one forward pass over `batch` inputs of zeros, which the budget is charged with."""
    model.eval()
    inputs = torch.zeros(batch, *shape, device=device)
    if len(shape) == 3:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    start = device_time(device)
    model(inputs)
    seconds = device_time(device) - start
    budget.spent += seconds
    return seconds


def _key(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> tuple[Hashable, ...]:
    return cost_key(model), shape, device, torch.get_num_threads()


def exceeded_cap(caps: Caps | None, counted: Counted, one: float | None = None) -> str | None:
    """The first cap that a model exceeds, as a message; None if it exceeds none.

    `one` is the latency of one image in seconds; without it that cap is not looked at.
    """
    if caps is None:
        return None
    if caps.flops is not None and counted.forward_flops > caps.flops:
        return f"cap: {counted.forward_flops:,} FLOPs an image, {caps.flops:,} are allowed"
    if caps.params is not None and counted.parameters > caps.params:
        return f"cap: {counted.parameters:,} parameters, {caps.params:,} are allowed"
    if caps.latency is not None and one is not None and one > caps.latency:
        return f"cap: {1000 * one:.3g} ms for one image, {1000 * caps.latency:.3g} ms are allowed"
    return None
