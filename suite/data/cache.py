"""The cached files of a data set: where they are, whether they are intact, and what they hold.

A cached data set is four idx files. Each is compared with its SHA-256 before it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from suite.data.idx import parse_idx
from suite.data.registry import ROLES, entry
from suite.errors import WorkError
from suite.store.files import cache_dir, file_sha256

MANIFEST = "sha256.json"  # hashes of files whose publisher states none, recorded at the first fetch


@dataclass(frozen=True)
class FileStatus:
    path: Path
    state: Literal["ok", "missing", "damaged"]
    sha256: str | None  # the expected one; None where it is not known yet


def data_dir() -> Path:
    """The folder that torchvision takes as `root`."""
    return cache_dir() / "data"


def raw_files(name: str) -> list[Path]:
    """The paths of the four idx files in the order of ROLES, whether they exist or not. Raises InputError."""
    known = entry(name)
    folder = data_dir() / known.torchvision / ("raw" if known.torchvision_layout else "idx")
    kinds = ("idx3-ubyte", "idx1-ubyte") if known.channels == 1 else ("idx4-ubyte", "idx1-ubyte")
    return [folder / f"{role}-{kinds[i % 2]}" for i, role in enumerate(ROLES)]


def expected_sha256(name: str, index: int) -> str | None:
    """The SHA-256 that the file at this index of ROLES must have; None before the first fetch where none is known."""
    path = raw_files(name)[index]
    return entry(name).sha256[index] or _manifest(path.parent).get(path.name)


def _manifest(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as recorded at the first fetch; empty where nothing was recorded."""
    try:
        known = json.loads((folder / MANIFEST).read_bytes())
        return {str(k): str(v) for k, v in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def file_status(name: str, index: int, *, quick: bool) -> FileStatus:
    """Whether the file at this index of ROLES is intact.

    With `quick`, a file whose size and modification time have not changed since it was last hashed is not hashed
    again.
    """
    path = raw_files(name)[index]
    expected = expected_sha256(name, index)
    if not path.is_file():
        return FileStatus(path, "missing", expected)
    status = path.stat()
    marker = path.with_name(f".{path.name}.verified")
    state = f"{status.st_size} {status.st_mtime_ns} {expected}"
    with contextlib.suppress(OSError):
        if quick and marker.read_text() == state:
            return FileStatus(path, "ok", expected)
    if expected is None or file_sha256(path) != expected:
        with contextlib.suppress(OSError):  # otherwise a quick check would report "ok" and `fetch` not replace the file
            marker.unlink()
        return FileStatus(path, "damaged", expected)
    with contextlib.suppress(OSError):  # in a read-only cache no marker is kept, and files are hashed every time
        marker.write_text(state)
    return FileStatus(path, "ok", expected)


def verify(name: str, *, quick: bool = False) -> list[FileStatus]:
    """The status of the four files in the order of ROLES; see `file_status`. Raises InputError."""
    return [file_status(name, index, quick=quick) for index in range(len(ROLES))]


def combined_sha256(statuses: list[FileStatus]) -> str:
    """One hash for several files."""
    return hashlib.sha256(" ".join(status.sha256 or "" for status in statuses).encode()).hexdigest()


def parse_part(name: str, images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays in two idx files, checked against the registry.

    Returns images, (N, size, size) or (N, 3, size, size), and labels, (N,), both uint8. Raises WorkError where a file
    is incomplete or its contents cannot belong to the data set.
    """
    known = entry(name)
    images, labels = parse_idx(images_path), parse_idx(labels_path)
    shape = (known.size, known.size) if known.channels == 1 else (known.channels, known.size, known.size)
    if images.shape[1:] != shape or labels.shape != images.shape[:1] or not len(labels):
        raise WorkError(
            f"images {images.shape} and labels {labels.shape} are not those of {name}, (N, *{shape}) and (N,)"
        )
    if labels.max() >= len(known.classes):
        raise WorkError(f"there is a label {labels.max()}, but {name} has {len(known.classes)} classes")
    return images, labels
