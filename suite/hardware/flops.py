"""What a training costs: counted (parameters, FLOPs) or measured (seconds, bytes, joules), never guessed."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Counted:
    parameters: int
    trainable: int
    forward_flops: int  # per image
    training_flops: int  # per image: forward, and backward through what is trained


def architecture(model: nn.Module) -> Hashable:
    """Equal for models that cost the same: alike in modules, shapes and what is trained."""
    parameters = tuple((name, p.shape, p.requires_grad) for name, p in model.named_parameters())
    return repr(model), parameters, tuple((name, b.shape) for name, b in model.named_buffers())


_counted: dict[Hashable, Counted] = {}


def count(model: nn.Module, shape: tuple[int, ...]) -> Counted:
    """Parameters and FLOPs of a model that takes one input of `shape`; a multiply-add is two FLOPs.

    Counted from the operators that run on the meta device, where attention is not hidden in one fused CPU
    kernel; convolutions and matrix products count, elementwise work does not (torch.utils.flop_counter).
    Counted once in a process for each architecture.
    """
    key = (architecture(model), shape)
    if key not in _counted:
        _counted[key] = _count(model, shape)
    return _counted[key]


def _count(model: nn.Module, shape: tuple[int, ...]) -> Counted:
    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    ghost = copy.deepcopy(model).to("meta")
    pair = torch.zeros(2, *shape, device="meta")  # two, since batch norm cannot train on one
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        ghost.eval()(pair)
    total = forward.get_total_flops()
    if trainable:
        with FlopCounterMode(display=False) as both:
            F.cross_entropy(ghost.train()(pair), torch.zeros(2, dtype=torch.long, device="meta")).backward()
        total = both.get_total_flops()
    return Counted(parameters, trainable, forward.get_total_flops() // 2, total // 2)
