"""What a server tells of its model. Its history, its host and its folders stay here."""

from __future__ import annotations

import base64
import io
from pathlib import PurePath
from typing import Any

import numpy as np

from suite.data.registry import is_own
from suite.export.card import Card

TOLD = ("backbone", "classes", "preprocess", "trial", "strategy", "accuracy", "interval", "images")


def public_card(card: Card, format: str) -> dict[str, Any]:
    """The card without provenance, and without the path of a folder of pictures."""
    told = card.model_dump(mode="json", include=set(TOLD))
    dataset = f"folder:{PurePath(card.dataset).name}" if is_own(card.dataset) else card.dataset
    return {"dataset": dataset, "format": format, **told}


def seen_png(picture: np.ndarray) -> str:
    """What the model saw (C, H, W) uint8 as the data URL of a PNG; of channels other than 1 or 3, the first."""
    from PIL import Image

    pixels = np.ascontiguousarray(picture.transpose(1, 2, 0)) if len(picture) == 3 else picture[0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
