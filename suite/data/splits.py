"""Stratified splits with a fixed seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VALIDATION = 0.1  # of the official training images

SPLIT_SEED = 1998  # of that part; never changes, so that figures stay comparable


@dataclass(frozen=True)
class Labelled:
    images: np.ndarray  # (N, C, H, W) uint8, C-contiguous
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True)
class Info:
    name: str
    title: str
    classes: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_hash: str  # SHA-256 over the training files' own
    split_hash: str  # SHA-256 over the indices of train and validation


@dataclass(frozen=True)
class Splits:
    train: Labelled
    validation: Labelled
    info: Info


def split(
    labels: np.ndarray, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of train and validation; see `search_splits`."""
    fixed = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    drawn = np.random.Generator(np.random.PCG64([SPLIT_SEED, seed]))
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    present, counts = np.unique(labels, return_counts=True)
    for label, share in zip(present, shares(counts), strict=True):
        rows = fixed.permutation(np.flatnonzero(labels == label))
        held = min(max(1, share), max(len(rows) - 1, 0))
        kept = drawn.permutation(rows[held:])
        keep = min(len(kept), max(1, round(fraction * len(kept))))
        validation.append(rows[:held])
        train.append(kept[:keep])
    return cut(train, limit), cut(validation, limit)


def shares(counts: np.ndarray) -> list[int]:
    """A tenth of each class, rounded so that the sum is a tenth of all: the largest remainders are rounded up."""
    wanted = VALIDATION * counts
    shares = np.floor(wanted).astype(int)
    missing = max(0, round(VALIDATION * int(counts.sum())) - int(shares.sum()))
    shares[np.argsort(shares - wanted, kind="stable")[:missing]] += 1
    return [int(share) for share in shares]


def cut(groups: list[np.ndarray], limit: int | None) -> np.ndarray:
    """At most `limit` rows, taken from the classes in turn, sorted."""
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    if limit is not None and groups:
        places = np.concatenate([np.arange(len(group)) for group in groups])
        rows = rows[np.argsort(places, kind="stable")[:limit]]
    return np.sort(rows)
