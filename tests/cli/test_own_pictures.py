"""Training on a folder of pictures from the command line: a few pictures, broken ones, and what is said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suite.data.datasets import describe
from suite.errors import InputError

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures in each of two classes: light and dark ones."""
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(level + rng.integers(-20, 21, (40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.jpg")
    return tmp_path / "photos"


def test_a_few_pictures_are_enough(suite: Command, photos: Path) -> None:
    """The default batch is made smaller; the folder is recorded absolute, and is the same however it is written."""
    words = ("pretrain", "--backbone", "lean-s", "--set", "epochs=4", "--study", "few", "--json")
    done = suite(*words, "--dataset", "folder:photos/")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0].startswith("reading pictures: ")
    again = suite(*words, "--dataset", "folder:./photos")
    assert json.loads(again.stdout) == json.loads(done.stdout) | {"repeated": True}
    (trial,) = (photos.parent / "results" / "few" / "trials").glob("*/trial.json")
    facts = json.loads(trial.read_text())
    assert facts["dataset"] == f"folder:{photos}"
    assert facts["recipe"]["batch_size"] == 4
    given = suite("pretrain", "--dataset", "folder:photos", "--set", "batch_size=8", "--dry-run", "--json")
    assert json.loads(given.stdout)["arms"]["pretrain"]["recipe"]["batch_size"] == 8
    assert facts["preprocess"]["stored"] == facts["preprocess"]["size"] == 40


def test_a_test_part_is_checked_before_the_search(photos: Path) -> None:
    """By the names and sizes of its files; none of them is opened."""
    for label in ("dark", "light"):
        (photos / "train" / label).parent.mkdir(exist_ok=True)
        (photos / label).rename(photos / "train" / label)
    (photos / "test" / "dark").mkdir(parents=True)
    (photos / "test" / "dark" / "a.jpg").write_bytes(b"not opened")
    found = describe(f"folder:{photos}", skip_broken=False)
    assert found.notes == ("the test part has no picture of light",)
    (photos / "test" / "dark" / "b.jpg").touch()
    with pytest.raises(InputError, match=r"test/dark/b\.jpg"):
        describe(f"folder:{photos}", skip_broken=False)
    assert any("1 test pictures cannot be read" in note for note in describe(f"folder:{photos}").notes)
    (photos / "test" / "grey").mkdir()
    (photos / "test" / "grey" / "c.jpg").write_bytes(b"not opened")
    with pytest.raises(InputError, match="classes that the training part lacks: grey"):
        describe(f"folder:{photos}")


def test_broken_pictures_are_all_named_before_anything_is_written(suite: Command, photos: Path) -> None:
    (photos / "dark" / "0.jpg").write_bytes(b"")
    (photos / "light" / "1.jpg").write_text("no picture")
    (photos / "light" / "notes.heic").write_text("no decoder")
    words = ("pretrain", "--backbone", "lean-s", "--set", "epochs=1", "--study", "s", "--dataset", "folder:photos")
    refused = suite(*words)
    assert refused.returncode == 2
    assert "dark/0.jpg" in refused.stderr and "light/1.jpg" in refused.stderr and "--skip-broken" in refused.stderr
    assert not (photos.parent / "results" / "s").exists()
    done = suite(*words, "--skip-broken")
    assert done.returncode == 0, done.stderr
    assert "2 files that cannot be read" in done.stderr and "1 .heic" in done.stderr
    assert suite(*words).returncode == 0  # the study knows its pictures


def test_the_cache_is_shown_and_pruned(suite: Command, photos: Path, tmp_path: Path) -> None:
    cache = {"MNIST_SUITE_CACHE": str(tmp_path / "cache")}
    words = ("pretrain", "--backbone", "lean-s", "--set", "epochs=1", "--dataset", "folder:photos", "-q")
    assert suite(*words, **cache).returncode == 0
    shown = json.loads(suite("data", "cache", "--json", **cache).stdout)
    (pictures,) = (entry for entry in shown["entries"] if entry["kind"] == "pictures")
    assert pictures["what"] == "18 pictures at 40 px, crop, RGB"
    kept = suite("data", "cache", "--prune", "--unused", "1", **cache)
    assert "removed 0 entries" in kept.stdout
    gone = suite("data", "cache", "--prune", **cache)
    assert "removed 1 entries" in gone.stdout
    assert not list((tmp_path / "cache" / "pictures" / "views").iterdir())
