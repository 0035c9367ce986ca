"""The layer whose maps Grad-CAM weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from suite.models.backbones import Backbone

CELLS = 7  # a side of the smallest map that is taken, as the last one of common networks at 224 px

SHARE = 6  # of small inputs: a side of the map is at least a sixth of the input's, 5 cells of 28 px


class Layer(NamedTuple):
    name: str
    module: nn.Module
    cells: tuple[int, int]  # rows and columns of its map


def fewest_cells(size: int) -> int:
    """Cells a side that a map of an input of `size` pixels must have. Coarser maps show no place."""
    return min(CELLS, -(-size // SHARE))


def choose(model: nn.Module, x: Tensor) -> Layer | None:
    """The last layer of `model` whose maps (B, C, h, w) are fine enough (`fewest_cells`); None where there is none.

    Blocks come before the layers within them, since a layer within a residual block does not see what goes past it.
    `x` is one input (1, C, size, size).
    """
    if not _ends_in_maps(model, x):
        return None
    least = fewest_cells(x.shape[-1])
    for modules in (_blocks(model), model.named_modules()):
        fine = [layer for layer in _maps(model, x, modules) if min(layer.cells) >= least]
        if fine:
            return fine[-1]
    return None


@torch.no_grad()
def _ends_in_maps(model: nn.Module, x: Tensor) -> bool:
    """Whether the features are maps (B, C, h, w), and neither tokens nor, as timm tells, maps with channels last."""
    if not hasattr(model, "forward_features"):  # several networks together
        return False
    features = cast(Backbone, model).forward_features(x)
    return isinstance(features, Tensor) and features.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NCHW"


def _blocks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The children of the model; of those that only hold others, their children."""
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and len(child):
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


@torch.no_grad()
def _maps(model: nn.Module, x: Tensor, modules: Iterable[tuple[str, nn.Module]]) -> list[Layer]:
    """The modules that give maps, in the order in which they have run for the last time."""
    found: dict[str, Layer] = {}
    with ExitStack() as hooks:
        for name, module in modules:

            def note(module: nn.Module, given: Any, output: Any, name: str = name) -> None:
                found.pop(name, None)
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] > 1:
                    found[name] = Layer(name, module, (output.shape[2], output.shape[3]))

            if name:
                hooks.callback(module.register_forward_hook(note).remove)
        model(x)
    return list(found.values())
