"""Optimisers and learning rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from suite.spec import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that require gradients.

    Biases and the parameters of norm layers are exempt from weight decay, as is common.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if not recipe.weight_decay:
        groups = [{"params": trained}]  # one group: one fused kernel
    groups = [group for group in groups if group["params"]]
    graphed = device.type == "cuda"  # a CUDA graph reads the learning rate from a tensor
    lr = torch.tensor(recipe.lr, device=device) if graphed else recipe.lr
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True, capturable=graphed)
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


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
