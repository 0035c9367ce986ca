"""What a study reads: `search_splits` for a search, `test_split` for the final evaluation.

A search calls `search_splits` only, which never opens a file of the test set.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Literal

import numpy as np

from suite.data.cache import FileStatus, combined_sha256, expected_sha256, file_status, parse_part, raw_files
from suite.data.fetch import fetch
from suite.data.folder import read_folder, read_folder_test, root_of
from suite.data.registry import FOLDER_PREFIX, entry
from suite.data.splits import Info, Labelled, Splits, TrainingPool, split_indices
from suite.errors import InputError, WorkError


def info(name: str) -> Info:
    """The description of a data set, without opening images; hashes that are not known yet are empty.

    A folder of the user's own images is described by reading it. Raises InputError.
    """
    if name.startswith(FOLDER_PREFIX):
        return search_splits(name).info
    known = entry(name)
    expected = [FileStatus(path, "ok", expected_sha256(name, i)) for i, path in enumerate(raw_files(name)[:2])]
    data_hash = combined_sha256(expected) if all(status.sha256 for status in expected) else ""
    return Info(name, known.title, known.classes, known.channels, known.size, known.mean, known.std, data_hash, "")


def search_splits(name: str, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None) -> Splits:
    """The training and validation images: all the data that a search reads.

    Validation is a stratified tenth of the official training images, the same for every `fraction` and `seed`. A data
    set that is not cached is fetched.

    Args:
        name: a name in `DATASETS`, or "folder:PATH".
        fraction: the share of the remaining training labels to keep, stratified, in (0, 1]. Smaller shares are
            subsets of larger ones.
        seed: chooses which labels are kept.
        limit: the most images in each split, stratified, for quick tries.

    Raises:
        InputError: an argument is out of range, or the files are damaged.
        WorkError: the data set could not be fetched.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; it is a part of the training labels, above 0 and at most 1.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it is a number of images, at least 1.")
    pool = _training(name)
    images, labels = pool.labelled.images, pool.labelled.labels
    train, validation = split_indices(labels, fraction=fraction, seed=seed, limit=limit)
    split_hash = hashlib.sha256(np.sort(train).tobytes() + b"/" + np.sort(validation).tobytes()).hexdigest()
    title = name if name.startswith(FOLDER_PREFIX) else entry(name).title
    known = Info(
        name, title, pool.classes, pool.channels, images.shape[-1], pool.mean, pool.std, pool.data_hash, split_hash
    )
    parts = [Labelled(images[rows], labels[rows]) for rows in (train, validation)]
    return Splits(parts[0], parts[1], known)


@lru_cache(maxsize=2)
def _training(name: str) -> TrainingPool:
    """The official training part. It is kept in memory, since every arm of a study reads it."""
    if name.startswith(FOLDER_PREFIX):
        return read_folder(root_of(name))
    known = entry(name)
    labelled, data_hash = _read_part(name, "train")
    return TrainingPool(labelled, data_hash, known.classes, known.channels, known.mean, known.std)


def test_split(name: str) -> tuple[Labelled, Info]:
    """The official test images, for the final evaluation and the benchmarks. Raises InputError, WorkError."""
    known = search_splits(name).info
    if name.startswith(FOLDER_PREFIX):
        return read_folder_test(root_of(name), "L" if known.channels == 1 else "RGB"), known
    return _read_part(name, "test")[0], known


def _read_part(name: str, part: Literal["train", "test"]) -> tuple[Labelled, str]:
    """Images and labels of one official part, with one hash over both files; fetched where they are missing."""
    indices = {"train": (0, 1), "test": (2, 3)}[part]  # of ROLES
    statuses = [file_status(name, index, quick=False) for index in indices]
    if any(status.state == "missing" for status in statuses):
        fetch(name)
        statuses = [file_status(name, index, quick=False) for index in indices]
    for status in statuses:
        if status.state != "ok":
            raise InputError(
                f"{status.path} is {status.state}: it does not have the SHA-256 it should. "
                f"`mnist-suite data fetch {name}` replaces it."
            )
    try:
        images, labels = parse_part(name, statuses[0].path, statuses[1].path)
    except WorkError as error:
        raise InputError(f"{statuses[0].path.parent}: {error}. `mnist-suite data fetch {name}` replaces it.") from None
    if images.ndim == 3:
        images = images[:, None]
    return Labelled(images, labels.astype(np.int64)), combined_sha256(statuses)
