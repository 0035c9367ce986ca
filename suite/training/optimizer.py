"""Optimisers and learning rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from suite.models.strategies import layer_scales
from suite.spec import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that require gradients.

    Biases and the parameters of norm layers are exempt from weight decay, as is common. Every group has a `scale`, a
    factor of the learning rate; see `set_rate`.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    scales = layer_scales(model, recipe.layer_decay)
    groups: dict[tuple[bool, float], dict[str, Any]] = {}  # as few as possible: one fused kernel each
    for decayed in (True, False) if recipe.weight_decay else (False,):
        for name, p in trained:
            if not recipe.weight_decay or (p.ndim > 1) == decayed:
                scale = scales.get(name, 1.0)
                decay = recipe.weight_decay if decayed else 0.0
                new = {"params": [], "weight_decay": decay, "scale": scale, "lr": _rate(recipe.lr * scale, device)}
                groups.setdefault((decayed, scale), new)["params"].append(p)
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return torch.optim.AdamW([*groups.values()], betas=betas, fused=True, capturable=_graphed(device))
    return torch.optim.SGD([*groups.values()], momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def _graphed(device: torch.device) -> bool:
    return device.type == "cuda"  # a CUDA graph reads the learning rate from a tensor


def _rate(value: float, device: torch.device) -> float | Tensor:
    return torch.tensor(value, device=device) if _graphed(device) else value


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a group of parameters, given that of the classifier."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate * group["scale"])
    else:
        group["lr"] = rate * group["scale"]


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The learning rate of a step in 0..total - 1.

    A function of the step alone, so that a checkpoint needs no scheduler state. 'cosine' is annealing without restarts
    (Loshchilov and Hutter, 2017, arXiv:1608.03983); 'onecycle' rises and falls linearly (Smith and Topin, 2019,
    arXiv:1708.07120).
    """
    warmup = recipe.warmup or (0.3 if recipe.schedule == "onecycle" else 0.0)
    rising = warmup * total
    if step < rising:
        start = 0.04 if recipe.schedule == "onecycle" else 0.0
        return recipe.lr * (start + (1 - start) * (step + 1) / math.ceil(rising))
    if recipe.schedule == "constant":
        return recipe.lr
    done = (step - rising) / max(1.0, total - rising)
    if recipe.schedule == "onecycle":
        return recipe.lr * (1 - done)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
