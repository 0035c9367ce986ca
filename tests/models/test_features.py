"""Frozen features: their cache, and what their extraction reports."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from suite.models import backbones, features
from suite.spec import Preprocess


def test_features_are_computed_once_and_follow_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path))
    images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8)
    expects = Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,))
    model = backbones.build("cnn", classes=10, channels=1, size=28, seed=0)

    def get(**changes: object) -> tuple[torch.Tensor, bool]:
        facts: dict[str, object] = {"images_hash": "a"} | changes
        work = features.cached(model, images, expects, torch.float32, **facts)  # type: ignore[arg-type]
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value

    found, hit = get()
    first = found.clone()  # the file is mapped, and about to be damaged
    assert not hit
    assert first.shape == (40, 128)
    again, hit = get()
    assert hit
    assert torch.equal(first, again)
    assert not get(images_hash="b")[1]
    assert again is get()[0]  # one tensor for all trials of a process, mapped: copied here before the file is damaged
    first = first.clone()
    for path in (tmp_path / "features").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-10])
    assert torch.equal(get()[0], first)  # a damaged cache is computed anew
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not get()[1]


def test_an_extraction_reports_images_that_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is synchronised before each report: images that are only queued are not called done."""
    expects = Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,))
    model = backbones.build("cnn", classes=10, channels=1, size=28, seed=0)
    order: list[str] = []
    monkeypatch.setattr(features, "synchronize", lambda device: order.append(f"synchronised {device}"))
    monkeypatch.setattr(features.time, "monotonic", iter(range(100)).__next__)  # a second passes at each look
    work = features.extract(model, torch.zeros(300, 1, 28, 28, dtype=torch.uint8), expects, torch.float32)
    for done in work:
        order.append(f"done {done}")
    assert order == [line for done in (128, 256, 384) for line in ("synchronised cpu", f"done {done}")]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A cache on a read-only file system, whose folder of features is there or not."""
    shared = tmp_path / "shared"
    (shared / "features").mkdir(parents=True)
    mounts = (["--bind", shared, shared], ["-o", "remount,bind,ro", shared])
    if any(subprocess.run(["mount", *map(str, words)], capture_output=True).returncode for words in mounts):
        pytest.skip("cannot mount a file system here")
    yield shared
    subprocess.run(["umount", "-l", str(shared)], check=False)


def test_a_cache_that_cannot_be_written_costs_time_only(
    read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are kept for this process; the next process finds those that the cache has."""
    images = torch.randint(0, 256, (40, 1, 28, 28), dtype=torch.uint8)
    expects = Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,))
    model = backbones.build("net", classes=10, channels=1, size=28, seed=0)

    def get(cache: Path) -> tuple[torch.Tensor, bool]:
        monkeypatch.setenv("MNIST_SUITE_CACHE", str(cache))
        work = features.cached(model, images, expects, torch.float32, images_hash="a")
        while True:
            try:
                next(work)
            except StopIteration as end:
                return end.value

    found, hit = get(read_only)
    assert not hit
    again, hit = get(read_only)
    assert hit and again is found
    for place in ("/proc/nothing", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        assert torch.equal(get(Path(place))[0], found)
    assert list(read_only.iterdir()) == [read_only / "features"]
    monkeypatch.setattr("suite.store.files.temporary_dir", no_place)  # not even a temporary folder
    value, hit = get(read_only)
    assert not hit and torch.equal(value, found)


def no_place(name: str) -> Path:
    raise OSError(errno.ENOSPC, "No space left on device")
