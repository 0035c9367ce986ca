"""Data sets of a person's own pictures: what is known of them, and their pictures as a model takes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from suite.data.inspection import (
    Facts,
    OnProgress,
    Summary,
    are_wide,
    inspect,
    native_size,
    note_faults,
    summarize,
)
from suite.data.listing import TEST, TRAIN, VALIDATION, Listing, list_pictures
from suite.data.rows import Rows
from suite.data.views import decoded
from suite.errors import InputError, printable
from suite.spec import Fit, View
from suite.store.files import cache_dir, keep


class BrokenPictures(InputError):
    """Pictures that cannot be read; the message names them."""


NAMED = 10  # broken files that a message names

FEWEST = 2  # pictures of a class for training and validation together


def silent(done: int, total: int, what: str) -> None:
    """Shows no progress."""


@dataclass(frozen=True)
class OwnPictures:
    """The readable pictures of a data set. Those of the test part are listed, but no search opens them."""

    name: str
    listing: Listing
    kept: np.ndarray  # (N,) indices into the listing: not of the test part, and not broken
    facts: tuple[Facts, ...]  # of those, in their order
    broken: Mapping[Path, str]  # files outside the test part that cannot be read, and why
    data_hash: str  # SHA-256 over the contents, labels and parts of the kept files, and the classes
    summary: Summary
    size: int  # native, in pixels
    fit: Fit

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64 of the kept files."""
        return self.listing.labels[self.kept]

    @property
    def own_validation(self) -> np.ndarray | None:
        """(N,) bool, which of the kept files are in the person's own validation part; None where there is none."""
        return self.listing.parts[self.kept] == VALIDATION if self.listing.own_validation else None

    @property
    def files(self) -> list[Path]:
        return [self.listing.files[i] for i in self.kept]

    def notes(self) -> list[str]:
        """What a person should know about the data set: files that were left out, and pictures that occur twice."""
        found = list(self.listing.notes)
        if self.listing.left_out:
            found.append(f"left out: {', '.join(self.listing.left_out)}")
        if self.broken:
            found.append(f"left out: {len(self.broken)} files that cannot be read")
        if self.broken_test:
            found.append(f"{len(self.broken_test)} test pictures cannot be read: `evaluate --final` needs all of them")
        counts = Counter(f.sha256 for f in self.facts)
        if twice := sum(count - 1 for count in counts.values()):
            found.append(f"{twice} of the {len(self.facts)} pictures are copies of others")
        return found

    @property
    def broken_test(self) -> dict[Path, str]:
        """Files of the test part that are empty or may not be read, and why. None of them is opened."""
        rows = np.flatnonzero(self.listing.parts == TEST)
        return {path: why for i in rows if (why := _unreadable(path := self.listing.files[i]))}

    def refuse_broken(self) -> None:
        """Raises BrokenPictures, which names the files."""
        if broken := {**self.broken, **self.broken_test}:
            raise BrokenPictures(broken_files(self.listing.root, broken))

    def pictures(self, rows: np.ndarray, view: View, on_progress: OnProgress = silent) -> tuple[Rows, int]:
        """The pictures of some of the kept files as a view shows them, and how many of them are of one colour.

        Raises BrokenPictures, which names the files that cannot be decoded; they are known to be broken from then on.
        """
        files, facts = self.files, self.facts
        done = decoded([files[i] for i in rows], [facts[i] for i in rows], view, on_progress)
        if done.rows is None:
            note_faults(self.name, done.broken)
            if _once is not None:
                _once.pop(self.name, None)
            raise BrokenPictures(broken_files(self.listing.root, done.broken))
        return done.rows, done.blank


def _unreadable(path: Path) -> str:
    """Why a file cannot be a picture, as far as that shows without opening it; else empty."""
    try:
        if path.stat().st_size == 0:
            return "is empty"
    except OSError as error:
        return error.strerror or "cannot be found"
    return "" if os.access(path, os.R_OK) else "may not be read"


def broken_files(root: Path, broken: Mapping[Path, str]) -> str:
    """A message that names broken files."""
    shown = [f"{_relative(path, root)} ({_short(why, path)})" for path, why in list(broken.items())[:NAMED]]
    more = f", and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return (
        f"{len(broken)} of the pictures in {root} cannot be read: {', '.join(shown)}{more}. "
        "Mend or remove them, or leave them out with --skip-broken."
    )


def _relative(path: Path, root: Path) -> str:
    return printable(str(path.relative_to(root) if path.is_relative_to(root) else path))


def _short(why: str, path: Path) -> str:
    """The reason without the path that the decoder's message begins with."""
    return why.removeprefix(f"{path} ").removeprefix("cannot be read as an image: ").rstrip(".")[:120]


_read: dict[str, tuple[object, OwnPictures]] = {}  # by the name of the data set; the last two

_once: dict[str, OwnPictures] | None = None  # what was read within `read_once`


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Within the context, each data set is listed once, which takes a second for 20,000 pictures."""
    global _once
    _once = {}
    try:
        yield
    finally:
        _once = None


def read(name: str, on_progress: OnProgress = silent) -> OwnPictures:
    """List the pictures of a data set and gather what is known of them. Files that cannot be read are left out.

    Raises InputError.
    """
    if _once is not None and name in _once:
        return _once[name]
    found = _current(name, on_progress)
    if _once is not None:
        _once[name] = found
    return found


def _current(name: str, on_progress: OnProgress) -> OwnPictures:
    """What the files are now; what was found earlier is taken over where no file has changed."""
    listing = list_pictures(name)
    search = np.flatnonzero(listing.parts != TEST)
    files = [listing.files[i] for i in search]
    facts = inspect(name, files, on_progress)
    state = (listing.files, listing.parts.tobytes(), facts)
    if name in _read and _read[name][0] == state:
        return _read[name][1]
    found = _own_pictures(name, listing, search, facts, on_progress)
    while len(_read) >= 2:
        del _read[next(iter(_read))]
    _read[name] = (state, found)
    return found


def _own_pictures(
    name: str, listing: Listing, search: np.ndarray, facts: Mapping[Path, Facts], on_progress: OnProgress
) -> OwnPictures:
    broken = {path: fault for i in search if (fault := facts[path := listing.files[i]].fault) is not None}
    kept = np.array([i for i in search if listing.files[i] not in broken], dtype=np.int64)
    _check_enough(listing, kept, broken)
    known = tuple(facts[listing.files[i]] for i in kept)
    train = [i for i, row in enumerate(kept) if listing.parts[row] == TRAIN]
    content = [
        (f.sha256, int(listing.labels[row]), int(listing.parts[row])) for f, row in zip(known, kept, strict=True)
    ]
    data_hash = hashlib.sha256(json.dumps([content, listing.classes]).encode()).hexdigest()
    of_training = [known[i] for i in train]
    return OwnPictures(
        name=name,
        listing=listing,
        kept=kept,
        facts=known,
        broken=broken,
        data_hash=data_hash,
        summary=_summary(data_hash, [listing.files[kept[i]] for i in train], of_training, on_progress),
        size=native_size(of_training),
        fit="pad" if are_wide(of_training) else "crop",
    )


def _check_enough(listing: Listing, kept: np.ndarray, broken: Mapping[Path, str]) -> None:
    """Raises InputError where broken files leave too few pictures of a class. Without them, `listing` has checked."""
    if not broken:
        return
    counts = np.bincount(listing.labels[kept], minlength=len(listing.classes))
    few = [f"{c} has {n}" for c, n in zip(listing.classes, counts, strict=True) if n < FEWEST]
    if few:
        raise InputError(f"{broken_files(listing.root, broken)} Without them there are too few: {', '.join(few)}.")


def _summary(data_hash: str, files: Sequence[Path], facts: Sequence[Facts], on_progress: OnProgress) -> Summary:
    """`summarize`, kept in the cache under the hash of the data."""
    place = cache_dir() / "pictures" / "summaries" / f"{data_hash[:32]}.json"
    try:
        known = json.loads(place.read_bytes())
        return Summary(known["channels"], tuple(known["mean"]), tuple(known["std"]), known["white"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    found = summarize(files, facts, on_progress)
    keep(place, json.dumps(asdict(found)))
    return found


def read_test(name: str, view: View, on_progress: OnProgress = silent) -> tuple[Rows, np.ndarray]:
    """The test part as a view shows it, and its labels (N,). Raises InputError."""
    listing = list_pictures(name)
    rows = np.flatnonzero(listing.parts == TEST)
    files = [listing.files[i] for i in rows]
    facts = inspect(f"{name} test", files, on_progress)
    broken = {path: fault for path in files if (fault := facts[path].fault) is not None}
    if not broken:
        done = decoded(files, [facts[path] for path in files], view, on_progress)
        if done.rows is not None:
            return done.rows, listing.labels[rows]
        broken = done.broken
    raise BrokenPictures(broken_files(listing.root, broken).replace(", or leave them out with --skip-broken", ""))
