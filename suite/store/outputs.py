"""Files and folders that a user names for a result: where they may be, and the messages where they cannot be written.

`check_file` and `check_new_folder` are called before the work whose result is to be written; they change nothing. What
there was before is replaced by a whole file or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.errors import InputError, WorkError
from suite.store.files import may_write, write_atomic

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # of a disk that takes no more


@contextlib.contextmanager
def writing(to: Path, option: str = "--to") -> Iterator[None]:
    """Within the context, an OSError becomes an error that names the place: WorkError for a full or failing disk,
    InputError for everything else. Only for code that writes there."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename is not None and os.fspath(error.filename) != os.fspath(to):
            reason += f" ({error.filename})"
        if error.errno in FULL:
            raise WorkError(
                f"{to} was not written: {reason}. What was there before is not lost; free space, or name another place "
                f"with {option}."
            ) from None
        raise InputError(f"{to} cannot be written: {reason}. Name another place with {option}.") from None


def check_file(to: Path, suffixes: Sequence[str], option: str = "--to") -> None:
    """Refuse a place where a file with one of these suffixes, such as ".html", cannot be written. Raises InputError."""
    with writing(to, option):
        if to.is_dir():
            example = to / f"NAME{suffixes[0]}"
            raise InputError(f"{to} is a folder; name a file, for example {example}, with {option}.")
        if to.suffix.lower() not in suffixes:
            known = " or ".join(suffixes)
            example = f"{to.stem}{suffixes[0]}"
            raise InputError(f"{to} does not end in {known}; name a file such as {example} with {option}.")
        _refuse_special(to)
        _check_parents(to, option)


def write_file(to: Path, data: bytes | str, option: str = "--to") -> None:
    """Write a file, and the folders that it lies in; a link is followed. Raises InputError and WorkError."""
    with writing(to, option):
        _refuse_special(to)
        target = Path(os.path.realpath(to))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)


def check_folder(to: Path, option: str = "--to") -> None:
    """Refuse a place where a folder of results cannot be written; it may exist. Raises InputError."""
    with writing(to, option):
        if os.path.exists(to) and not to.is_dir():
            raise InputError(f"{to} is no folder; name a folder with {option}.")
        _check_parents(to / "file", option)


def check_new_folder(to: Path, option: str = "--to") -> None:
    """Refuse a place where a new folder cannot be written, and a folder that holds something. Raises InputError."""
    with writing(to, option):
        if os.path.realpath(to) == os.getcwd():  # Path.resolve raises on a loop of links
            raise InputError(f"The folder you are in cannot be replaced; name a new one with {option} DIR.")
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise InputError(f"{to} already holds something; name a new or empty folder with {option} DIR.")
        _check_parents(to, option)


def _refuse_special(to: Path) -> None:
    """Refuse pipes and devices, which replacing would remove, and files that are write-protected."""
    try:
        mode = to.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "It is no plain file", os.fspath(to))
    if not may_write(to):
        raise OSError(errno.EACCES, "The file is write-protected", os.fspath(to))


def _check_parents(to: Path, option: str) -> None:
    """Refuse a place where no file can be created. Folders that are missing can be made."""
    target = Path(os.path.realpath(to))
    there = next(folder for folder in target.parents if os.path.lexists(folder))
    if not there.is_dir():
        raise InputError(f"{to} cannot be written: {there} is no folder. Name another place with {option}.")
    if not may_write(there):
        raise InputError(
            f"{to} cannot be written: files cannot be created in {there}, for want of permission or on a read-only "
            f"disk. Name another place with {option}."
        )
