"""A training step as one CUDA graph: recorded once, then replayed without the processor's share of the work.

Small networks leave a GPU waiting for launches: hundreds of them a step, some microseconds each. See "CUDA semantics,
CUDA Graphs" in PyTorch's documentation for what may be recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from suite.hardware.memory import ran_out

WARM_UP = 3  # runs before recording, so that libraries have chosen their algorithms and buffers exist

Recorded = Callable[[Tensor, Tensor], Tensor]

Work = Callable[[Tensor, Tensor], Tensor]  # (inputs, labels) -> loss, all on the GPU, nothing waited for


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """On NVIDIA GPUs; not in float16, whose loss scaling decides on the host, nor with $MNIST_SUITE_CUDA_GRAPHS=0."""
    return device.type == "cuda" and dtype != torch.float16 and os.environ.get("MNIST_SUITE_CUDA_GRAPHS") != "0"


def record(
    work: Work, example: tuple[Tensor, Tensor], state: Callable[[], list[Tensor]], *, must_fit: bool = False
) -> Recorded:
    """`work` as a graph, for inputs shaped as `example`. Everything in `state()`, what work changes, is left as it was,
    also when this raises.

    The optimiser's buffers that the warm-up brings into being start at zero, as it would start them itself. What
    cannot be recorded is done step by step as before; with `must_fit` a graph that lacks memory raises instead.
    """
    inputs, labels = (part.clone(memory_format=torch.preserve_format) for part in example)
    before = [(tensor, tensor.clone()) for tensor in state()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work(inputs, labels)
    finally:
        torch.cuda.current_stream().wait_stream(stream)
        _restore(before, state())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            loss = work(inputs, labels)
    except (RuntimeError, MemoryError) as error:  # an operator of this model waits for the host, or memory is short
        torch.cuda.synchronize()
        _restore(before, state())
        if must_fit and ran_out(error):
            raise
        return work

    def replay(new_inputs: Tensor, new_labels: Tensor) -> Tensor:
        inputs.copy_(new_inputs)
        labels.copy_(new_labels)
        graph.replay()
        return loss

    return replay


@torch.no_grad()
def _restore(before: list[tuple[Tensor, Tensor]], now: list[Tensor]) -> None:
    known = {tensor.data_ptr() for tensor, _ in before}
    for tensor, value in before:
        tensor.copy_(value)
    for tensor in now:
        if tensor.data_ptr() not in known:
            tensor.zero_()
