"""What the suite's cache holds, and removing what has not been used for a while.

Everything in the cache can be made again: data sets are fetched, pictures decoded, features computed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from suite.data.cache import data_dir
from suite.data.views import ABOUT, ENTRY, INDEX, views_dir
from suite.store.files import cache_dir

DAY = 86_400  # seconds


@dataclass(frozen=True)
class CacheEntry:
    """One thing that can be removed by itself."""

    kind: str  # "pictures", "features", "data set" or "other"
    what: str
    path: Path
    bytes: int
    used: float  # seconds since 1970, of the last use or change


def entries() -> list[CacheEntry]:
    """All that the cache holds, the largest first."""
    found = [_view(folder) for folder in _folders(views_dir())]
    found += [_file("features", path, f"{path.stem[:12]}") for path in _files(cache_dir() / "features", ".npy")]
    found += [_tree("data set", folder, folder.name) for folder in _folders(data_dir())]
    known = {"pictures", "features", data_dir().name}
    found += [_tree("other", folder, folder.name) for folder in _folders(cache_dir()) if folder.name not in known]
    found += [
        _tree("other", folder, f"{folder.name} of pictures")
        for folder in _folders(views_dir().parent)
        if folder != views_dir()
    ]
    return sorted(found, key=lambda entry: -entry.bytes)


def prunable(found: Iterable[CacheEntry], *, unused_days: float) -> list[CacheEntry]:
    """Decoded pictures and features that were not used for so many days."""
    before = time.time() - unused_days * DAY
    return [entry for entry in found if entry.kind in ("pictures", "features") and entry.used <= before]


def remove(entry: CacheEntry) -> bool:
    """Remove an entry; returns whether it was. Pictures that a process decodes at this moment stay, and so does what
    may not be removed.

    A process that reads the files goes on: they vanish from the disk when it ends.
    """
    try:
        if entry.kind != "pictures":
            entry.path.unlink(missing_ok=True)
            entry.path.with_name(f"{entry.path.stem.partition('-')[0]}.lock").unlink(missing_ok=True)
            return True
        with FileLock(entry.path / ".lock", timeout=0):
            shutil.rmtree(entry.path)
    except (Timeout, OSError):
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir())
    return []


def _files(folder: Path, suffix: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == suffix)
    return []


def _view(folder: Path) -> CacheEntry:
    what = folder.name
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        view = json.loads((folder / ABOUT).read_bytes())
        count = os.path.getsize(folder / INDEX) // ENTRY
        colour = "grey" if view["channels"] == 1 else "RGB"
        what = f"{count:,} pictures at {view['side']} px, {view['fit']}, {colour}"
    return _tree("pictures", folder, what)


def _tree(kind: str, folder: Path, what: str) -> CacheEntry:
    size, used = 0, 0.0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(place, name))
                size += status.st_blocks * 512
                used = max(used, status.st_mtime)
    return CacheEntry(kind, what, folder, size, used)


def _file(kind: str, path: Path, what: str) -> CacheEntry:
    status = path.stat()
    return CacheEntry(kind, what, path, status.st_size, max(status.st_mtime, status.st_atime))
