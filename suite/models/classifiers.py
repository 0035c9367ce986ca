"""The classifier of a backbone, and putting a head in its place.

Most backbones classify by one linear layer on their features (B, D). timm also has 1x1 convolutions on features
(B, D, 1, 1), two linear layers whose scores are averaged (distilled models), layers that each see a part of the
features (CrossViT, EfficientViM), and small networks. A linear head is written into the layers of the first three
kinds, so that the model stays one that timm can load. VOLO adds the scores of an auxiliary layer to those of its
classifier; that layer is set to zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from suite.errors import InputError
from suite.models import heads
from suite.models.backbones import classifiers, embed_size
from suite.spec import HeadSpec


def attach(model: nn.Module, head: nn.Module) -> nn.Module:
    """Let `model` classify by `head`, its standardisation folded into the weights. Returns `model`.

    Raises InputError as `refuse_unfit` does.
    """
    fitted = head.folded() if isinstance(head, heads.Head) else head
    _zero_auxiliary(model)
    if isinstance(fitted, nn.Linear) and holds_linear(model):
        _write(model, fitted)
    else:
        replace(model, fitted)
    return model


def replace(model: nn.Module, head: nn.Module) -> None:
    """Put `head`, a module from features (B, D) to scores, in place of the one classifier."""
    _refuse_several(model)
    (name,) = _names(model)
    if not isinstance(model.get_submodule(name), nn.Linear):
        head.register_forward_pre_hook(_flatten)
    model.set_submodule(name, head)


def name_of(model: nn.Module) -> str:
    """The module path of the one classifier. Raises InputError for models with several."""
    _refuse_several(model)
    return _names(model)[0]


def holds_linear(model: nn.Module) -> bool:
    """Whether the classifier can take the weights of a linear head as they are."""
    size = embed_size(model)
    return all(_is_linear(layer, size) for layer in classifiers(model))


def refuse_unfit(model: nn.Module, spec: HeadSpec) -> None:
    """Raises InputError where no head of this kind can take the classifier's place."""
    if not (heads.is_linear(spec) and holds_linear(model)):
        _refuse_several(model)


@torch.no_grad()
def zero(model: nn.Module) -> None:
    """Set weights and biases of the classifier's last layer to zero.

    All classes of a new task then start with equal probability, and the first gradients do not reach the features
    through random classifier weights. Earlier layers stay: a network of zeros alone would not learn.
    """
    _zero_auxiliary(model)
    for classifier in classifiers(model):
        layers = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        for layer in layers:
            if layer.weight.shape[0] == layers[-1].weight.shape[0]:  # the last one, or two that are averaged
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()


@torch.no_grad()
def _zero_auxiliary(model: nn.Module) -> None:
    """Set to zero the layers that timm names as classifiers of the model, but does not count as its classifier."""
    named: str | tuple[str, ...] = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    owned = {id(part) for classifier in classifiers(model) for part in classifier.modules()}
    modules = dict(model.named_modules())
    for name in (named,) if isinstance(named, str) else named:
        layer = modules.get(name)
        if layer is not None and id(layer) not in owned:
            for parameter in layer.parameters():
                parameter.zero_()


def _is_linear(layer: nn.Module, size: int) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.weight.shape[1:] == (size, 1, 1) and layer.bias is not None
    return isinstance(layer, nn.Linear) and layer.in_features == size and layer.bias is not None


@torch.no_grad()
def _write(model: nn.Module, head: nn.Linear) -> None:
    """The mean of scores of layers with the same weights is the score of the mean of their features."""
    for layer in classifiers(model):
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        layer.weight.copy_(head.weight.view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.copy_(head.bias)


def _names(model: nn.Module) -> list[str]:
    owned = {id(layer) for layer in classifiers(model)}
    return [name for name, module in model.named_modules() if id(module) in owned]


def _refuse_several(model: nn.Module) -> None:
    if len(_names(model)) != 1:
        raise InputError(
            f"This backbone has {len(_names(model))} classifiers, for which no such head can be put in. Train it with "
            "strategy full, or choose another backbone; two classifiers on the same features take the linear heads "
            "linear, ridge and logreg."
        )


def _flatten(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Features (B, D, 1, 1), as 1x1 convolutions take them, to (B, D)."""
    return (given[0].flatten(1),)
