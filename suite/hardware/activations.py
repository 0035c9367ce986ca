"""Memory of activations, counted before anything is computed, and the batch sizes that keep it within a bound.

The batch sizes depend on the model and the shape of its input alone, never on the machine's free memory, so that
results are the same on every machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from suite.hardware.flops import cost_key, on_meta

EVALUATION_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30, "mps": 2 << 30}  # of activations in one batch without gradients

MEASUREMENT_BYTES = 1 << 30  # of activations, at most, while a model or a machine is measured; see `memory.bounded`

_peaks: dict[Hashable, tuple[int, int]] = {}


def largest_batch(model: nn.Module, shape: tuple[int, ...], *, most: int, within: int, training: bool = False) -> int:
    """The most inputs of `shape`, 1 to `most`, whose activations take up to `within` bytes in one pass in float32.

    With `training`, a pass is forward and backward, and gradients count too. Weights do not.
    """
    each, once = peak_bytes(model, shape, training=training)
    return max(1, min(most, (within - once) // max(1, each)))


def evaluation_batch(model: nn.Module, shape: tuple[int, ...], device: torch.device, *, most: int) -> int:
    """The number of inputs of `shape` to evaluate at a time: up to `most`, and fewer where activations are large."""
    return largest_batch(model, shape, most=most, within=EVALUATION_BYTES[device.type])


def peak_bytes(model: nn.Module, shape: tuple[int, ...], *, training: bool = False) -> tuple[int, int]:
    """Peak memory of one pass in float32, in bytes: what each input of `shape` adds, and what does not depend on them.

    The pass runs on the meta device; counted is the largest sum of tensors that live at the same time, the input
    included and the weights not. Scratch memory inside an operator is not seen. The model is left unchanged. Results
    are cached for the life of the process.
    """
    key = (cost_key(model), shape, training)
    if key not in _peaks:
        meta = on_meta(model)
        two, four = _peak(meta, shape, 2, training), _peak(meta, shape, 4, training)  # batch norm cannot train on one
        each = max(0, four - two) // 2
        _peaks[key] = each, max(0, two - 2 * each)
    return _peaks[key]


def _peak(meta: nn.Module, shape: tuple[int, ...], batch: int, training: bool) -> int:
    weights = {tensor.untyped_storage()._cdata for tensor in (*meta.parameters(), *meta.buffers())}
    with _Living(weights) as living:
        dtype = next((p.dtype for p in meta.parameters() if p.is_floating_point()), torch.float32)
        inputs = torch.zeros(batch, *shape, dtype=dtype, device="meta")
        if training:
            scores = meta.train()(inputs)
            F.cross_entropy(scores, torch.zeros(batch, dtype=torch.long, device="meta")).backward()
            del scores
        else:
            with torch.no_grad():
                meta.eval()(inputs)
        peak = living.peak
    meta.zero_grad(set_to_none=True)
    return peak


class _Living(TorchDispatchMode):
    """Sums the memory of the tensors that operators make and that are still referenced."""

    def __init__(self, known: set[int]) -> None:
        """`known`: addresses of storages that are not counted, as those of the weights."""
        super().__init__()
        self.bytes = self.peak = 0
        self._known = known  # and of the storages that are alive

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._note(value.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return
        self._known.add(address)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.bytes -= size
