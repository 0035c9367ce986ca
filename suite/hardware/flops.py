"""Parameters and floating-point operations (FLOPs) of a model."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


@dataclass(frozen=True)
class Counted:
    """Size and computational cost of a model."""

    parameters: int
    trainable: int  # parameters that require gradients
    forward_flops: int  # per image
    training_flops: int  # per image: forward pass, and the backward pass that the trainable parameters need


def cost_key(model: nn.Module) -> Hashable:
    """A key that is equal for models of equal cost: same modules, tensor shapes and trainable parameters."""
    parameters = tuple((name, p.shape, p.requires_grad) for name, p in model.named_parameters())
    return repr(model), parameters, tuple((name, b.shape) for name, b in model.named_buffers())


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of the model on the meta device, where tensors have shapes but no values. Its tensors take no memory."""
    memo: dict[int, object] = {id(p): nn.Parameter(_empty(p), p.requires_grad) for p in model.parameters()}
    memo |= {id(b): _empty(b) for b in model.buffers()}
    return copy.deepcopy(model, memo).to("meta")


def _empty(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


_counted: dict[Hashable, Counted] = {}


def count(model: nn.Module, shape: tuple[int, ...]) -> Counted:
    """Parameters and FLOPs of a model for one input of `shape`, which has no batch dimension.

    A multiply-add is two FLOPs. Convolutions and matrix products are counted, elementwise operators are not
    (torch.utils.flop_counter). The operators run on the meta device, where attention is not fused into a CPU kernel
    that the counter does not know. The model is left unchanged. Results are cached for the life of the process.
    """
    key = (cost_key(model), shape)
    if key not in _counted:
        _counted[key] = _count(model, shape)
    return _counted[key]


def _count(model: nn.Module, shape: tuple[int, ...]) -> Counted:
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    meta = on_meta(model)
    batch = torch.zeros(2, *shape, device="meta")  # two inputs, since batch norm cannot train on one
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        meta.eval()(batch)
    total = forward.get_total_flops()
    if trainable:
        counters = {torch.ops.aten.convolution_backward: _convolution_backward}
        with FlopCounterMode(display=False, custom_mapping=counters) as both:
            F.cross_entropy(meta.train()(batch), torch.zeros(2, dtype=torch.long, device="meta")).backward()
        total = both.get_total_flops()
    return Counted(parameters, trainable, forward.get_total_flops() // 2, total // 2)


def _convolution_backward(gradient: Any, inputs: Any, weight: Any, *others: Any, **_: Any) -> int:
    """FLOPs of the gradients of a convolution from the shapes of its tensors: each costs as much as the convolution.

    torch's own counter leaves out of account that a grouped convolution has a fraction of the products.
    """
    transposed, output_mask = others[4], others[7]
    return conv_flop_count(inputs, weight, gradient, transposed=transposed) * sum(output_mask[:2])
