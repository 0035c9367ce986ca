"""The cached files of a data set, checked by SHA-256. The cache has torchvision's layout."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.data.registry import ROLES, entry
from suite.store.files import cache_dir, file_sha256


@dataclass(frozen=True)
class FileStatus:
    path: Path
    state: Literal["ok", "missing", "damaged"]
    sha256: str | None


def data_dir() -> Path:
    """What torchvision calls `root`."""
    return cache_dir() / "data"


def files(name: str) -> list[Path]:
    """The four raw files in the order of ROLES, there or not."""
    known = entry(name)
    folder = data_dir() / known.torchvision / ("raw" if known.raw else "idx")
    kinds = ("idx3-ubyte", "idx1-ubyte") if known.channels == 1 else ("idx4-ubyte", "idx1-ubyte")
    return [folder / f"{role}-{kinds[i % 2]}" for i, role in enumerate(ROLES)]


def _manifest(folder: Path) -> dict[str, str]:
    """SHA-256 of files whose publisher names none, as they were when first fetched."""
    try:
        known = json.loads((folder / "sha256.json").read_bytes())
        return {str(k): str(v) for k, v in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def expected_sha256(name: str, index: int, path: Path) -> str | None:
    return entry(name).sha256[index] or _manifest(path.parent).get(path.name)


def _unchanged_mark(path: Path) -> tuple[Path, str]:
    """A small file beside the data that remembers which state of it has been hashed."""
    status = path.stat()
    return path.with_name(f".{path.name}.verified"), f"{status.st_size} {status.st_mtime_ns}"


def check(name: str, index: int, *, quick: bool) -> FileStatus:
    """Whether one file is what it should be; `quick` trusts an earlier look at the same size and time."""
    path = files(name)[index]
    expected = expected_sha256(name, index, path)
    if not path.is_file():
        return FileStatus(path, "missing", expected)
    mark, now = _unchanged_mark(path)
    with contextlib.suppress(OSError):
        if quick and mark.read_text() == f"{now} {expected}":
            return FileStatus(path, "ok", expected)
    if expected is None or file_sha256(path) != expected:
        with contextlib.suppress(OSError):  # or a quick look would go on calling it good, and `fetch` not mend it
            mark.unlink()
        return FileStatus(path, "damaged", expected)
    with contextlib.suppress(OSError):  # a read-only cache is hashed every time
        mark.write_text(f"{now} {expected}")
    return FileStatus(path, "ok", expected)


def verify(name: str, *, quick: bool = False) -> list[FileStatus]:
    """The state of every raw file: hashed anew, or with `quick` only where size or time have changed."""
    return [check(name, index, quick=quick) for index in range(len(ROLES))]


def digest(statuses: list[FileStatus]) -> str:
    return hashlib.sha256(" ".join(status.sha256 or "" for status in statuses).encode()).hexdigest()
