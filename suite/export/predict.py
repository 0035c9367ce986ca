"""Loading an exported model and predicting with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.inspection import in_parallel
from suite.data.pictures import stored_image, stored_picture
from suite.errors import InputError
from suite.export.card import WEIGHTS, read_card
from suite.export.networks import network
from suite.hardware import memory
from suite.hardware.device import pick
from suite.models.preprocessing import evaluation_preparer
from suite.models.state_dicts import read_tensors
from suite.spec import Preprocess
from suite.store.files import file_sha256

# Pixels of the inputs of one batch. On a CPU small batches are the fastest, whose activations fit the caches; on a GPU
# activations take about 1 GiB at most in common networks.
PIXELS = {"cpu": 250_000, "gpu": 1_600_000}

MOST = 250  # pictures in a batch

LARGEST_DRAWING = 1024  # pixels a side


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
    try:
        model = network(card, tensors)
        model.load_state_dict(tensors)
    except (AssertionError, RuntimeError, LookupError, ValueError, TypeError, StopIteration) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} does not fit the backbone {card.backbone}: {reason}") from None
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise InputError(f"The weights in {path} are no use: they hold NaN or infinity.")
    return model.eval()


class Prediction(NamedTuple):
    """What a model answered about one picture file, and what it saw."""

    answer: dict[str, Any]  # `image` (the path), `label` and `probabilities`, or `image` and `error`
    picture: np.ndarray | None  # (C, stored, stored) uint8; None where the file cannot be used


class Predictor:
    """An exported model with the preprocessing of its inputs: from an image file to the classes' probabilities.

    Args:
        folder: an exported model. Raises InputError as `load` does.
        device: as on the command line: "auto", "cpu", "cuda", "cuda:N" or "mps".
    """

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        self.card = card = read_card(Path(folder))
        self.device = pick(device)
        self.model = load(folder).to(self.device)
        self.prepare = evaluation_preparer(card.preprocess, self.device)

    def file(self, path: str | Path) -> dict[str, Any]:
        """`image` (the path), `label` and `probabilities` of one image file. Raises InputError."""
        picture = np.array(stored_picture(Path(path), self.card.preprocess))  # a copy that can be written to
        return {"image": str(path), **self.pixels(torch.from_numpy(picture))}

    def files(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Predictions for many image files, in their order, read on all cores and predicted in batches.

        A file that cannot be used gets an error for an answer.
        """
        memory.keep_memory()
        batch = batch_size(self.card.preprocess, self.device)
        threads = torch.get_num_threads()
        waiting: list[tuple[Path, np.ndarray | str]] = []
        read = in_parallel(self._read, paths) if len(paths) > 1 else map(self._read, paths)
        for path, picture in zip(paths, read, strict=True):
            waiting.append((path, picture))
            if len(waiting) == batch:
                torch.set_num_threads(threads)  # the threads that read have set it to one
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def pixels(self, image: Tensor) -> dict[str, Any]:
        """`label` and `probabilities` of one (C, stored, stored) uint8 image. Raises InputError."""
        answer = self._answers(image[None])[0]
        if "error" in answer:
            raise InputError(answer["error"])
        return answer

    def drawing(self, pixels: np.ndarray) -> dict[str, Any]:
        """`label` and `probabilities` of a grey drawing (side, side) uint8 of any size.

        It is treated like a picture file of that size. Raises InputError.
        """
        from PIL import Image

        return self.pixels(torch.from_numpy(np.array(stored_image(Image.fromarray(pixels), self.card.preprocess))))

    def _read(self, path: Path) -> np.ndarray | str:
        try:
            return stored_picture(path, self.card.preprocess)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{path}: {error.strerror or error}"

    def _predict(self, read: Sequence[tuple[Path, np.ndarray | str]]) -> Iterator[Prediction]:
        pictures = [picture for _, picture in read if isinstance(picture, np.ndarray)]
        answers = iter(self._answers(torch.from_numpy(np.stack(pictures))) if pictures else [])
        for path, picture in read:
            answer = {"error": picture} if isinstance(picture, str) else next(answers)
            yield Prediction({"image": str(path), **answer}, None if isinstance(picture, str) else picture)

    @torch.inference_mode()
    def _answers(self, images: Tensor) -> list[dict[str, Any]]:
        """`label` and `probabilities`, or `error`, of images (B, C, stored, stored) uint8. Raises InputError."""
        try:
            scores = self.model(self.prepare(images.to(self.device))).float().softmax(1).cpu()
        except RuntimeError as error:
            raise InputError(f"The model cannot be used on these pictures: {str(error).splitlines()[0]}") from None
        answers: list[dict[str, Any]] = []
        for one in scores:
            if not one.isfinite().all():
                answers.append({"error": "The model gives no finite scores for this picture."})
                continue
            named = {label: round(p, 6) for label, p in zip(self.card.classes, one.tolist(), strict=True)}
            answers.append({"label": self.card.classes[int(one.argmax())], "probabilities": named})
        return answers


def batch_size(expects: Preprocess, device: torch.device) -> int:
    """Pictures that are predicted together."""
    return max(1, min(MOST, PIXELS["cpu" if device.type == "cpu" else "gpu"] // expects.size**2))


def serve(folder: Path, device: str) -> None:
    """Answer JSON lines on stdin with JSON lines on stdout, until stdin ends.

    The first line written is {"ready": true, "classes": [...], "size": N, "dataset": NAME}. A request is
    {"pixels": [[0..255, ...]]}, a square grey picture of any size, which is brought to the model's size N as a file
    would be; its answer holds `label` and `probabilities`, or `error`. Raises InputError where the model cannot be
    loaded.
    """
    predictor = Predictor(folder, device)

    def write(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    card = predictor.card
    write({"ready": True, "classes": list(card.classes), "size": card.preprocess.stored, "dataset": card.dataset})
    for line in sys.stdin:
        try:
            write(predictor.drawing(_square(json.loads(line)["pixels"])))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, InputError) as error:
            write({"error": (str(error).splitlines() or ["invalid request"])[0]})


def _square(pixels: Any) -> np.ndarray:
    """The pixels of a request (side, side) uint8. Raises ValueError or TypeError."""
    values = np.array(pixels, dtype=np.float64)
    if values.ndim != 2 or not 1 <= len(values) == values.shape[1] <= LARGEST_DRAWING:
        raise ValueError("pixels must be N rows of N numbers, N at most 1024")
    return np.nan_to_num(values).clip(0, 255).astype(np.uint8)
