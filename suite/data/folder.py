"""Data sets that are folders of images, one folder a class."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from suite.data.pictures import PICTURES, load_picture
from suite.data.registry import FOLDER
from suite.data.splits import Labelled, split
from suite.errors import InputError, expand_user


def root_of(name: str) -> Path:
    return expand_user(name.removeprefix(FOLDER))


def _classes(base: Path) -> dict[str, list[Path]]:
    """The images of every class folder, in the order of their names; hidden files are none. Raises InputError."""
    from PIL import Image

    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in PICTURES}
    found: dict[str, list[Path]] = {}
    for folder in sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")):
        paths = [p for p in folder.rglob("*") if p.suffix.lower() in readable and not p.name.startswith(".")]
        found[folder.name] = sorted(p for p in paths if p.is_file())
    empty = [name for name, paths in found.items() if not paths]
    if len(found) < 2 or empty:
        wrong = f"{', '.join(empty)} of them without any image" if empty else "no two to tell apart"
        raise InputError(
            f"{base} holds {len(found)} class folders, {wrong}; it takes at least two folders, one a class, with image "
            f"files ({', '.join(PICTURES)})."
        )
    return found


def listed(root: Path, *, test: bool) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Images, labels and classes of one part, without opening an image.

    The parts are root/train/CLASS/ and root/test/CLASS/, or root/CLASS/ less a tenth of each class for test.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; folder:PATH takes one that holds a folder of images a class.")
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    known = _classes(root / "train" if parted else root)
    if set(known) <= {"train", "test", "val", "valid", "validation"}:
        raise InputError(
            f"{root} holds {' and '.join(known)}, which look like parts and not like classes; name the parts train "
            "and test (validation is taken from train), or give the folder that holds one folder a class."
        )
    classes = tuple(known)
    held = _classes(root / "test") if parted and test else known
    if unknown := sorted(set(held) - set(classes)):
        raise InputError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
    found = [path for paths in held.values() for path in paths]
    labels = np.array([classes.index(name) for name, paths in held.items() for _ in paths], dtype=np.int64)
    if not parted:
        rest, apart = split(labels)
        rows = apart if test else rest
        found, labels = [found[i] for i in rows], labels[rows]
    if not test and min(np.bincount(labels, minlength=len(classes))) < 2:
        raise InputError(f"Every class in {root} needs at least three images, so that train and validation have some.")
    return found, labels, classes


def read_folder(root: Path) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """All but the test part: grey where all its images are, else RGB; FOLDER_SIZE square."""
    found, labels, classes = listed(root, test=False)
    pixels = [load_picture(path, "RGB") for path in found]
    grey = all((p[0] == p[1]).all() and (p[1] == p[2]).all() for p in pixels)
    images = np.stack([p[:1] if grey else p for p in pixels])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + " ".join(classes).encode()).hexdigest()
    scaled = images.astype(np.float32) / 255
    mean = tuple(round(float(v), 4) for v in scaled.mean((0, 2, 3)))
    std = tuple(round(max(float(v), 1e-3), 4) for v in scaled.std((0, 2, 3)))
    return Labelled(images, labels), digest, classes, images.shape[1], mean, std
