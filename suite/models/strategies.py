"""Which parameters a strategy trains."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from suite.errors import InputError
from suite.models import backbones
from suite.spec import Partial, Strategy


def trained_names(strategy: Strategy, model: nn.Module) -> set[str]:
    """Names of the parameters that a gradient strategy trains. The classifier always is."""
    everything = {name for name, _ in model.named_parameters()}
    classifier = backbones.classifier_parameters(model)
    if isinstance(strategy, Partial):
        groups = [group for group in backbones.blocks(model) if not set(group) <= classifier]
        if strategy.blocks > len(groups):
            raise InputError(f"strategy.blocks is {strategy.blocks}, but the backbone has only {len(groups)} blocks.")
        return classifier.union(*groups[-strategy.blocks :])
    if strategy.kind == "norm-only":
        norms = backbones.norm_parameters(model)
        if not norms:
            raise InputError("Strategy norm-only needs a backbone with normalisation layers; this one has none.")
        return classifier | norms
    if strategy.kind == "bitfit":
        return classifier | {name for name in everything if name.endswith("bias")}
    return everything


def freeze(strategy: Strategy, model: nn.Module) -> Callable[[nn.Module], None] | None:
    """Mark what is trained; returns a function that keeps frozen norm layers in evaluation mode, if any are."""
    names = trained_names(strategy, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    frozen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not any(p.requires_grad for p in module.parameters())
    ]
    if not frozen:
        return None

    def hold(live: nn.Module) -> None:
        for name in frozen:
            live.get_submodule(name).eval()

    return hold
