"""Whether a map shows what an answer depends on: how fast its probability falls while pixels are removed.

After the deletion metric of Petsiuk et al., 2018 (arXiv:1806.07421), over foreground pixels only: the removal of a
pixel that has the baseline's value changes nothing, and on a black ground those would decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor, nn

PARTS = 16  # in which the foreground is removed

ORDERS = 4  # random ones, whose mean is the reference


def foreground(x: Tensor, baseline: Tensor) -> Tensor:
    """(size * size,) bool: the pixels of an input (1, C, size, size) that differ from the baseline."""
    return ((x - baseline).abs().amax(1) > 1e-5).flatten()


def deletion(model: nn.Module, x: Tensor, baseline: Tensor, target: int, values: Tensor, batch: int) -> float:
    """The mean probability of the class while foreground pixels are removed, those of the largest `values` first.

    Equal values are taken in random order, so that a map without any gives no other result than chance.

    x, baseline: (1, C, size, size). values: (size, size). batch: inputs that may be computed together.
    """
    places = next(_shuffled(x, baseline))
    order = places[values.flatten().to(places.device)[places].argsort(descending=True, stable=True)]
    return _mean_probability(model, x, baseline, target, order, batch)


def random_deletion(model: nn.Module, x: Tensor, baseline: Tensor, target: int, batch: int) -> float:
    """The same for pixels that are removed in random orders, always the same ones."""
    orders = islice(_shuffled(x, baseline), ORDERS)
    return sum(_mean_probability(model, x, baseline, target, order, batch) for order in orders) / ORDERS


def _shuffled(x: Tensor, baseline: Tensor) -> Iterator[Tensor]:
    """The places of the foreground in random orders, always the same ones."""
    places = foreground(x, baseline).nonzero().flatten()
    generator = torch.Generator().manual_seed(0)
    while True:
        yield places[torch.randperm(len(places), generator=generator).to(places.device)]


@torch.no_grad()
def _mean_probability(model: nn.Module, x: Tensor, baseline: Tensor, target: int, order: Tensor, batch: int) -> float:
    inputs = x.contiguous().repeat(PARTS - 1, 1, 1, 1).flatten(2)
    nothing = baseline.flatten(2)[0]
    for part in range(1, PARTS):
        gone = order[: round(len(order) * part / PARTS)]
        inputs[part - 1][:, gone] = nothing[:, gone]
    parts = inputs.view(-1, *x.shape[1:]).split(batch)
    return float(torch.cat([model(part).float().softmax(1)[:, target] for part in parts]).mean())
