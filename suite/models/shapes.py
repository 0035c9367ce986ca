"""Models whose layers have other sizes than their backbone's: rebuilt from the shapes of their state dict.

Pruning removes channels, and a low-rank factorisation splits linear layers. Neither needs a description of its own in
files: the names and shapes of the tensors say all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from suite.errors import InputError, as_clause
from suite.models.backbones import Backbone, classifier_parameters, classifiers, embed_size


class LowRank(nn.Module):
    """A linear layer of low rank: (B, ..., in) to (B, ..., out) through `rank` values between."""

    def __init__(self, inputs: int, rank: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)

    @property
    def weight(self) -> Tensor:
        """(out, in), of the layer as one matrix: some models read it."""
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor | None:
        return self.up.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


def fit_shapes(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Give the layers of `model`, a backbone as it is built, the sizes of those whose state dict is `tensors`.

    Parameters that change have no values of use until the state dict is loaded, which also finds what does not fit.
    Nothing changes where all shapes are equal. Returns `model`.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and f"{name}.weight" not in tensors and f"{name}.down.weight" in tensors:
            rank, inputs = tensors[f"{name}.down.weight"].shape
            outputs = len(tensors[f"{name}.up.weight"])
            like = layer.weight
            split = LowRank(inputs, rank, outputs, layer.bias is not None)
            model.set_submodule(name, split.to(like.device, like.dtype).train(layer.training))
    for name, layer in model.named_modules():
        resized = [_resized(layer, key, tensors.get(f"{name}.{key}" if name else key)) for key in _own(layer)]
        if any(resized):
            _count_anew(layer)
    _count_features(model)
    return model


def load_reshaped(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load the state dict of a model whose layers have other sizes into `model`, built as its backbone.

    Raises InputError, naming `where`, where it is of another backbone, or for other images or classes.
    """
    ends = [classifier_parameters(model), _first_weights(model)]
    before = {name: value.shape for name, value in model.state_dict().items()}
    try:
        fit_shapes(model, tensors).load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"The weights in {where} are of another model: {as_clause(error)}.") from None
    after = {name: value.shape for name, value in model.state_dict().items()}
    if any(before[n][:1] != after[n][:1] for n in ends[0]) or any(before[n][1:] != after[n][1:] for n in ends[1]):
        raise InputError(
            f"The compressed model in {where} is for images or classes of another kind than these. Start from one that "
            "was trained on images with as many channels and classes."
        )


def _first_weights(model: nn.Module) -> set[str]:
    """Names of the weights that see the image."""
    names: str | Sequence[str] = cast(Backbone, model).pretrained_cfg.get("first_conv") or ()
    wanted = {f"{name}.weight" for name in ([names] if isinstance(names, str) else names)}
    return wanted & {name for name, _ in model.named_parameters()}


def _own(layer: nn.Module) -> list[str]:
    parts = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
    return [key for key, _ in parts]


def _resized(layer: nn.Module, key: str, wanted: Tensor | None) -> bool:
    """Give a tensor of a layer the shape of `wanted`; returns whether it had another."""
    own: Tensor = getattr(layer, key)
    if wanted is None or own.shape == wanted.shape or own.ndim != wanted.ndim:
        return False
    new = torch.zeros(wanted.shape, dtype=own.dtype, device=own.device)
    setattr(layer, key, nn.Parameter(new, own.requires_grad) if isinstance(own, nn.Parameter) else new)
    return True


def _count_anew(layer: nn.Module) -> None:
    """Let a layer's own counts of channels and features follow from its tensors."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        outputs, inputs = layer.weight.shape[:2]
        if layer.groups == layer.in_channels and layer.groups > 1:  # depthwise
            layer.groups = outputs * layer.groups // layer.out_channels
        layer.in_channels, layer.out_channels = inputs * layer.groups, outputs
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        layer.num_features = len(layer.weight)
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = len(layer.weight)


def _count_features(model: nn.Module) -> None:
    """Let the model's number of features be the inputs of its classifier, where it has one that tells."""
    found = classifiers(model)
    if len(found) == 1 and isinstance(found[0], nn.Linear) and found[0].in_features != embed_size(model):
        vars(model).update(num_features=found[0].in_features, head_hidden_size=found[0].in_features)
