"""What a study reads: `search_splits` for a search, `test_split` for the final evaluation.

A search calls `describe` and `search_splits` only, which never open a file of the test set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from suite.data import folder
from suite.data.cache import FileStatus, combined_sha256, expected_sha256, file_status, parse_part, raw_files
from suite.data.fetch import fetch
from suite.data.inspection import OnProgress
from suite.data.listing import canonical
from suite.data.registry import entry, is_own
from suite.data.splits import Info, Labelled, Splits, TrainingPool, split_indices
from suite.errors import InputError, WorkError
from suite.spec import View


@dataclass(frozen=True)
class Description:
    """A data set and one split of it, without images."""

    info: Info
    train_labels: np.ndarray  # (N,) int64
    validation_labels: np.ndarray  # (M,) int64
    notes: tuple[str, ...] = ()  # what a person should know, for example which files were left out


def info(name: str) -> Info:
    """The description of a data set, without opening images; hashes that are not known yet are empty.

    A data set of the user's own pictures is described by reading it. Raises InputError.
    """
    if is_own(name):
        return describe(name).info
    expected = [FileStatus(path, "ok", expected_sha256(name, i)) for i, path in enumerate(raw_files(name)[:2])]
    data_hash = combined_sha256(expected) if all(status.sha256 for status in expected) else ""
    return _named_info(name, data_hash, "")


def _named_info(name: str, data_hash: str, split_hash: str) -> Info:
    known = entry(name)
    return Info(
        name=name,
        title=known.title,
        classes=known.classes,
        channels=known.channels,
        size=known.size,
        mean=known.mean,
        std=known.std,
        data_hash=data_hash,
        split_hash=split_hash,
        placement=known.placement,
    )


def describe(
    name: str,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    skip_broken: bool = True,
    on_progress: OnProgress = folder.silent,
) -> Description:
    """A data set and the split that `search_splits` makes with these arguments.

    With `skip_broken` pictures that cannot be read are left out, and named by `notes`. Raises InputError and
    WorkError.
    """
    if is_own(name):
        own = folder.read(canonical(name), on_progress)
        if not skip_broken:
            own.refuse_broken()
        train, validation = _own_split(own, fraction, seed, limit)
        return Description(
            _own_info(name, own, train, validation), own.labels[train], own.labels[validation], tuple(own.notes())
        )
    splits = search_splits(name, fraction=fraction, seed=seed, limit=limit)
    return Description(splits.info, splits.train.labels, splits.validation.labels)


def _own_split(own: folder.OwnPictures, fraction: float, seed: int, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    _check_arguments(fraction, limit)
    return split_indices(own.labels, fraction=fraction, seed=seed, limit=limit, validation=own.own_validation)


def _own_info(name: str, own: folder.OwnPictures, train: np.ndarray, validation: np.ndarray) -> Info:
    return Info(
        name=name,
        title=name,
        classes=own.listing.classes,
        channels=own.summary.channels,
        size=own.size,
        mean=own.summary.mean,
        std=own.summary.std,
        data_hash=own.data_hash,
        split_hash=_split_hash(train, validation),
        decoded=True,
        fit=own.fit,
        white=own.summary.white,
    )


def prepare(
    name: str,
    training: Iterable[View],
    validation: Iterable[View],
    *,
    limit: int | None = None,
    skip_broken: bool = False,
    on_progress: OnProgress = folder.silent,
) -> list[str]:
    """Decode the user's own pictures ahead, so that studies find them in the cache.

    `training` and `validation` are the views in which the images of each split are needed. Returns what a person should
    know of them, in sentences. Raises InputError, which names all pictures that cannot be read unless `skip_broken`
    says to leave them out.
    """
    training, validation = set(training), set(validation)
    while True:
        own = folder.read(canonical(name), on_progress)
        if not skip_broken:
            own.refuse_broken()
        splits = _own_split(own, 1.0, 0, limit)
        notes = own.notes()
        try:
            for view in sorted(training | validation, key=str):
                needed = [rows for rows, views in zip(splits, (training, validation), strict=True) if view in views]
                rows = np.concatenate(needed)
                if blank := own.pictures(rows, view, on_progress)[1]:
                    notes.append(
                        f"{blank} of the {len(rows)} pictures are of one colour at {view.side} px ({view.fit}), as "
                        "the model sees them"
                    )
            return notes
        except folder.BrokenPictures:  # they are left out from now on
            if not skip_broken:
                raise


def default_view(info: Info) -> View:
    """Pictures at the native size of a data set of the user's own pictures."""
    return View(info.size, info.channels, info.fit, 1.0, "bicubic", (0,) * info.channels, info.white)


def search_splits(
    name: str,
    *,
    fraction: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    view: View | None = None,
    training_view: View | None = None,
    on_progress: OnProgress = folder.silent,
) -> Splits:
    """The training and validation images: all the data that a search reads.

    Validation is a stratified tenth of the official training images, the same for every `fraction` and `seed`, or the
    validation part of the user's own pictures. A data set that is not cached is fetched.

    Args:
        name: a name in `DATASETS`, "folder:PATH" or "csv:FILE".
        fraction: the share of the remaining training labels to keep, stratified, in (0, 1]. Smaller shares are
            subsets of larger ones.
        seed: chooses which labels are kept.
        limit: the most images in each split, stratified, for quick tries.
        view: how the user's own pictures are decoded; None: at their native size. Other data sets have one form.
        training_view: the same for the training images; None: as `view`.
        on_progress: called while pictures are decoded.

    Raises:
        InputError: an argument is out of range, or the files are damaged.
        WorkError: the data set could not be fetched.
    """
    _check_arguments(fraction, limit)
    if is_own(name):
        own = folder.read(canonical(name), on_progress)
        train, validation = _own_split(own, fraction, seed, limit)
        known = _own_info(name, own, train, validation)
        view = view or default_view(known)
        both = [
            Labelled(own.pictures(rows, shown, on_progress)[0], own.labels[rows])
            for rows, shown in ((train, training_view or view), (validation, view))
        ]
        return Splits(both[0], both[1], known)
    pool = _training(name)
    images, labels = pool.labelled.images, pool.labelled.labels
    train, validation = split_indices(labels, fraction=fraction, seed=seed, limit=limit)
    parts = [Labelled(images[rows], labels[rows]) for rows in (train, validation)]
    return Splits(parts[0], parts[1], _named_info(name, pool.data_hash, _split_hash(train, validation)))


def validation_files(name: str, *, limit: int | None = None) -> tuple[list[Path], np.ndarray, str]:
    """The files of the validation pictures of a data set of the user's own, their labels (M,) and its data hash.

    They are those of `search_splits`, in its order. Raises InputError.
    """
    return _own_files(name, limit, part=1)


def training_files(name: str, *, limit: int | None = None) -> tuple[list[Path], np.ndarray, str]:
    """As `validation_files`, of the training pictures."""
    return _own_files(name, limit, part=0)


def _own_files(name: str, limit: int | None, part: int) -> tuple[list[Path], np.ndarray, str]:
    own = folder.read(canonical(name))
    rows = _own_split(own, 1.0, 0, limit)[part]
    files = own.files
    return [files[i] for i in rows], own.labels[rows], own.data_hash


def _check_arguments(fraction: float, limit: int | None) -> None:
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; it is a part of the training labels, above 0 and at most 1.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it is a number of images, at least 1.")


def _split_hash(train: np.ndarray, validation: np.ndarray) -> str:
    return hashlib.sha256(np.sort(train).tobytes() + b"/" + np.sort(validation).tobytes()).hexdigest()


@lru_cache(maxsize=2)
def _training(name: str) -> TrainingPool:
    """The official training part. It is kept in memory, since every arm of a study reads it."""
    labelled, data_hash = _read_part(name, "train")
    return TrainingPool(labelled, data_hash)


def test_split(name: str, view: View | None = None) -> Labelled:
    """The official test images, for the final evaluation and the benchmarks; `view` as in `search_splits`.

    Raises InputError, WorkError.
    """
    if is_own(name):
        images, labels = folder.read_test(canonical(name), view or default_view(info(name)))
        return Labelled(images, labels)
    return _read_part(name, "test")[0]


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
