"""Pictures decoded for models, kept in the suite's cache.

Each `View` has a folder with the decoded pictures of all data sets, one row after the other, and the SHA-256 of the
file that each row was decoded from. Rows are only ever added. Commands, workers and studies share them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from suite.data.inspection import Facts, OnProgress, in_parallel
from suite.data.pictures import viewed
from suite.data.rows import Rows
from suite.errors import InputError
from suite.spec import View
from suite.store.files import cache_dir, temporary_dir

VERSION = 1  # to be raised when the same file gives other pixels

CHUNK = 256  # rows after which the decoded pictures become visible to others

IMAGES, INDEX, ABOUT = "images.u8", "index.bin", "view.json"

ENTRY = 33  # bytes of the index for a row: the SHA-256 of the file, and 1 where all pixels are alike


@dataclass(frozen=True)
class Decoded:
    """The pictures of a data set as a view shows them."""

    rows: Rows | None  # (N, C, side, side) in the order of the files; None where one of them cannot be decoded
    broken: dict[Path, str]  # files that cannot be decoded, and why
    blank: int  # number of pictures whose pixels are all alike


def decoded(files: Sequence[Path], facts: Sequence[Facts], view: View, on_progress: OnProgress) -> Decoded:
    """The pictures in files, decoded where the cache does not have them. All files that cannot be decoded are named.

    `facts` are those of the files, in their order. Raises OSError where the disk is full.
    """
    folder = _folder(view)
    found, missing = _missing(folder, files, facts)
    broken: dict[str, str] = {}
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ABOUT).write_text(json.dumps(view._asdict()))
        except OSError:  # a read-only cache
            folder = temporary_dir(folder.name)
        with _locked(folder, on_progress):
            found, missing = _missing(folder, files, facts)  # another process may have decoded them meanwhile
            broken = _decode(folder, missing, view, on_progress) if missing else {}
            found = _index(folder)
    with contextlib.suppress(OSError):
        os.utime(folder / ABOUT)  # the time of the last use
    if broken:
        return Decoded(None, {p: broken[f.sha256] for p, f in zip(files, facts, strict=True) if f.sha256 in broken}, 0)
    entries = [found[f.sha256] for f in facts]
    shape = (view.channels, view.side, view.side)
    rows = Rows(folder / IMAGES, shape, np.array([place for place, _ in entries], np.int64))
    return Decoded(rows, {}, sum(blank for _, blank in entries))


def _folder(view: View) -> Path:
    about = json.dumps([VERSION, *view])
    return views_dir() / hashlib.sha256(about.encode()).hexdigest()[:24]


def views_dir() -> Path:
    """The folder that holds a folder for each view."""
    return cache_dir() / "pictures" / "views"


def _missing(
    folder: Path, files: Sequence[Path], facts: Sequence[Facts]
) -> tuple[dict[str, tuple[int, bool]], dict[str, Path]]:
    """The index, and the files that it lacks by their SHA-256."""
    found = _index(folder)
    return found, {f.sha256: path for path, f in zip(files, facts, strict=True) if f.sha256 not in found}


@contextlib.contextmanager
def _locked(folder: Path, on_progress: OnProgress) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            on_progress(0, 0, "waiting for another process that decodes pictures")
    try:
        yield
    finally:
        lock.release()


def _index(folder: Path) -> dict[str, tuple[int, bool]]:
    """SHA-256 of a file -> (its row, whether all its pixels are alike)."""
    try:
        content = (folder / INDEX).read_bytes()
    except OSError:
        return {}
    whole = len(content) // ENTRY  # the last entry may be torn
    return {content[i * ENTRY : i * ENTRY + 32].hex(): (i, bool(content[i * ENTRY + 32])) for i in range(whole)}


def _decode(folder: Path, missing: dict[str, Path], view: View, on_progress: OnProgress) -> dict[str, str]:
    """Decode files and append their rows. Returns the SHA-256 of those that cannot be decoded, and why.

    The rows of a chunk are on the disk before its entries are in the index, so that a process that is killed, or a
    disk that is full, leaves an index of complete rows.
    """
    size = view.channels * view.side**2
    broken: dict[str, str] = {}
    with open(folder / INDEX, "ab") as index, open(folder / IMAGES, "ab") as images:
        count = os.path.getsize(folder / INDEX) // ENTRY
        index.truncate(count * ENTRY)
        images.truncate(count * size)
        entries: list[bytes] = []
        results = in_parallel(partial(_attempt, view), list(missing.values()))
        for done, (sha256, pixels) in enumerate(zip(missing, results, strict=True), 1):
            if isinstance(pixels, str):
                broken[sha256] = pixels
            else:
                images.write(pixels.data)
                entries.append(bytes.fromhex(sha256) + bytes([int(pixels.min() == pixels.max())]))
            if len(entries) >= CHUNK or (done == len(missing) and entries):
                images.flush()
                os.fdatasync(images.fileno())
                index.write(b"".join(entries))
                index.flush()
                entries = []
            on_progress(done, len(missing), f"decoding pictures to {view.side} px")
    return broken


def _attempt(view: View, path: Path) -> np.ndarray | str:
    try:
        return viewed(path, view)
    except InputError as error:
        return str(error)
