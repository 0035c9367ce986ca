"""The training images whose features are nearest to those of a picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suite.data.splits import Labelled
from suite.errors import InputError, WorkError
from suite.explaining.raster import raster, shrunk
from suite.explaining.subject import Subject
from suite.models import features
from suite.models.backbones import embed
from suite.models.streaming import on_device
from suite.spec import Neighbour

OnStep = Callable[[int, int], None]  # called with the images done and the images in total

LARGEST = 64  # pixels a side of a neighbour's picture


class Nearest:
    """The training part of a model's data set by its features; the first use computes them, the cache keeps them.

    Raises InputError and WorkError where the images are not on this machine.
    """

    def __init__(self, subject: Subject, device: torch.device, on_step: OnStep = lambda *_: None) -> None:
        if not hasattr(subject.model, "forward_head"):
            raise InputError("Several networks together have no features in common.")
        splits = subject.splits()
        if splits.info.channels != subject.expects.channels:
            raise InputError(f"The images of {subject.dataset} have another number of colours than the model takes.")
        self.model, self.train = subject.model, splits.train
        self.unit = F.normalize(_features(subject, splits.train, splits.info.data_hash, device, on_step), dim=1)

    @torch.no_grad()
    def of(self, x: Tensor, k: int) -> tuple[Neighbour, ...]:
        """The k nearest of one input (1, C, size, size), by the cosine of the angle between features."""
        similarity = self.unit @ F.normalize(embed(self.model, x).float(), dim=1)[0]
        found = similarity.topk(min(k, len(similarity)))
        return tuple(
            Neighbour(
                index=index,
                label=int(self.train.labels[index]),
                distance=min(2.0, max(0.0, 1 - value)),
                picture=raster(shrunk(np.asarray(self.train.images[index]), LARGEST)),
            )
            for value, index in zip(found.values.tolist(), found.indices.tolist(), strict=True)
        )


def _features(subject: Subject, train: Labelled, data_hash: str, device: torch.device, on_step: OnStep) -> Tensor:
    """Features (N, D) of the training images, with progress."""
    key = f"{data_hash}/train/{subject.fraction}/{subject.limit}"
    images = on_device(train.images, device)
    work = features.cached(subject.model, images, subject.expects, torch.float32, images_hash=key)
    while True:
        try:
            done = next(work)
        except StopIteration as end:
            return end.value[0]
        if done >= 0:
            on_step(min(done, len(train)), len(train))


def nearest_or_why_not(
    subject: Subject, device: torch.device, on_step: OnStep = lambda *_: None
) -> tuple[Nearest | None, str]:
    """The neighbours, or a sentence that says why there are none."""
    try:
        return Nearest(subject, device, on_step), ""
    except (InputError, WorkError, OSError) as error:
        return None, f"Nearest training images are left out. {error}"
