"""What a classifier gets wrong: confusion matrix, calibration, and its most confident mistakes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from suite.spec import Bin, Mistake, Mistakes
from suite.training.evaluation import Examples

MOST_CONFIDENT = 16  # number of mistakes kept with their pixels

LARGEST = 64  # pixels a side of these


def find_mistakes(logits: Tensor, examples: Examples, classes: tuple[str, ...]) -> Mistakes:
    """Compare a model's predictions with the labels.

    `logits` (N, classes) are on the CPU; `examples` holds the N images (N, C, H, W) uint8 and labels they belong to.
    """
    labels = examples.labels.cpu()
    probability, predicted = logits.double().softmax(1).max(1)
    counts = torch.bincount(labels * len(classes) + predicted, minlength=len(classes) ** 2)
    bins = reliability(probability.numpy(), (predicted == labels).numpy())
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[probability[wrong].argsort(descending=True)][:MOST_CONFIDENT]
    return Mistakes(
        classes=classes,
        confusion=_rows(counts.view(len(classes), len(classes))),
        ece=calibration_error(bins),
        bins=tuple(bins),
        worst=tuple(
            Mistake(
                index=int(i),
                label=int(labels[i]),
                predicted=int(predicted[i]),
                probability=round(float(probability[i]), 6),
                **_pixels(examples.inputs[int(i)]),
            )
            for i in worst
        ),
    )


def _pixels(image: Tensor) -> dict[str, Any]:
    """The fields `pixels` and `rgb` of an image (C, H, W), made small."""
    small = _small(image)
    colours = len(small) == 3 and not bool((small[0] == small[1]).all() and (small[1] == small[2]).all())
    rgb = small.round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy().tobytes() if colours else b""
    return {
        "pixels": _rows(small.mean(0).round().int()),
        "rgb": base64.b64encode(rgb).decode() if colours else None,
    }


def _small(image: Tensor) -> Tensor:
    """An image (C, H, W) as float (C, H', W') of at most LARGEST pixels a side."""
    image = image.float()
    if (longest := max(image.shape[-2:])) > LARGEST:
        size = [max(1, round(side * LARGEST / longest)) for side in image.shape[-2:]]
        image = F.interpolate(image[None], size=size, mode="area")[0]
    return image


def balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float:
    """The mean recall of the classes that have images (Brodersen et al., 2010, https://doi.org/10.1109/ICPR.2010.764).

    `confusion` has counts (classes, classes) as [label][predicted].
    """
    recalls = [row[label] / sum(row) for label, row in enumerate(confusion) if sum(row)]
    return sum(recalls) / len(recalls) if recalls else 0.0


def _rows(table: Tensor) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in table.tolist())


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> list[Bin]:
    """A reliability diagram: predictions in bins of equal width, empty ones left out.

    confidence: (N,) in 0..1, the probability of the predicted class. correct: (N,) bool.
    """
    place = np.clip(np.ceil(np.asarray(confidence, dtype=np.float64) * bins).astype(int) - 1, 0, bins - 1)
    return [
        Bin(
            low=b / bins,
            high=(b + 1) / bins,
            count=int(here.sum()),
            confidence=float(np.mean(confidence[here], dtype=np.float64)),
            accuracy=float(np.mean(correct[here], dtype=np.float64)),
        )
        for b in range(bins)
        if (here := place == b).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error, 0..1: the mean gap between confidence and accuracy (Guo et al., 2017,
    arXiv:1706.04599)."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total if total else 0.0
