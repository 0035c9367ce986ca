"""Preparation of training batches on the device, with augmentation drawn for each image separately."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.models.preprocessing import normalizer, resize
from suite.spec import Augment, Preprocess
from suite.training.resample import random_boxes, resampled
from suite.training.trivial_augment import grayscale, trivial_augment


class Prepare(Protocol):
    """From stored inputs (B, ...) to what a model takes. Augments where a generator is given: without one, as in
    evaluation, nothing is random."""

    def __call__(self, inputs: Tensor, generator: torch.Generator | None = None, /) -> Tensor: ...


def training_preparer(expects: Preprocess, augment: Augment, device: torch.device) -> Prepare:
    """A function from images (B, C, H, W) uint8 to augmented model inputs (B, C, size, size) float32.

    Images may be larger than the model's input, so that a random crop has detail; a crop that shrinks is antialiased.
    Shift, rotation and scale share one resampling with the resize to the model's size. Pixels from outside the image
    are black there, and of the mean colour in TrivialAugment.
    """
    normalize = normalizer(expects, device)
    fill = 255 * torch.tensor(expects.mean, device=device).view(1, -1, 1, 1)

    def prepare(images: Tensor, generator: torch.Generator | None = None, /) -> Tensor:
        if generator is None:
            return normalize(resize(images, expects))
        x = _placed(images, expects, augment, generator)
        if augment.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        if augment.color:
            x = _recolored(x, augment.color, generator)
        if augment.trivial:
            x = trivial_augment(x, fill, generator)
        if augment.erase:
            x = _erase(x, augment.erase, generator)
        return normalize(x)

    return prepare


def feature_preparer(features: Tensor, generator: torch.Generator | None = None, /) -> Tensor:
    """Frozen features (B, D), unchanged: the preparation for heads."""
    return features


def _placed(images: Tensor, expects: Preprocess, augment: Augment, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) uint8 at the model's size, cropped and moved: (B, C, size, size) float32 in 0..255."""
    size, native = expects.size, images.shape[-2]
    x = images.float()
    if augment.crop:
        boxes = random_boxes(len(x), augment.crop, x.device, generator)
        x = resampled(x, boxes, size, cubic=expects.interpolation == "bicubic").clamp_(0, 255)
    if augment.shift or augment.rotate or augment.scale:
        return _affine(x, augment, size, native, generator)
    return resize(x, expects)


def _affine(x: Tensor, augment: Augment, size: int, native: int, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift images to (B, C, size, size). `native` is the height in pixels that shifts refer to."""
    count = len(x)
    draw = torch.rand(4, count, device=x.device, generator=generator) * 2 - 1
    angle = draw[0] * math.radians(augment.rotate)
    zoom = 1 + draw[1] * augment.scale
    shift = draw[2:] * (2 * augment.shift / native)  # grid coordinates run from -1 to 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack((torch.stack((cos, -sin, shift[0]), 1), torch.stack((sin, cos, shift[1]), 1)), 1)
    grid = F.affine_grid(rows, [count, x.shape[1], size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _recolored(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by a factor within 1 - strength and 1 + strength."""
    draw = torch.rand(3, len(x), device=x.device, generator=generator)
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1)).view(3, -1, 1, 1, 1)
    x = (x * brightness).clamp(0, 255)
    x = torch.lerp(grayscale(x).mean((1, 2, 3), keepdim=True), x, contrast).clamp(0, 255)
    return torch.lerp(grayscale(x), x, saturation).clamp(0, 255)


def _erase(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Random erasing (Zhong et al., 2017, arXiv:1708.04896): the sides are 1/8 to 1/2 of the image's."""
    count, height, width = len(x), x.shape[-2], x.shape[-1]
    draw = torch.rand(5, count, 1, device=x.device, generator=generator)
    side = draw[:2] * 0.375 + 0.125
    start = draw[2:4] * (1 - side)
    rows = torch.arange(height, device=x.device) / height
    columns = torch.arange(width, device=x.device) / width
    inside_rows = (rows >= start[0]) & (rows < start[0] + side[0])
    inside_columns = (columns >= start[1]) & (columns < start[1] + side[1])
    hit = (draw[4] < probability)[:, :, None]
    return x.masked_fill((inside_rows[:, :, None] & inside_columns[:, None, :] & hit)[:, None], 0)
