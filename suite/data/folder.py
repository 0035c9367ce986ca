"""Data sets that are folders of images, one folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from suite.data.pictures import FORMATS, load_square
from suite.data.registry import FOLDER_PREFIX
from suite.data.splits import Labelled, TrainingPool, split_indices
from suite.errors import InputError, expand_user


def root_of(name: str) -> Path:
    """The path in "folder:PATH"."""
    return expand_user(name.removeprefix(FOLDER_PREFIX))


def list_part(root: Path, *, test: bool) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """The image files of one part, their labels (N,) int64, and the classes. No image is opened.

    The parts are root/train/CLASS/ and root/test/CLASS/. Where there is only root/CLASS/, a tenth of each class is
    the test part. Raises InputError.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; folder:PATH takes one that holds a folder of images a class.")
    has_parts = (root / "train").is_dir() and (root / "test").is_dir()
    known = _class_files(root / "train" if has_parts else root)
    if set(known) <= {"train", "test", "val", "valid", "validation"}:
        raise InputError(
            f"{root} holds {' and '.join(known)}, which look like parts and not like classes; name the parts train "
            "and test (validation is taken from train), or give the folder that holds one folder a class."
        )
    classes = tuple(known)
    files = _class_files(root / "test") if has_parts and test else known
    if unknown := sorted(set(files) - set(classes)):
        raise InputError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
    found = [path for paths in files.values() for path in paths]
    labels = np.array([classes.index(name) for name, paths in files.items() for _ in paths], dtype=np.int64)
    if not has_parts:
        training_rows, test_rows = split_indices(labels)
        rows = test_rows if test else training_rows
        found, labels = [found[i] for i in rows], labels[rows]
    if not test and min(np.bincount(labels, minlength=len(classes))) < 2:
        raise InputError(f"Every class in {root} needs at least three images, so that train and validation have some.")
    return found, labels, classes


def _class_files(base: Path) -> dict[str, list[Path]]:
    """Class -> its image files, sorted; hidden files and folders are left out. Raises InputError."""
    from PIL import Image

    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[str, list[Path]] = {}
    for folder in sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")):
        paths = [p for p in folder.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        found[folder.name] = sorted(p for p in paths if p.is_file())
    empty = [name for name, paths in found.items() if not paths]
    if len(found) < 2 or empty:
        wrong = f"{', '.join(empty)} of them without any image" if empty else "no two to tell apart"
        raise InputError(
            f"{base} holds {len(found)} class folders, {wrong}; it takes at least two folders, one a class, with image "
            f"files ({', '.join(FORMATS)})."
        )
    return found


def read_folder(root: Path) -> TrainingPool:
    """All images but the test part, decoded to FOLDER_SIZE x FOLDER_SIZE pixels.

    They are grey if every image is, else RGB. Raises InputError.
    """
    paths, labels, classes = list_part(root, test=False)
    pixels = [load_square(path, "RGB") for path in paths]
    grey = all((p[0] == p[1]).all() and (p[1] == p[2]).all() for p in pixels)
    images = np.stack([p[:1] if grey else p for p in pixels])
    data_hash = hashlib.sha256(images.tobytes() + labels.tobytes() + " ".join(classes).encode()).hexdigest()
    scaled = images.astype(np.float32) / 255
    return TrainingPool(
        Labelled(images, labels),
        data_hash,
        classes,
        channels=images.shape[1],
        mean=tuple(round(float(v), 4) for v in scaled.mean((0, 2, 3))),
        std=tuple(round(max(float(v), 1e-3), 4) for v in scaled.std((0, 2, 3))),
    )


def read_folder_test(root: Path, mode: str) -> Labelled:
    """The test part in the mode ("L" or "RGB") of the training part. Raises InputError."""
    paths, labels, _ = list_part(root, test=True)
    return Labelled(np.stack([load_square(path, mode) for path in paths]), labels)
