"""Loading exported models, those of earlier versions too, and predicting with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import suite.export
from suite.data.datasets import search_splits
from suite.errors import InputError
from suite.export.card import CARD, WEIGHTS, read_card
from suite.export.predict import MOST, PIXELS, Predictor, batch_size
from suite.export.seen import Seen
from suite.spec import Preprocess
from suite.training.checkpoint import save_tensors

if TYPE_CHECKING:
    from tests.export.conftest import Own

# mnist-suite.json as version 0.1.0 wrote it, for an MLP on the features of `net`
CARD_0_1_0 = """
{"schema_version": 1, "backbone": "net", "head": {"kind": "mlp", "hidden": 16}, "dataset": "mnist",
 "classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "channels": 1, "native_size": 28, "size": 28,
 "mean": [0.1307], "std": [0.3081], "interpolation": "none", "trial": "mnist/0003-abcdef12", "strategy": "head",
 "accuracy": 0.9916, "interval": [0.9889, 0.9936], "images": 6000, "sha256": "SHA256", "timm": false,
 "cost": {"parameters": 21840, "trainable": 1, "forward_flops": 1, "training_flops": 1, "setup_flops": 0,
  "flops_source": "torch.utils.flop_counter, eager, meta device", "wall_seconds": 1.0, "train_seconds": 1.0,
  "setup_seconds": 1.0, "images_per_second": 1.0, "peak_memory_bytes": 1, "memory_source": "m",
  "energy_joules": null, "energy_source": "unavailable", "latency_seconds": 1.0, "latency_256_seconds": 1.0},
 "provenance": {"version": "0.1.0", "command": "mnist-suite sweep", "commit": null, "python": "3.11.2",
  "packages": {"torch": "2.11.0"}, "host": "h", "hardware": "cpu", "threads": 1, "precision": "fp32",
  "data_sha256": null, "split_sha256": null, "weights": null, "weights_sha256": null}}
"""

# Names and shapes of the tensors in its model.safetensors
TENSORS_0_1_0 = {
    "stages.0.conv.weight": (10, 1, 5, 5),
    "stages.0.conv.bias": (10,),
    "stages.1.conv.weight": (20, 10, 5, 5),
    "stages.1.conv.bias": (20,),
    "hidden.weight": (50, 320),
    "hidden.bias": (50,),
    "classifier.0.weight": (16, 50),
    "classifier.0.bias": (16,),
    "classifier.2.weight": (10, 16),
    "classifier.2.bias": (10,),
}


@pytest.fixture
def old_export(tmp_path: Path) -> Path:
    """The folder of a model as version 0.1.0 exported it."""
    folder = tmp_path / "model"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    tensors = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in TENSORS_0_1_0.items()}
    sha256 = save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    (folder / CARD).write_text(CARD_0_1_0.replace("SHA256", sha256))
    return folder


def test_an_export_of_version_0_1_0_loads_and_predicts(old_export: Path) -> None:
    """By the line that its model card quotes."""
    model = suite.export.load(str(old_export))
    assert not model.training
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    Image.fromarray(search_splits("mnist", limit=20).validation.images[0, 0]).save(old_export / "picture.png")
    answer = Predictor(old_export).file(old_export / "picture.png")
    assert answer["image"] == str(old_export / "picture.png")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert read_card(old_export).cost is not None


def test_many_files_get_the_answers_of_one_and_broken_ones_an_error(
    old_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches smaller than the number of files; nothing on a picture is an error too."""
    monkeypatch.setattr("suite.export.predict.MOST", 3)
    digits = search_splits("mnist", limit=20).validation.images[:7, 0]
    files = [tmp_path / f"{i}.png" for i in range(7)]
    for digit, path in zip(digits, files, strict=True):
        Image.fromarray(digit).save(path)
    for name in ("broken.png", "missing.png", "x" * 300, "pipe.png", "blank.png"):
        files.insert(2, tmp_path / name)
    (tmp_path / "broken.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (40, 40), 200).save(tmp_path / "blank.png")
    predictor = Predictor(old_export)
    found = list(predictor.files(files))
    assert [prediction.answer["image"] for prediction in found] == [str(path) for path in files]
    for path, prediction in zip(files, found, strict=True):
        if path.stem.isdigit():
            one = predictor.file(path)
            assert prediction.answer["label"] == one["label"]
            assert prediction.answer["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)
            assert prediction.picture is not None and prediction.picture.shape == (1, 28, 28)
        else:
            assert prediction.answer.keys() == {"image", "error"} and prediction.picture is None
            assert path.name[:200] in prediction.answer["error"]


@given(size=st.integers(1, 1024), place=st.sampled_from(["cpu", "cuda"]))
def test_batches_keep_to_their_budget(size: int, place: str) -> None:
    expects = Preprocess(channels=3, size=size, stored=size, mean=(0.5,), std=(0.5,))
    count = batch_size(expects, torch.device(place))
    assert 1 <= count <= MOST
    assert count == 1 or count * size**2 <= max(PIXELS.values())


@pytest.mark.parametrize("side", [16, 28, 64, 224])
def test_drawings_of_any_size_are_brought_to_the_models_own(old_export: Path, side: int) -> None:
    """A drawing is seen as a file of the same pixels would be."""
    digit = Image.fromarray(search_splits("mnist", limit=20).validation.images[0, 0]).resize((side, side))
    predictor = Predictor(old_export)
    digit.save(old_export / "drawing.png")
    answer = predictor.file(old_export / "drawing.png")
    assert predictor.drawing(np.asarray(digit))["probabilities"] == answer["probabilities"]
    with pytest.raises(InputError, match="stands out"):
        predictor.drawing(np.zeros((side, side), np.uint8))


@pytest.mark.parametrize("arm", ["net", "timm"])
def test_grey_drawings_reach_models_of_colour_pictures(models: dict[str, Path], arm: str) -> None:
    answer = Predictor(models[arm]).drawing(np.eye(28, dtype=np.uint8) * 255)
    assert set(answer["probabilities"]) == {"café", "thé", "z"}


def test_what_the_model_saw_is_written_as_pictures(models: dict[str, Path], own: Own, tmp_path: Path) -> None:
    """Under names of their own, and again over those of an earlier run, but over nothing else."""
    predictor = Predictor(models["net"])
    files = sorted((own.pictures / "café").rglob("*.*"))
    twins = [*files, *(path for path in own.pictures.rglob("*.*") if path.name == files[0].name)]
    for paths in (twins, files[:2]):
        seen = Seen(tmp_path / "new" / "seen", paths)
        for position, prediction in enumerate(predictor.files(paths)):
            assert prediction.picture is not None
            seen.write(position, prediction.picture)
        written = sorted((tmp_path / "new" / "seen").iterdir())
        assert len(written) == len(paths)
        for path, prediction in zip(written, predictor.files(paths), strict=True):
            assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), prediction.picture)
    shutil.copy(files[0], tmp_path / "new" / "seen" / "mine.png")
    with pytest.raises(InputError, match="holds other files"):
        Seen(tmp_path / "new" / "seen", files)
    with pytest.raises(InputError, match="pictures to predict"):
        Seen(files[0].parent, files)
    with pytest.raises(InputError, match="no folder"):
        Seen(files[0], files)
    assert (tmp_path / "new" / "seen" / "mine.png").exists() and all(path.exists() for path in files)


@pytest.mark.slow
def test_the_compiler_is_not_imported_for_a_prediction(models: dict[str, Path], own: Own) -> None:
    """It takes longer to import than timm. What needs it afterwards finds it."""
    code = f"""
import sys
from suite.export import Predictor
print(Predictor({str(models["timm"])!r}).file({str(next(own.pictures.rglob("*.jpg")))!r})["label"])
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "sympy", "torch._inductor"))]
import torch, torchvision
assert torchvision.ops.roi_align(torch.zeros(1, 1, 8, 8), torch.zeros(1, 5), 2).shape == (1, 1, 2, 2)
assert torch.compiler.disable.__module__ == "torch.compiler"
import torch._dynamo.utils
assert torch._dynamo.utils.counters is not None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("café", "thé", "z")


def test_what_is_no_export_is_refused_in_one_line(old_export: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no exported model"):
        suite.export.load(tmp_path)
    whole = json.loads((old_export / CARD).read_text())
    for changes, reason in (
        ({"schema_version": 2}, "newer version"),
        ({"mean": [0.1, 0.2]}, "damaged"),
        ({"sha256": "0" * 64}, "SHA-256 differs"),
        ({"backbone": "cnn"}, "does not fit the backbone cnn"),
        ({"head": None}, "does not fit the backbone net"),
        ({"head": {"kind": "knn", "k": 3}}, "does not fit the backbone net"),
    ):
        (old_export / CARD).write_text(json.dumps(whole | changes))
        with pytest.raises(InputError, match=reason) as refused:
            suite.export.load(old_export)
        assert "\n" not in str(refused.value)


def test_weights_that_are_not_finite_are_refused(old_export: Path) -> None:
    tensors = {name: torch.full(shape, float("nan")) for name, shape in TENSORS_0_1_0.items()}
    sha256 = save_tensors(old_export / WEIGHTS, tensors, {"format": "pt"})
    (old_export / CARD).write_text(CARD_0_1_0.replace("SHA256", sha256))
    with pytest.raises(InputError, match="NaN or infinity"):
        suite.export.load(old_export)
