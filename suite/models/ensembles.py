"""Several models as one: the mean of their probabilities, over several views of each image where these are asked for.

Averaging probabilities of independently trained networks: Lakshminarayanan et al., 2017, https://arxiv.org/abs/1612.01474.
Averaging over shifted and mirrored images: Krizhevsky et al., 2012, section 4.1, https://doi.org/10.1145/3065386.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.models.preprocessing import resize
from suite.spec import Preprocess

Views = Literal["shift", "flip"]

VIEWS: tuple[Views, ...] = ("shift", "flip")


def known_views(names: Sequence[str]) -> tuple[Views, ...]:
    """Each view once, in the order of `VIEWS`. Raises InputError for names of no view."""
    for name in names:
        if name not in VIEWS:
            raise InputError(f"There are no views {name!r}; --tta takes {' or '.join(VIEWS)}.")
    return tuple(view for view in VIEWS if view in names)


class Ensemble(nn.Module):
    """From images (B, C, stored, stored), normalised as `given` says, to logits (B, classes).

    The logits are logarithms of the mean probabilities, so that their softmax is that mean.

    Args:
        models: the members, from images that are normalised and sized as their `expects` say to logits (B, classes).
        expects: one for each member, of the same stored pictures.
        given: what the ensemble itself takes, see `shared_input`.
        views: "shift" adds the four shifts by one pixel of each stored picture, "flip" the mirror images of all.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        expects: Sequence[Preprocess],
        given: Preprocess,
        views: Sequence[Views] = (),
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(Member(model, own, given) for model, own in zip(models, expects, strict=True))
        self.views = tuple(views)

    def forward(self, x: Tensor) -> Tensor:
        each = self.log_probabilities(x).flatten(0, 1)
        return mean_of(each)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Of every member for every view: (members, views, B, classes). The first view is the image as it is."""
        seen = viewed(x, self.views)
        batch = torch.cat(seen)
        found = [member(batch).float().log_softmax(1) for member in self.members]
        return torch.stack([scores.unflatten(0, (len(seen), -1)) for scores in found])

    def extra_repr(self) -> str:
        return f"views={self.views}"  # part of the key under which costs are cached


class Member(nn.Module):
    """A model behind the step from the ensemble's input to its own: another size, mean or standard deviation."""

    offset: Tensor
    gain: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, expects: Preprocess, given: Preprocess) -> None:
        super().__init__()
        self.model = model
        self.expects = expects
        self.as_given = (expects.size, expects.mean, expects.std) == (given.size, given.mean, given.std)
        for name, values in (  # to pixels 0..255, and from them; not weights, so not part of the state
            ("offset", [255 * value for value in given.mean]),
            ("gain", [255 * value for value in given.std]),
            ("mean", [255 * value for value in expects.mean]),
            ("std", [255 * value for value in expects.std]),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.as_given:
            return self.model(x)
        pixels = resize(x * self.gain + self.offset, self.expects)
        return self.model((pixels - self.mean) / self.std)


def mean_of(log_probabilities: Tensor) -> Tensor:
    """The logarithm of the mean of probabilities over the first dimension, from their logarithms."""
    return log_probabilities.logsumexp(0) - math.log(len(log_probabilities))


def viewed(x: Tensor, views: Sequence[Views]) -> list[Tensor]:
    """The views of images (B, C, H, W), each of the same shape; the first one is the image itself.

    Shifts repeat the pixels at the edge. With both kinds of views there are ten.
    """
    seen = [x]
    if "shift" in views:
        height, width = x.shape[-2:]
        wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
        corners = ((0, 1), (2, 1), (1, 0), (1, 2))
        seen += [wide[..., top : top + height, left : left + width] for top, left in corners]
    if "flip" in views:
        seen += [view.flip(-1) for view in seen]
    return seen


def shared_input(expects: Sequence[Preprocess]) -> Preprocess:
    """The input of an ensemble: the stored picture at its own size, normalised as for the first member."""
    first = expects[0]
    return first.model_copy(update={"size": first.stored})


def same_pictures(first: Preprocess, second: Preprocess, *, decoded: bool) -> bool:
    """Whether two models start from the same stored pictures.

    `decoded`: their data set's pictures lie in files, which each view decodes in its own way. Images of other data sets
    are stored already, and the interpolation is that of a step after it.
    """
    if decoded:
        return first.view() == second.view() and first.placement == second.placement
    facts = ("channels", "stored", "placement", "white")
    return all(getattr(first, name) == getattr(second, name) for name in facts)
