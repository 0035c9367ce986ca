"""Predicting with an exported model: from picture files, drawings and arrays to labels and probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from suite.data.inspection import in_parallel
from suite.data.pictures import stored_image, stored_picture
from suite.errors import InputError
from suite.export.card import read_card
from suite.export.runtimes import open_runtime
from suite.spec import Preprocess

if TYPE_CHECKING:
    import torch

# Pixels of the inputs of one batch. On a CPU small batches are the fastest, whose activations fit the caches; on a GPU
# activations take about 1 GiB at most in common networks.
PIXELS = {"cpu": 250_000, "gpu": 1_600_000}

MOST = 250  # pictures in a batch


class Prediction(NamedTuple):
    """What a model answered about one picture file, and what it saw."""

    answer: dict[str, Any]  # `image` (the path), `label` and `probabilities`, or `image` and `error`
    picture: np.ndarray | None  # (C, stored, stored) uint8; None where the file cannot be used


class Predictor:
    """An exported model with the preprocessing of its inputs: from an image file to the classes' probabilities.

    Args:
        folder: an exported model.
        device: as on the command line: "auto", "cpu", "cuda", "cuda:N" or "mps".
        format: "safetensors", "onnx", "int8" or "torch-export"; by default the first of them that is there.
        threads: of one run on the CPU; by default all cores.

    Raises InputError where the folder is no export, or its files are damaged or do not belong together, and where the
    library that runs the format is not installed.
    """

    def __init__(
        self, folder: str | Path, device: str = "cpu", format: str | None = None, *, threads: int | None = None
    ) -> None:
        folder = Path(folder)
        self.card = read_card(folder)
        self.runtime = open_runtime(folder, self.card, format, device=device, threads=threads)

    def file(self, path: str | Path) -> dict[str, Any]:
        """`image` (the path), `label` and `probabilities` of one image file. Raises InputError."""
        return {"image": str(path), **self.pixels(stored_picture(Path(path), self.card.preprocess))}

    def files(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Predictions for many image files, in their order, read on all cores and predicted in batches.

        A file that cannot be used gets an error for an answer.
        """
        if self.runtime.format == "safetensors":
            from suite.hardware.memory import keep_memory

            keep_memory()
        batch = batch_size(self.card.preprocess, self.runtime.device)
        waiting: list[tuple[Path, np.ndarray | str]] = []
        resized = self.card.preprocess.placement is None  # by PyTorch
        read = in_parallel(self._read, paths, by_torch=resized) if len(paths) > 1 else map(self._read, paths)
        for path, picture in zip(paths, read, strict=True):
            waiting.append((path, picture))
            if len(waiting) == batch:
                yield from self._predict(waiting)
                waiting = []
        yield from self._predict(waiting)

    def pixels(self, image: np.ndarray | torch.Tensor) -> dict[str, Any]:
        """`label` and `probabilities` of one (C, stored, stored) uint8 image. Raises InputError."""
        answer = self.answers(np.array(image)[None])[0]  # a copy, which torch may write to
        if "error" in answer:
            raise InputError(answer["error"])
        return answer

    def drawing(self, pixels: np.ndarray) -> dict[str, Any]:
        """`label` and `probabilities` of a grey drawing (side, side) uint8 of any size.

        It is treated like a picture file of that size. Raises InputError.
        """
        return self.pixels(drawn(pixels, self.card.preprocess))

    def answers(self, images: np.ndarray) -> list[dict[str, Any]]:
        """`label` and `probabilities`, or `error`, of images (B, C, stored, stored) uint8. Raises InputError."""
        classes = self.card.classes
        scores = self.runtime.run(images)
        finite, best = np.isfinite(scores).all(1).tolist(), scores.argmax(1).tolist()
        rounded = np.round(scores.astype(np.float64), 6).tolist()
        found: list[dict[str, Any]] = []
        for fine, place, row in zip(finite, best, rounded, strict=True):
            if fine:
                found.append({"label": classes[place], "probabilities": dict(zip(classes, row, strict=True))})
            else:
                found.append({"error": "The model gives no finite scores for this picture."})
        return found

    def _read(self, path: Path) -> np.ndarray | str:
        try:
            return stored_picture(path, self.card.preprocess)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"{path}: {error.strerror or error}"

    def _predict(self, read: Sequence[tuple[Path, np.ndarray | str]]) -> Iterator[Prediction]:
        pictures = [picture for _, picture in read if isinstance(picture, np.ndarray)]
        answers = iter(self.answers(np.stack(pictures)) if pictures else [])
        for path, picture in read:
            answer = {"error": picture} if isinstance(picture, str) else next(answers)
            yield Prediction({"image": str(path), **answer}, None if isinstance(picture, str) else picture)


def drawn(pixels: np.ndarray, expects: Preprocess) -> np.ndarray:
    """What a model sees of a drawing (H, W) or (H, W, 3) uint8: (C, stored, stored) uint8. Raises InputError."""
    from PIL import Image

    return stored_image(Image.fromarray(pixels), expects)


def batch_size(expects: Preprocess, device: torch.device | str) -> int:
    """Pictures that are predicted together."""
    return max(1, min(MOST, PIXELS["cpu" if str(device) == "cpu" else "gpu"] // expects.size**2))
