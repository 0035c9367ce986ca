"""Training steps as CUDA graphs: recorded once, then replayed without the CPU's share of the work.

A small network leaves a GPU waiting for kernel launches: hundreds per step, some microseconds each. What may be
recorded is described in https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from suite.hardware.memory import ran_out

WARM_UP = 3  # runs before recording, in which libraries choose their algorithms and allocate their buffers

Work = Callable[..., Tensor]  # the tensors of a batch to the loss, all on the GPU, without synchronisation

Recorded = Work  # replays a graph


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether steps on `device` can be recorded: on NVIDIA GPUs, unless $MNIST_SUITE_CUDA_GRAPHS is 0.

    Not in float16, because its loss scaling decides on the host whether to update.
    """
    return device.type == "cuda" and dtype != torch.float16 and os.environ.get("MNIST_SUITE_CUDA_GRAPHS") != "0"


def record(
    work: Work, example: tuple[Tensor, ...], state: Callable[[], list[Tensor]], *, must_fit: bool = False
) -> Recorded:
    """Record `work` as a graph for batches of the shapes in `example`.

    `state` returns the tensors that `work` changes. They are restored after the warm-up runs, also when this raises.
    Tensors that only exist since the warm-up, which are an optimiser's moments, are set to zero, their initial value.

    If `work` cannot be recorded it is returned as it is, to be run step by step. With `must_fit`, a graph for which
    there is too little memory raises the error instead.
    """
    batch = tuple(part.clone(memory_format=torch.preserve_format) for part in example)
    before = [(tensor, tensor.clone()) for tensor in state()]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                work(*batch)
    finally:
        torch.cuda.current_stream().wait_stream(stream)
        _restore(before, state())
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            loss = work(*batch)
    except (RuntimeError, MemoryError) as error:  # an operator of the model synchronises, or memory ran out
        torch.cuda.synchronize()
        _restore(before, state())
        if must_fit and ran_out(error):
            raise
        return work

    def replay(*new: Tensor) -> Tensor:
        for part, values in zip(batch, new, strict=True):
            part.copy_(values)
        graph.replay()
        return loss

    return replay


@torch.no_grad()
def _restore(before: list[tuple[Tensor, Tensor]], now: list[Tensor]) -> None:
    """Restore the tensors in `before` to the values beside them, and zero those of `now` that are not among them."""
    known = {tensor.data_ptr() for tensor, _ in before}
    for tensor, value in before:
        tensor.copy_(value)
    for tensor in now:
        if tensor.data_ptr() not in known:
            tensor.zero_()
