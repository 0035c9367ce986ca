"""`predict --serve`: JSON lines for other programs, such as the dashboard's drawing pad."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from suite.errors import InputError
from suite.export.predict import Predictor

LARGEST_DRAWING = 1024  # pixels a side


def answer_lines(folder: Path, device: str, format: str | None = None) -> None:
    """Answer JSON lines on stdin with JSON lines on stdout, until stdin ends.

    The first line written is {"ready": true, "classes": [...], "size": N, "dataset": NAME}. A request is
    {"pixels": [[0..255, ...]]}, a square grey picture of any size, which is brought to the model's size N as a file
    would be; its answer holds `label` and `probabilities`, or `error`. Raises InputError where the model cannot be
    loaded.
    """
    predictor = Predictor(folder, device, format)

    def write(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    card = predictor.card
    write({"ready": True, "classes": list(card.classes), "size": card.preprocess.stored, "dataset": card.dataset})
    for line in sys.stdin:
        try:
            write(predictor.drawing(square(json.loads(line)["pixels"])))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, InputError) as error:
            write({"error": (str(error).splitlines() or ["invalid request"])[0]})


def square(pixels: Any) -> np.ndarray:
    """The pixels of a request (side, side) uint8. Raises ValueError or TypeError."""
    values = np.array(pixels, dtype=np.float64)
    if values.ndim != 2 or not 1 <= len(values) == values.shape[1] <= LARGEST_DRAWING:
        raise ValueError("pixels must be N rows of N numbers, N at most 1024")
    return np.nan_to_num(values).clip(0, 255).astype(np.uint8)
