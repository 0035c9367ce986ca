"""Low-rank adaptation: a frozen weight W is trained as W + (alpha / rank) B A (Hu et al., 2021, arXiv:2106.09685).

A weight (rows, ...), also that of a convolution, counts as a matrix (rows, columns). B (rows, rank) starts from zeros
and A (rank, columns) from random numbers, so that training starts from W. The change is a parametrization of the weight
(torch.nn.utils.parametrize): the layer stays what it is, and the merged model is the adapted one bit for bit.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from suite.errors import InputError
from suite.hardware import flops
from suite.hardware.flops import Counted, on_meta
from suite.models import backbones
from suite.spec import Lora


class LowRank(nn.Module):
    """The change of one weight: W to W + scale * B A."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        bound = columns**-0.5  # as of nn.Linear
        drawn = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(drawn.to(weight.device, weight.dtype))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        kind = weight.device.type
        # In float32 under autocast too: the merged weight is computed without it.
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            change = self.scale * (self.b @ self.a)
        return weight + change.view(weight.shape)

    def extra_repr(self) -> str:
        return f"rank={len(self.a)}, scale={self.scale:g}"  # models of different scales must not be taken for equal


def adapt(model: nn.Module, strategy: Lora, seed: int) -> None:
    """Put factors onto the weights of the layers that the strategy names; they depend on `seed` alone.

    A weight with no more numbers than its factors stays as it is, and is trained whole. Raises InputError where the
    model has no such layer.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in _layers(model, strategy).values():
        weight = layer.weight
        rows, columns = weight.flatten(1).shape
        if strategy.rank * (rows + columns) < weight.numel():
            change = LowRank(weight.detach(), strategy.rank, strategy.alpha / strategy.rank, generator)
            parametrize.register_parametrization(layer, "weight", change)


def trained_names(strategy: Lora, model: nn.Module) -> set[str]:
    """Names of the parameters that the strategy trains in an adapted model, without the classifier's."""
    names = backbones.norm_parameters(model) if strategy.norms else set[str]()
    for path, layer in _layers(model, strategy).items():
        factors = {f"{path}.parametrizations.weight.0.{one}" for one in "ab"}
        names |= {f"{path}.weight"} if _change(layer) is None else factors
    return names


def merged(model: nn.Module) -> nn.Module:
    """A copy with the changes added to the weights, of the plain architecture; `model` itself without any."""
    if not any(map(_change, model.modules())):
        return model
    return _merge(copy.deepcopy(model))


def counted(model: nn.Module, shape: tuple[int, ...], batch_size: int) -> Counted:
    """Parameters and FLOPs for one input of `shape`, as `flops.count`: of the merged model, and trained as adapted.

    The gradients of the factors come from that of the whole weight, which is therefore counted as if it were trained.
    Each step adds three products of the factors: B A, and those that give the gradients of A and of B.
    """
    if not any(map(_change, model.modules())):
        return flops.count(model, shape)
    meta, products = on_meta(model), 0
    for layer in meta.modules():
        if (change := _change(layer)) is not None:
            change.frozen.requires_grad_(True)
            products += 3 * 2 * len(change.by.a) * change.frozen.numel()
    plain = flops.count(_merge(meta), shape)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return replace(plain, trainable=trainable, training_flops=plain.training_flops + products // batch_size)


def _layers(model: nn.Module, strategy: Lora) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers that the strategy names, by path. Left out are the classifier, and weights that several layers share.

    Raises InputError where there is none.
    """
    every = {path: m for path, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    owned = {id(part) for classifier in backbones.classifiers(model) for part in classifier.modules()}
    uses = Counter(id(_weight(layer)) for layer in every.values())
    within = tuple(f"{path}." for path, m in model.named_modules() if "attention" in type(m).__name__.lower())
    chosen = {
        "all": lambda path, layer: True,
        "linear": lambda path, layer: isinstance(layer, nn.Linear),
        "conv": lambda path, layer: isinstance(layer, nn.Conv2d),
        "pointwise": lambda path, layer: _weight(layer)[0, 0].numel() == 1 and getattr(layer, "groups", 1) == 1,
        "attention": lambda path, layer: path.startswith(within),
    }[strategy.layers]
    found = {
        path: layer
        for path, layer in every.items()
        if id(layer) not in owned and uses[id(_weight(layer))] == 1 and chosen(path, layer)
    }
    if not found:
        raise InputError(
            f"Strategy lora with strategy.layers={strategy.layers} needs a backbone that has such layers beside its "
            "classifier; this one has none. Choose other layers: all, linear, conv, pointwise or attention."
        )
    return found


class _Change(NamedTuple):
    """Of an adapted layer."""

    frozen: nn.Parameter
    by: LowRank


def _change(layer: nn.Module) -> _Change | None:
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    weight = cast(parametrize.ParametrizationList, cast(nn.ModuleDict, layer.parametrizations)["weight"])
    by = weight[0]
    return _Change(cast(nn.Parameter, weight.original), by) if isinstance(by, LowRank) else None


def _weight(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The parameter, which several layers may share; that of an adapted layer is the frozen one."""
    change = _change(layer)
    return layer.weight if change is None else change.frozen


def _merge(model: nn.Module) -> nn.Module:
    """Make the adapted layers of `model` plain ones. Their weights require gradients where the frozen ones did.

    `parametrize.remove_parametrizations` would change the class of a layer, which it shares with those it is a copy of.
    """
    for layer in list(model.modules()):
        if (change := _change(layer)) is not None:
            weight = nn.Parameter(cast(Tensor, layer.weight).detach(), change.frozen.requires_grad)
            layer.__class__ = parametrize.type_before_parametrizations(layer)
            del layer.parametrizations
            layer.weight = weight
    return model
