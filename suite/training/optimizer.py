"""Optimizers and learning rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from suite.spec import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Weight decay leaves biases and norms alone, as is usual."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if not recipe.weight_decay:
        groups = [{"params": trained}]  # one group is one call
    groups = [group for group in groups if group["params"]]
    graphed = device.type == "cuda"  # a recorded step reads its rate from memory
    lr = torch.tensor(recipe.lr, device=device) if graphed else recipe.lr
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True, capturable=graphed)
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of one step: a function of the step alone, so that resuming needs no scheduler state."""
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
