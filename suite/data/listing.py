"""The pictures of a data set of the user's own: which files there are, and the class and the part of each.

No picture is opened. `list_pictures` reads folders ("folder:PATH") and CSV files ("csv:FILE").
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from suite.data.findings import PART_NAMES, TEST, TRAIN, VALIDATION, Found, Row, some
from suite.data.listing_csv import find_in_csv
from suite.data.listing_folder import find_in_folder
from suite.data.registry import CSV_PREFIX, FOLDER_PREFIX
from suite.data.splits import split_indices
from suite.errors import InputError, expand_user

__all__ = ["TEST", "TRAIN", "VALIDATION", "Listing", "canonical", "list_pictures"]


@dataclass(frozen=True)
class Listing:
    """The pictures of one data set, sorted by part, class and path."""

    name: str  # canonical: "folder:/absolute/path" or "csv:/absolute/file.csv"
    root: Path  # absolute; paths in messages are relative to it
    files: tuple[Path, ...]  # absolute; links are not resolved
    labels: np.ndarray  # (N,) int64, index into classes
    parts: np.ndarray  # (N,) int8: TRAIN, VALIDATION or TEST
    classes: tuple[str, ...]  # sorted
    own_validation: bool  # whether the data set has a validation part; else it is still to be drawn from training
    left_out: tuple[str, ...]  # what was passed over, by kind and number: "40 .heic (no decoder)"
    notes: tuple[str, ...] = ()  # what else to tell: "only a training part: ..."


def canonical(name: str) -> str:
    """The one name of a data set, however its path is written; names without a path are returned unchanged.

    The path becomes absolute, "~" is expanded and symbolic links are resolved, so that a study finds its data from any
    working directory and a link that is pointed elsewhere later changes no recorded study. The last component of a CSV
    file's path is kept if it is a link, since the paths in the file are relative to the folder it is in.

    Raises:
        InputError: the path is empty, or starts with the home directory of a user who does not exist.
    """
    prefix = next((p for p in (FOLDER_PREFIX, CSV_PREFIX) if name.startswith(p)), None)
    if prefix is None:
        return name
    text = name.removeprefix(prefix)
    if not text.strip() or "\0" in text:
        raise InputError(f"{name!r} has no path: write folder:PATH or csv:FILE.")
    path = str(expand_user(text))
    if prefix == FOLDER_PREFIX:
        return prefix + os.path.realpath(path)
    folder, file = os.path.split(path)
    return prefix + os.path.join(os.path.realpath(folder), file)


def list_pictures(name: str) -> Listing:
    """The pictures of "folder:PATH" or "csv:FILE", with their classes and parts. No picture is opened.

    The parts are the person's own. Without a test part, a stratified tenth of the training part becomes TEST (see
    `split_indices`). A validation part is not drawn here: without one, the rows of TRAIN are to be split.

    Raises:
        InputError: the data set cannot be used, for example because a class has too few pictures.
    """
    name = canonical(name)
    if name.startswith(CSV_PREFIX):
        found = find_in_csv(Path(name.removeprefix(CSV_PREFIX)))
    else:
        found = find_in_folder(Path(name.removeprefix(FOLDER_PREFIX)))
    rows = _each_once(found)
    given = {row.part for row in rows}
    _check_classes(found, rows)
    classes = tuple(sorted(found.classes))
    number = {label: i for i, label in enumerate(classes)}
    labels = np.array([number[row.label] for row in rows], dtype=np.int64)
    parts = np.array([row.part for row in rows], dtype=np.int8)
    if TEST not in given:
        pool = np.flatnonzero(parts == TRAIN)
        parts[pool[split_indices(labels[pool])[1]]] = TEST
        order = np.argsort(parts, kind="stable")
        rows, labels, parts = [rows[i] for i in order], labels[order], parts[order]
    return Listing(
        name=name,
        root=found.root,
        files=tuple(Path(row.path) for row in rows),
        labels=labels,
        parts=parts,
        classes=classes,
        own_validation=VALIDATION in given,
        left_out=found.left_out.in_words(),
        notes=(*found.notes, *_without_test(classes, labels[parts == TEST])),
    )


def _without_test(classes: tuple[str, ...], labels: np.ndarray) -> list[str]:
    """What to tell of classes whose test accuracy cannot be known. labels: (N,) of the test part."""
    counts = np.bincount(labels, minlength=len(classes))
    missing = [name for name, number in zip(classes, counts, strict=True) if not number]
    return [f"the test part has no picture of {some(missing)}"] if missing else []


def _each_once(found: Found) -> list[Row]:
    """The rows sorted by part, class and path, each picture once.

    Raises InputError for pictures that belong to two classes or parts.
    """
    place: dict[str, Row] = {}
    clashes: list[str] = []
    # Paths without links come first, so that they are the ones that stay.
    for row in sorted(found.rows, key=lambda row: (row.path != row.real, row.path.split("/"))):
        other = place.setdefault(row.real, row)
        if other is row:
            continue
        if (other.part, other.label) == (row.part, row.label):
            found.left_out.add("picture{s} listed twice")
        else:
            clashes.append(f"{_placed(other, found.root)} and {_placed(row, found.root)}")
    if clashes:
        raise InputError(
            f"{found.source} has pictures that belong to two classes or parts: {some(clashes)}. Keep one place of each."
        )
    return sorted(place.values(), key=lambda row: (row.part, row.label, row.path.split("/")))


def _placed(row: Row, root: Path) -> str:
    return f"{os.path.relpath(row.path, root)} ({row.label}, {PART_NAMES[row.part]})"


def _check_classes(found: Found, rows: list[Row]) -> None:
    """Raises InputError unless there are two classes or more, each with enough pictures to draw the missing parts."""
    left_out = found.left_out.in_words()
    also = f" Left out: {some(left_out)}." if left_out else ""
    for part in (VALIDATION, TEST):
        if unknown := sorted({row.label for row in rows if row.part == part} - found.classes):
            raise InputError(
                f"The {PART_NAMES[part]} part of {found.source} has classes that the training part lacks: "
                f"{some(unknown)}. Rename them as in the training part, or remove them."
            )
    if len(found.classes) < 2:
        kinds = f"one class, {next(iter(found.classes))}" if found.classes else "no class"
        unit = "folders, one a class" if found.source == found.root else "labels"
        raise InputError(f"{found.source} holds {kinds}; it takes at least two {unit}.{also}")
    given = {row.part for row in rows}
    wanted = [PART_NAMES[part] for part in (TRAIN, VALIDATION, TEST) if part == TRAIN or part not in given]
    counts = Counter(row.label for row in rows if row.part == TRAIN)
    if few := [label for label in sorted(found.classes) if counts[label] < len(wanted)]:
        images = "image" if len(wanted) == 1 else "images"
        raise InputError(
            f"Every class needs at least {len(wanted)} {images} in {found.source}, one for each of "
            f"{' and '.join(wanted)}: {some(f'{label} has {counts[label]}' for label in few)}. Add images, or remove "
            f"these classes.{also}"
        )
