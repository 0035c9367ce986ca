"""Which parameters each strategy trains, and how fast.

To add a strategy, add its model to `suite/spec/recipe.py` and an entry to `TRAINED` here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from suite.errors import InputError
from suite.models import backbones, lora
from suite.spec import Bitfit, Full, Lora, LowRank, LpFt, NormOnly, Partial, Pretrain, Prune, Scratch, Strategy


def _all(strategy: Strategy, model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def _last_blocks(strategy: Partial, model: nn.Module) -> set[str]:
    classifier = backbones.classifier_parameters(model)
    groups = [group for group in backbones.blocks(model) if not set(group) <= classifier]
    if strategy.blocks > len(groups):
        raise InputError(f"strategy.blocks is {strategy.blocks}, but the backbone has only {len(groups)} blocks.")
    return set().union(*groups[-strategy.blocks :])


def _norms(strategy: NormOnly, model: nn.Module) -> set[str]:
    names = backbones.norm_parameters(model)
    if not names:
        raise InputError("Strategy norm-only needs a backbone with normalisation layers; this one has none.")
    return names


def _biases(strategy: Bitfit, model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.endswith("bias")}


# From (strategy, model) to the names of the parameters that are trained beside the classifier, which always is.
# A head on frozen features is no entry: its backbone is not trained at all (see heads.py).
TRAINED: dict[type, Callable[[Any, nn.Module], set[str]]] = {
    Scratch: _all,
    Pretrain: _all,
    Full: _all,
    LpFt: _all,
    Partial: _last_blocks,
    NormOnly: _norms,
    Bitfit: _biases,
    Lora: lora.trained_names,
    Prune: _all,
    LowRank: _all,
}


def trained_names(strategy: Strategy, model: nn.Module) -> set[str]:
    """Names of the parameters that a gradient strategy trains, the classifier's included.

    Raises InputError where the backbone lacks what the strategy trains.
    """
    return backbones.classifier_parameters(model) | TRAINED[type(strategy)](strategy, model)


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Factors of the learning rate by parameter name, for layer-wise learning rate decay: 1 for the classifier, and
    `decay` times that of the next block for each block before it (Clark et al., 2020, arXiv:2003.10555; Bao et al.,
    2022, arXiv:2106.08254).

    Empty, which means 1 for all, without decay and for a head on frozen features, which has no blocks.
    """
    if decay == 1 or not hasattr(model, "get_classifier"):
        return {}
    groups = backbones.blocks(model)
    return {name: decay ** (len(groups) - 1 - i) for i, names in enumerate(groups) for name in names}


def freeze(strategy: Strategy, model: nn.Module, seed: int = 0) -> Callable[[nn.Module], None] | None:
    """Set `requires_grad` of all parameters: true for those that the strategy trains.

    Strategy lora first puts factors onto the weights, which depend on `seed`; `lora.merged` gives the plain model.

    Returns a function that puts frozen batch norm layers back into evaluation mode, so that their statistics do not
    change; it has to be called after each `model.train()`. None if there are no such layers.
    """
    if isinstance(strategy, Lora):
        lora.adapt(model, strategy, seed)
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

    def freeze_statistics(model: nn.Module) -> None:
        for name in frozen:
            model.get_submodule(name).eval()

    return freeze_statistics
