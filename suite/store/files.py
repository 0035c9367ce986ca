"""The results directory: the seam between whatever trains and whatever looks.

One writer a file. Whole files appear by rename; event logs grow by one `write()` a line. Readers never
write, tolerate a torn tail and never invent anything: what does not parse is counted and left out.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from suite.errors import InputError, WorkError
from suite.spec import NAME

MOST_BYTES = 2**28  # of a file that is read whole; a stranger's may claim to be as large as it likes

Model = TypeVar("Model", bound=BaseModel)


def check_name(name: str, what: str) -> str:
    """Refuse a name that is not a plain path component. Raises InputError."""
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"{what} name {name[:80]!r} cannot be used: take letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, 80 characters at most."
        )
    return name


def results_dir(path: str | Path | None = None) -> Path:
    """The results directory: the argument, else $MNIST_SUITE_RESULTS, else ./results."""
    return Path(path or os.environ.get("MNIST_SUITE_RESULTS") or "results").expanduser().absolute()


def make_writable(path: Path) -> Path:
    """Create a directory and show that files can be made in it. Raises InputError."""
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


DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # of the place, never of the work


def disk_fault(error: OSError) -> str:
    """One sentence for a place that can no longer be written to, and what to do."""
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror or error}{where}. Nothing that was committed is lost: mend that, for example by freeing "
        "space, and go on with the same command and --resume."
    )


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` as one step: readers see the old file or the new one, also after a power cut."""
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


def sweep_up(directory: Path, *names: str) -> None:
    """Remove what writers that were killed left unrenamed of these files; only their one writer may do so."""
    for name in names:
        for leftover in directory.glob(f".{name}.*.tmp"):
            leftover.unlink(missing_ok=True)


def write_model(path: Path, model: BaseModel, *, durable: bool = True) -> None:
    write_atomic(path, model.model_dump_json(indent=1) + "\n", durable=durable)


def open_plain(path: Path | str) -> int:
    """A descriptor for reading. Raises OSError for what is no plain file: a pipe or a device is read for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "It is no plain file", str(path))
    return handle


def read_bytes(path: Path | str) -> bytes:
    """A small file's content by as few system calls as it takes: there are tens of thousands of them."""
    handle = open_plain(path)
    try:
        if os.fstat(handle).st_size > MOST_BYTES:
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
    """JSON for scripts, also of models and dataclasses: two spaces, NaN refused."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=to_jsonable_python)


def cache_dir() -> Path:
    """$MNIST_SUITE_CACHE, else the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("MNIST_SUITE_CACHE") or platformdirs.user_cache_dir("mnist-suite")
    return Path(chosen).expanduser().absolute()  # package clients run in folders of their own
