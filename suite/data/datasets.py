"""Data sets: what they are, that their files are what they should be, and how they are split.

The cache is laid out as torchvision lays it out; `sources` fills it. A search sees `search_splits` alone, which never
opens a test file.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

from suite.data.cache import FileStatus, check, digest, expected_sha256, files
from suite.data.folder import listed, read_folder, root_of
from suite.data.idx import parse_idx
from suite.data.pictures import load_picture
from suite.data.registry import FOLDER, agree, entry
from suite.data.splits import Info, Labelled, Splits, split
from suite.errors import InputError, WorkError


def _read(name: str, first: int) -> tuple[Labelled, str]:
    """Images and labels of the training (first=0) or test (first=2) files, with a hash of both."""
    statuses = [check(name, index, quick=False) for index in (first, first + 1)]
    if any(status.state == "missing" for status in statuses):
        from suite.data.fetch import fetch  # only where there is something to fetch

        fetch(name)
        statuses = [check(name, index, quick=False) for index in (first, first + 1)]
    for status in statuses:
        if status.state != "ok":
            raise InputError(
                f"{status.path} is {status.state}: it does not have the SHA-256 it should. "
                f"`mnist-suite data fetch {name}` replaces it."
            )
    try:
        images, labels = (parse_idx(status.path) for status in statuses)
        agree(name, images, labels)
    except WorkError as error:
        raise InputError(f"{statuses[0].path.parent}: {error}. `mnist-suite data fetch {name}` replaces it.") from None
    if images.ndim == 3:
        images = images[:, None]
    return Labelled(images, labels.astype(np.int64)), digest(statuses)


def info(name: str) -> Info:
    """What is known without opening images, with empty hashes where they are not known yet; a person's own folder
    has to be read for it. Raises InputError."""
    if name.startswith(FOLDER):
        return search_splits(name).info
    known = entry(name)
    expected = [FileStatus(p, "ok", expected_sha256(name, i, p)) for i, p in enumerate(files(name)[:2])]
    combined = digest(expected) if all(status.sha256 for status in expected) else ""
    return Info(name, known.title, known.classes, known.channels, known.size, known.mean, known.std, combined, "")


@lru_cache(maxsize=2)
def _training(name: str) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """The official training part, kept in memory: a study asks for it once an arm."""
    if name.startswith(FOLDER):
        return read_folder(root_of(name))
    known = entry(name)
    labelled, digest = _read(name, 0)
    return labelled, digest, known.classes, known.channels, known.mean, known.std


def search_splits(name: str, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None) -> Splits:
    """Train and validation, all that a search may see. Raises InputError, WorkError.

    Validation is a tenth of the official training images, by class, the same for every fraction. `fraction` keeps a
    part of the remaining labels, by class and nested (the 1 % lie within the 10 %); `seed` chooses which. `limit`
    cuts both splits, by class, for quick tries.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; it is a part of the training labels, above 0 and at most 1.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it is a number of images, at least 1.")
    labelled, digest, classes, channels, mean, std = _training(name)
    train, validation = split(labelled.labels, fraction=fraction, seed=seed, limit=limit)
    rows = hashlib.sha256(np.sort(train).tobytes() + b"/" + np.sort(validation).tobytes()).hexdigest()
    title = name if name.startswith(FOLDER) else entry(name).title
    known = Info(name, title, classes, channels, labelled.images.shape[-1], mean, std, digest, rows)
    parts = [Labelled(labelled.images[rows], labelled.labels[rows]) for rows in (train, validation)]
    return Splits(parts[0], parts[1], known)


def test_split(name: str) -> tuple[Labelled, Info]:
    """The official test images: for the final evaluation, and a benchmark. Raises InputError, WorkError."""
    known = search_splits(name).info
    if name.startswith(FOLDER):
        found, labels, _ = listed(root_of(name), test=True)
        mode = "L" if known.channels == 1 else "RGB"
        return Labelled(np.stack([load_picture(path, mode) for path in found]), labels), known
    return _read(name, 2)[0], known
