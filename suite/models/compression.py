"""Making a trained model smaller before it is fine-tuned: structured pruning and low-rank factorisation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from suite.errors import InputError, as_clause
from suite.models.backbones import classifiers
from suite.models.shapes import LowRank, fit_shapes
from suite.spec import LowRank as LowRankSpec
from suite.spec import Prune, Strategy

STEPS = 8  # shares of channels that are tried, at most

NEAR = 0.95  # of the parameters that may stay: a model with at least this share of them is small enough


def compress(strategy: Strategy, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Make `model`, on the CPU, smaller in place, where the strategy says so. `shape` is that of one input.

    Raises InputError where the model cannot be made as small.
    """
    if isinstance(strategy, Prune):
        prune(model, strategy.keep, shape)
    elif isinstance(strategy, LowRankSpec):
        factor(model, strategy.rank)


def factor(model: nn.Module, share: float) -> None:
    """Replace each linear layer but the classifier by its best approximation of rank `share` * min(in, out), by
    singular value decomposition (Eckart and Young, 1936), where that has fewer parameters.

    Raises InputError where there is no such layer.
    """
    kept = {id(part) for classifier in classifiers(model) for part in classifier.modules()}
    found = False
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or id(layer) in kept:
            continue
        outputs, inputs = layer.weight.shape
        rank = max(1, round(share * min(inputs, outputs)))
        if rank * (inputs + outputs) < inputs * outputs:
            model.set_submodule(name, _split(layer, rank).train(layer.training))
            found = True
    if not found:
        raise InputError(
            f"Strategy low-rank with rank {share:g} makes no layer of this backbone smaller: it factors linear layers "
            "before the classifier. Take a lower rank, strategy prune, or another backbone."
        )


@torch.no_grad()
def _split(layer: nn.Linear, rank: int) -> LowRank:
    split = LowRank(layer.in_features, rank, layer.out_features, layer.bias is not None)
    left, values, right = torch.linalg.svd(layer.weight.double(), full_matrices=False)
    root = values[:rank].sqrt()  # half of each value in both factors, which then learn at equal rates
    split.up.weight.copy_(left[:, :rank] * root)
    split.down.weight.copy_(root[:, None] * right[:rank])
    if layer.bias is not None:
        split.up.bias.copy_(layer.bias)
    return split


def prune(model: nn.Module, keep: float, shape: tuple[int, ...]) -> None:
    """Remove channels and hidden units of least magnitude, until at most `keep` of the parameters are left.

    All layers lose the same share of their channels, those with the least L2 norm over all weights that depend on them
    (DepGraph, Fang et al., 2023, arXiv:2301.12900). The classifier keeps its outputs.

    Raises InputError where Torch-Pruning is missing or cannot prune the model, and where `keep` is out of reach.
    """
    wanted, least = int(keep * _parameters(model)), _parameters(model)
    low, high = 0.0, 1.0
    best: nn.Module | None = model if keep == 1 else None
    ratio = 1 - keep**0.5  # exact where layers lose inputs and outputs alike
    for _ in range(STEPS):
        if best is not None and _parameters(best) >= NEAR * wanted:
            break
        smaller = _pruned(model, ratio, shape)
        left = _parameters(smaller)
        least = min(least, left)
        if left <= wanted:
            best, high = smaller, ratio
        else:
            low = ratio
        guess = 1 - (1 - ratio) * (wanted / left) ** 0.5
        ratio = guess if low < guess < high else (low + high) / 2
    if best is None:
        raise InputError(
            f"Strategy prune cannot bring this backbone down to {keep:g} of its parameters: at least "
            f"{least / _parameters(model):.2g} of them are left. Take a larger strategy.keep."
        )
    if best is not model:
        fit_shapes(model, best.state_dict()).load_state_dict(best.state_dict())


def _pruned(model: nn.Module, ratio: float, shape: tuple[int, ...]) -> nn.Module:
    """A copy of the model without `ratio` of the channels of each layer."""
    pruning = _torch_pruning()
    smaller = copy.deepcopy(model).eval().requires_grad_(True)
    ignored = [part for classifier in classifiers(smaller) for part in classifier.modules()]
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        warnings.simplefilter("ignore")
        importance = pruning.importance.GroupMagnitudeImportance(p=2)
        example = torch.zeros(1, *shape)
        pruner = pruning.pruner.BasePruner(
            smaller, example, importance=importance, pruning_ratio=ratio, ignored_layers=ignored
        )
        pruner.step()
    return smaller


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def can_prune() -> bool:
    """Whether Torch-Pruning is installed."""
    try:
        _torch_pruning()
    except InputError:
        return False
    return True


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError:
        raise InputError("Strategy prune needs Torch-Pruning: pip install 'mnist-suite[compress]'.") from None
    return torch_pruning


def tried(strategy: Strategy, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """A model made by `build`, compressed; its answers were found to survive saving and loading.

    Raises InputError where the model cannot be compressed so, or cannot be rebuilt from its state dict.
    """
    model = build().eval()
    try:
        compress(strategy, model, shape)
        images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        rebuilt = fit_shapes(build().eval(), model.state_dict())
        rebuilt.load_state_dict(model.state_dict())
        with torch.no_grad():
            equal = torch.equal(rebuilt(images), model(images))
        reason = "it answers differently once it is loaded"
    except InputError:
        raise
    except Exception as error:  # on unsuitable models Torch-Pruning and the models raise almost anything
        equal, reason = False, as_clause(error)
    if not equal:
        raise InputError(f"Strategy {strategy.kind} cannot compress this backbone: {reason}. Take another one.")
    return model
