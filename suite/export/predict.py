"""Loading an exported model and predicting with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.data.pictures import stored_picture
from suite.errors import InputError
from suite.export.card import WEIGHTS, read_card
from suite.hardware.device import pick
from suite.models import heads
from suite.models.assembly import build, classifier_name
from suite.models.preprocessing import evaluation_preparer
from suite.models.state_dicts import read_tensors
from suite.store.files import file_sha256


def load(folder: str | Path) -> nn.Module:
    """The exported model in a folder, in evaluation mode.

    It takes normalised images (B, C, size, size) float32, as the model card describes them, and returns logits
    (B, classes). Raises InputError where the folder is no export, or its files are damaged or do not belong together.
    """
    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    if file_sha256(path) != card.sha256:
        raise InputError(f"{path} is not the file its card describes (SHA-256 differs); export the model again.")
    model = build(card.backbone, card.preprocess, classes=len(card.classes), seed=0)
    try:
        if card.head is not None:
            name = classifier_name(model)
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            model.set_submodule(name, heads.restore_folded(card.head, own, len(card.classes)))
        model.load_state_dict(tensors)
    except (RuntimeError, LookupError, ValueError, StopIteration) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()


class Predictor:
    """An exported model with the preprocessing of its inputs: from an image file to the classes' probabilities.

    Args:
        folder: an exported model. Raises InputError as `load` does.
        device: as on the command line: "auto", "cpu", "cuda", "cuda:N" or "mps".
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.card = card = read_card(folder)
        self.device = pick(device)
        self.model = load(folder).to(self.device)
        self.prepare = evaluation_preparer(card.preprocess, self.device)

    def file(self, path: Path) -> dict[str, Any]:
        """`image` (the path), `label` and `probabilities` of one image file. Raises InputError."""
        return {"image": str(path), **self.pixels(torch.from_numpy(stored_picture(path, self.card.preprocess)))}

    @torch.inference_mode()
    def pixels(self, image: Tensor) -> dict[str, Any]:
        """`label` and `probabilities` of one (C, stored, stored) uint8 image. Raises InputError."""
        scores = self.model(self.prepare(image[None].to(self.device)))[0].float().softmax(0)
        if not scores.isfinite().all():
            raise InputError("The model gives no finite scores for this picture.")
        named = {label: round(float(p), 6) for label, p in zip(self.card.classes, scores, strict=True)}
        return {"label": self.card.classes[int(scores.argmax())], "probabilities": named}


def serve(folder: Path, device: str) -> None:
    """Answer JSON lines on stdin with JSON lines on stdout, until stdin ends.

    The first line written is {"ready": true, "classes": [...], "size": N}. A request is {"pixels": [[0..255, ...]]}
    with N rows of N numbers; its answer holds `label` and `probabilities`, or `error`. Raises InputError where the
    model cannot be loaded.
    """
    predictor = Predictor(folder, device)
    expects = predictor.card.preprocess

    def write(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    write({"ready": True, "classes": list(predictor.card.classes), "size": expects.stored})
    for line in sys.stdin:
        try:
            pixels = torch.tensor(json.loads(line)["pixels"]).clamp(0, 255).to(torch.uint8)
            if pixels.shape != (expects.stored, expects.stored):
                raise ValueError(f"pixels must be {expects.stored} rows of {expects.stored} numbers")
            write(predictor.pixels(pixels[None].expand(expects.channels, -1, -1)))
        except (ValueError, KeyError, TypeError, RuntimeError, InputError) as error:
            write({"error": str(error).splitlines()[0]})
