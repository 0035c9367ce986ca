"""Labelled images, and their stratified split into train and validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suite.data.rows import Rows
from suite.spec import Fit, Placement

VALIDATION_FRACTION = 0.1  # of the official training images

SPLIT_SEED = 1998  # of the validation split; constant, so that figures of different studies stay comparable


@dataclass(frozen=True)
class Labelled:
    images: np.ndarray | Rows  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainingPool:
    """The images that train and validation are drawn from."""

    labelled: Labelled
    data_hash: str  # SHA-256 over the files


@dataclass(frozen=True)
class Info:
    """The description of a data set and of one split of it."""

    name: str
    title: str
    classes: tuple[str, ...]
    channels: int
    size: int  # pixels; images are square
    mean: tuple[float, ...]  # of the training images scaled to 0..1, one a channel
    std: tuple[float, ...]
    data_hash: str  # SHA-256 over the training files' own
    split_hash: str  # SHA-256 over the indices of train and validation
    decoded: bool = False  # images are files of their own, decoded to the size that a model takes
    fit: Fit = "crop"  # how pictures of other shapes become square
    placement: Placement | None = None  # how pictures of glyphs from elsewhere are brought into the data set's form
    white: float | None = None  # value of 16-bit and floating-point pictures that is white; None: there are none


@dataclass(frozen=True)
class Splits:
    train: Labelled
    validation: Labelled
    info: Info


def split_indices(
    labels: np.ndarray,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    validation: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of train and validation, stratified by class.

    Args:
        labels: (N,) integers.
        validation: (N,) bool, which of them are for validation; None: a tenth of each class.
        fraction: the share of the training labels to keep, in (0, 1]. Smaller shares are subsets of larger ones.
        seed: chooses which training labels are kept. It does not affect validation.
        limit: the most indices in each part, taken evenly from the classes.
    """
    validation_order = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    train_order = np.random.Generator(np.random.PCG64([SPLIT_SEED, seed]))
    train: list[np.ndarray] = []
    held_out: list[np.ndarray] = []
    present, counts = np.unique(labels, return_counts=True)
    for label, count in zip(present, _validation_counts(counts), strict=True):
        rows = validation_order.permutation(np.flatnonzero(labels == label))
        if validation is None:
            first = min(max(1, count), max(len(rows) - 1, 0))
            own, rest = rows[:first], rows[first:]
        else:
            own, rest = rows[validation[rows]], rows[~validation[rows]]
        rest = train_order.permutation(rest)
        kept = min(len(rest), max(1, round(fraction * len(rest))))
        held_out.append(own)
        train.append(rest[:kept])
    return _limited(train, limit), _limited(held_out, limit)


def _validation_counts(counts: np.ndarray) -> list[int]:
    """How many images of each class go into validation, by the largest remainder method.

    The sum is VALIDATION_FRACTION of all images, rounded. https://en.wikipedia.org/wiki/Quota_method
    """
    exact = VALIDATION_FRACTION * counts
    found = np.floor(exact).astype(int)
    missing = max(0, round(VALIDATION_FRACTION * int(counts.sum())) - int(found.sum()))
    found[np.argsort(found - exact, kind="stable")[:missing]] += 1
    return [int(count) for count in found]


def _limited(groups: list[np.ndarray], limit: int | None) -> np.ndarray:
    """At most `limit` of the indices in all groups, taken from the groups in turn, sorted."""
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    if limit is not None and groups:
        ranks = np.concatenate([np.arange(len(group)) for group in groups])
        rows = rows[np.argsort(ranks, kind="stable")[:limit]]
    return np.sort(rows)
