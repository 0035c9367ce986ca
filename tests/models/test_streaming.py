"""Images that stay on the disk: the same values as in memory, read ahead or not, and the same training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from suite.data.rows import Rows
from suite.errors import WorkError
from suite.execution.options import Options
from suite.execution.plan import single
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.models import streaming
from suite.models.streaming import Streamed, on_device
from suite.spec.changes import single_arm
from suite.store.study import StudyDir, find_trial
from suite.training.setup import load_examples

CPU = torch.device("cpu")


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Rows, np.ndarray]:
    """Rows in an order of their own, and the same as an array."""
    values = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 5), dtype=np.uint8)
    (tmp_path / "rows.u8").write_bytes(values.tobytes())
    places = np.random.default_rng(1).permutation(20)[:12]
    return Rows(tmp_path / "rows.u8", (3, 5, 5), places), values[places]


def test_rows_are_indexed_like_an_array(rows: tuple[Rows, np.ndarray]) -> None:
    found, values = rows
    assert found.shape == values.shape and len(found) == 12 and found.nbytes == values.nbytes
    assert np.array_equal(found[3], values[3])
    assert np.array_equal(found[2:9:2], values[2:9:2])
    assert np.array_equal(found[np.array([7, 7, 0])], values[[7, 7, 0]])
    assert np.array_equal(found.chosen(np.array([5, 1]))[:], values[[5, 1]])


def test_a_file_that_became_shorter_is_an_error_and_no_crash(rows: tuple[Rows, np.ndarray]) -> None:
    found, _ = rows
    found.path.write_bytes(b"short")
    with pytest.raises(WorkError, match=r"rows\.u8 has become shorter"):
        found[:]


def test_streamed_images_are_those_in_memory(rows: tuple[Rows, np.ndarray]) -> None:
    """Also those that were read ahead, and others than those that were announced."""
    found, values = rows
    images, memory = Streamed(found, CPU), torch.from_numpy(values)
    first, second = torch.tensor([4, 0, 9]), torch.tensor([1, 1, 2])
    for index in (slice(2, 5), first, 3):
        assert torch.equal(images[index], memory[index])
    images.expect(first)
    assert torch.equal(images[first], memory[first])
    images.expect(first)
    assert torch.equal(images[second], memory[second])
    assert torch.equal(images[first], memory[first])


def test_large_sets_are_streamed_and_small_ones_held(
    rows: tuple[Rows, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(on_device(rows[0], CPU), torch.Tensor)
    monkeypatch.setattr(streaming, "HELD_ON_CPU", rows[0].nbytes - 1)
    assert isinstance(on_device(rows[0], CPU), Streamed)


# "auto" would be measured anew in each cache, and on a busy machine it may come out differently
SETTINGS = ["batch_size=8", "precision=fp32"]


@pytest.mark.parametrize("strategy", ["scratch", "head"])
def test_training_on_streamed_pictures_gives_the_same_weights(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 120)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(level + rng.integers(-50, 51, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    hashes: dict[int, str | None] = {}
    weights = None
    for held in (2**20, 0):
        monkeypatch.setattr(streaming, "HELD_ON_CPU", held)
        load_examples.cache_clear()
        if strategy == "head":
            monkeypatch.setenv("MNIST_SUITE_CACHE", str(tmp_path / f"cache-{held}"))  # features are computed anew
            weights = pretrained(tmp_path / f"results-{held}")
        settings = [*SETTINGS, "epochs=3"] + (["augment.crop=0.5"] if strategy == "scratch" else [])
        arm = single_arm("lean-s", strategy, head="linear", weights=weights, settings=settings)
        hashes[held] = trained(arm, f"folder:{tmp_path / 'photos'}", tmp_path / f"results-{held}")
    load_examples.cache_clear()
    assert hashes[0] == hashes[2**20] is not None


def pretrained(results: Path) -> str:
    """The name of a study with weights of `lean-s` for RGB pictures of 40 px."""
    folder = f"folder:{results.parent / 'photos'}"
    trained(single_arm("lean-s", "pretrain", settings=[*SETTINGS, "epochs=1"]), folder, results, "first")
    return "first"


def trained(arm: object, dataset: str, results: Path, name: str = "s") -> str | None:
    """The hash of the artifact of one training."""
    plan = single(name, arm, dataset, seed=0, limit=None)  # type: ignore[arg-type]
    for _ in sweep(plan, results, options=Options(device="cpu"), stop=Stop()):
        pass
    record = find_trial(StudyDir(results, name), None).record
    assert record is not None and record.state == "finished", record and record.reason
    return record.artifact_sha256
