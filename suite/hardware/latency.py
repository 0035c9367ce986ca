"""Inference latency of a model, and the check of an experiment's caps on cost."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import nn

from suite.hardware.device import device_time
from suite.hardware.flops import Counted, cost_key
from suite.spec import Caps

MEASUREMENT_SECONDS = 1.0  # approximate time spent on measuring one model

MIN_PASSES, MAX_PASSES = 3, 18  # forward passes of one measurement; the first is a warm-up

MAX_PASS_SECONDS = 30.0  # a batch of 256 is not measured where one pass is expected to take longer

_latencies: dict[Hashable, float] = {}


@torch.inference_mode()
def latency(model: nn.Module, shape: tuple[int, ...], device: torch.device, batch: int = 1) -> float:
    """Seconds of one forward pass in float32 over `batch` inputs of `shape`, with the current number of threads.

    The minimum of several passes: other load on the machine can only add to the time, as the documentation of
    `timeit.Timer.repeat` argues. Puts the model into evaluation mode. Results are cached for the life of the process,
    by architecture.
    """
    key = (cost_key(model), shape, device, batch, torch.get_num_threads())
    if key in _latencies:
        return _latencies[key]
    model.eval()
    inputs = torch.zeros(batch, *shape, device=device)
    if len(shape) == 3:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    times: list[float] = []
    while len(times) < MIN_PASSES or (len(times) < MAX_PASSES and sum(times) < MEASUREMENT_SECONDS):
        start = device_time(device)
        model(inputs)
        times.append(device_time(device) - start)
    _latencies[key] = min(times[1:])
    return _latencies[key]


def latency_256(model: nn.Module, shape: tuple[int, ...], device: torch.device, one: float) -> float | None:
    """`latency` of a batch of 256 inputs in seconds, where `one` is that of a single input.

    None if, extrapolated from `one`, a pass could take longer than `MAX_PASS_SECONDS`.
    """
    return latency(model, shape, device, batch=256) if 256 * one < MAX_PASS_SECONDS else None


def exceeded_cap(caps: Caps | None, counted: Counted, measure: Callable[[], float]) -> str | None:
    """The first cap that a model exceeds, as a message; None if it exceeds none.

    `measure` returns the latency of one image in seconds. It is called only if latency is capped.
    """
    if caps is None:
        return None
    if caps.flops is not None and counted.forward_flops > caps.flops:
        return f"cap: {counted.forward_flops:,} FLOPs an image, {caps.flops:,} are allowed"
    if caps.params is not None and counted.parameters > caps.params:
        return f"cap: {counted.parameters:,} parameters, {caps.params:,} are allowed"
    if caps.latency is not None and (seconds := measure()) > caps.latency:
        return f"cap: {1000 * seconds:.3g} ms for one image, {1000 * caps.latency:.3g} ms are allowed"
    return None
