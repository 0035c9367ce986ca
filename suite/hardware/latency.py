"""Inference latency, and the caps that an experiment puts on a model's cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import torch
from torch import nn

from suite.hardware.flops import Counted, architecture
from suite.spec import Caps

LATENCY_SECONDS = 1.0  # about as long is spent on timing a model

_latencies: dict[Hashable, float] = {}


@torch.inference_mode()
def latency(model: nn.Module, shape: tuple[int, ...], device: torch.device, batch: int = 1) -> float:
    """Seconds for a batch of inputs of `shape`, in fp32: the fastest of up to 18 passes, of fewer where they are long.

    The fastest, since whatever else this machine does can only add to it, as `timeit` argues too. Measured once in a
    process for each architecture.
    """
    key = (architecture(model), shape, device, batch, torch.get_num_threads())
    if key in _latencies:
        return _latencies[key]
    model.eval()
    inputs = torch.zeros(batch, *shape, device=device)
    if len(shape) == 3:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 18 and sum(times) < LATENCY_SECONDS):
        start = time.perf_counter()
        model(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    _latencies[key] = min(times[1:])
    return _latencies[key]


def latency_256(model: nn.Module, shape: tuple[int, ...], device: torch.device, one: float) -> float | None:
    """`latency` of 256 inputs at once; None where, going by `one` input, a pass might take half a minute."""
    return latency(model, shape, device, batch=256) if 256 * one < 30.0 else None


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
