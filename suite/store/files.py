"""Files and folders: names, places, atomic writes, reading what may be damaged, hashes.

Rules of the results directory, which is all that training and reading processes share. Every file has one writer at a
time. Whole files are replaced by renaming, logs grow by one `write` a line. Readers never write; a file or a line that
does not parse is left out, and counted where it belongs to a log. For the files of a study see `study`, for those of a
trial `trial`.
"""

from __future__ import annotations

import atexit
import codecs
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from suite.errors import InputError, WorkError, expand_user
from suite.spec import NAME

MAX_BYTES = 2**28  # of a file that is read whole; one from elsewhere may be of any size

Model = TypeVar("Model", bound=BaseModel)


def check_name(name: str, what: str) -> str:
    """The name, if it is a plain path component. `what` it names begins the message. Raises InputError."""
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"{what} name {name[:80]!r} cannot be used: take letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, 80 characters at most."
        )
    return name


def results_dir(path: str | Path | None = None) -> Path:
    """The results directory: the argument, else $MNIST_SUITE_RESULTS, else ./results."""
    if path is not None:
        return expand_user(path).absolute()
    return expand_user(os.environ.get("MNIST_SUITE_RESULTS") or "results", "MNIST_SUITE_RESULTS").absolute()


def make_writable(path: Path) -> Path:
    """Create a directory if needed, and try to create a file in it; returns the path.

    Raises WorkError where the disk is full or fails, InputError where the place cannot be used.
    """
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            sync_directory(path.parent)
        probe = path / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno in DISK_FAULTS:
            raise WorkError(disk_fault(error)) from None
        raise InputError(
            f"Cannot write to {path}: {error.strerror or error}. Choose another place with --results DIR "
            "or MNIST_SUITE_RESULTS, or mend its permissions."
        ) from None
    return path


def on_network_disk(path: Path) -> str | None:
    """The file system's type if SQLite's write-ahead log cannot be trusted on it, else None."""
    import psutil

    path = path.resolve()
    mounts = [p for p in psutil.disk_partitions(all=True) if path.is_relative_to(p.mountpoint)]
    if not mounts:
        return None
    kind = max(mounts, key=lambda p: len(p.mountpoint)).fstype
    return kind if re.match(r"(nfs|cifs|smb|fuse\.|lustre|gpfs|beegfs|ceph|glusterfs|9p|afs)", kind) else None


DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of the disk, whatever was being done


def disk_fault(error: OSError) -> str:
    """The message for a disk that can no longer be written to, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror or error}{where}. Nothing that was committed is lost: mend that, for example by freeing "
        "space, and go on with the same command and --resume."
    )


def file_sha256(path: Path) -> str:
    """SHA-256 in hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Flush a directory to the disk, so that its entries survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace a file in one step: readers see the old content or the new one.

    With `durable` this holds after a power failure too: the file is flushed to the disk before it is renamed, and the
    directory after. Raises OSError, leaving the old file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def append_line(path: Path, text: str) -> None:
    """Add a line to a log that several processes may write, and flush it to the disk. Raises OSError."""
    # The first line feed ends a line that another writer may have left torn; readers skip an empty line.
    data = f"\n{text}\n".encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(handle, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(directory: Path, *names: str) -> None:
    """Remove the temporary files of `write_atomic` calls that were killed. For the files' one writer only."""
    for name in names:
        for leftover in directory.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def write_model(path: Path, model: BaseModel, *, durable: bool = True) -> None:
    """`write_atomic` of a model as JSON."""
    write_atomic(path, model.model_dump_json(indent=1) + "\n", durable=durable)


def open_plain(path: Path | str) -> int:
    """A descriptor for reading. Raises OSError for anything but a regular file: reading a pipe may never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is no plain file", str(path))
    return handle


def read_bytes(path: Path | str) -> bytes:
    """A file's content, of up to MAX_BYTES. Raises OSError.

    Made of few system calls, since a results directory may have tens of thousands of small files.
    """
    handle = open_plain(path)
    try:
        if os.fstat(handle).st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        parts: list[bytes] = []
        while part := os.read(handle, 65_536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def read_model(path: Path | str, kind: type[Model]) -> Model | None:
    """The file's content, or None where it is missing, damaged or of a newer schema."""
    try:
        return kind.model_validate_json(read_bytes(path))
    except (OSError, ValidationError, ValueError, RecursionError):
        return None


def dump_json(value: object) -> str:
    """Indented JSON for standard output, also of models and dataclasses. Raises ValueError for NaN and infinity.

    JSON is UTF-8 (RFC 8259); where standard output has another encoding, characters outside ASCII are escaped.
    """
    try:
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
    except (AttributeError, TypeError, LookupError):  # no stream of text
        utf8 = False
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=not utf8, default=to_jsonable_python)


def cache_dir() -> Path:
    """The folder of downloads, features and measurements: $MNIST_SUITE_CACHE, else the user's cache folder.

    It is absolute, since programs started from here may run in another folder. Raises InputError.
    """
    import platformdirs

    if chosen := os.environ.get("MNIST_SUITE_CACHE"):
        return expand_user(chosen, "MNIST_SUITE_CACHE").absolute()
    try:
        return expand_user(platformdirs.user_cache_dir("mnist-suite")).absolute()
    except (RuntimeError, InputError):  # by the version of platformdirs
        raise InputError(
            f"There is no home directory for the cache: HOME is not set, and the user id {os.getuid()} has no entry in "
            "the password database. Name a folder with MNIST_SUITE_CACHE."
        ) from None


def keep(path: Path, data: bytes | str) -> bool:
    """Write a file of the cache that can be made again; returns whether it was.

    In a cache that is read-only or full nothing is kept.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, durable=False)
    except OSError:
        return False
    return True


def may_write(path: Path) -> bool:
    """Whether this process may write a file, or create files in a folder, by permissions and mount options."""
    mode = os.W_OK | os.X_OK if path.is_dir() else os.W_OK
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def scratch_dir(name: str) -> Path:
    """A folder for what can be made again: `name` in the cache, or a temporary one of this process where there is no
    cache that can be written. Raises OSError where there is neither."""
    try:
        folder = cache_dir() / name
        folder.mkdir(parents=True, exist_ok=True)
        if may_write(folder):
            return folder
    except (OSError, InputError):
        pass
    return temporary_dir(name)


def temporary_dir(name: str) -> Path:
    """A folder that is removed when this process ends. Raises OSError."""
    folder = _temporary() / name
    folder.mkdir(exist_ok=True)
    return folder


@cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mnist-suite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
