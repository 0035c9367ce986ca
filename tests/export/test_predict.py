"""Loading exported models, those of earlier versions too, and predicting with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import suite.export
from suite.errors import InputError
from suite.export.card import CARD, WEIGHTS, read_card
from suite.export.predict import Predictor
from suite.training.checkpoint import save_tensors

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
    Image.linear_gradient("L").save(old_export / "picture.png")
    answer = Predictor(old_export).file(old_export / "picture.png")
    assert answer["image"] == str(old_export / "picture.png")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert read_card(old_export).cost is not None


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
