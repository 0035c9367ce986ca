"""Pictures and maps as the fields of a file, and back."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from suite.spec import Raster


def pixels(rows: Sequence[Sequence[int]], rgb: str | None, channels: int) -> np.ndarray:
    """A mistake's picture (channels, H, W) uint8 from the fields of `spec.Mistake`."""
    grey = np.array(rows, dtype=np.uint8)
    if rgb is None:
        return np.repeat(grey[None], channels, 0)
    return np.frombuffer(base64.b64decode(rgb), np.uint8).reshape(*grey.shape, 3).transpose(2, 0, 1)


def shrunk(values: np.ndarray, most: int) -> np.ndarray:
    """Values (C, H, W) with at most `most` pixels a side, each the mean of those that it stands for."""
    longest = max(values.shape[-2:])
    if longest <= most:
        return values
    size = [max(1, round(side * most / longest)) for side in values.shape[-2:]]
    smaller = F.interpolate(torch.from_numpy(values.astype(np.float32))[None], size=size, mode="area")[0].numpy()
    return smaller.round().astype(np.uint8) if values.dtype == np.uint8 else smaller


def raster(picture: np.ndarray) -> Raster:
    """A picture (C, H, W) uint8; of other numbers of channels than 1 and 3 their mean."""
    if len(picture) not in (1, 3):
        picture = picture.mean(0, keepdims=True).round().astype(np.uint8)
    channels, height, width = picture.shape
    data = base64.b64encode(np.ascontiguousarray(picture.transpose(1, 2, 0)).tobytes()).decode()
    return Raster(height=height, width=width, channels=3 if channels == 3 else 1, data=data)


def signed_bytes(values: np.ndarray) -> tuple[float, str]:
    """The largest magnitude of values (H, W), and all in units of a 127th of it, as Base64 of signed bytes."""
    exact = values.astype(np.float64)
    largest = float(np.abs(exact).max(initial=0))
    scaled = np.rint(exact / largest * 127) if largest > 0 else exact
    return largest, base64.b64encode(scaled.astype(np.int8).tobytes()).decode()
