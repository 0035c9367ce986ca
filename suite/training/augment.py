"""From stored bytes to what a model takes: batched, on the device, each image with its own random draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.models.backbones import Preprocess
from suite.spec import Augment

Prepare = Callable[[Tensor, torch.Generator | None], Tensor]  # the generator is None when evaluating


def image_preparer(expects: Preprocess, augment: Augment, device: torch.device) -> Prepare:
    """A function (B, C, H, W) uint8 -> (B, C, size, size) float32, normalised, channels last.

    Geometry is one resampling: shift, rotation, scale and the resize to the model's size share it, so that
    augmenting costs no second interpolation. What moves in from outside is black.
    """
    mean = torch.tensor(expects.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(expects.std, device=device).view(1, -1, 1, 1)
    gain, offset = 1 / (255 * std), -mean / std
    moves = bool(augment.shift or augment.rotate or augment.scale)

    def prepare(images: Tensor, generator: torch.Generator | None) -> Tensor:
        x = images.float()
        size = (expects.size, expects.size)
        if generator is not None and moves:
            x = _affine(x, augment, size, generator)
        elif x.shape[-2:] != size:
            mode = "bicubic" if expects.interpolation == "bicubic" else "bilinear"
            shrinks = x.shape[-1] > expects.size
            x = F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=shrinks).clamp_(0, 255)
        if generator is not None and augment.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
            x = torch.where(mirrored, x.flip(3), x)
        if generator is not None and augment.erase:
            x = _erase(x, augment.erase, generator)
        return torch.addcmul(offset, x, gain).contiguous(memory_format=torch.channels_last)

    return prepare


def feature_preparer(features: Tensor, _: torch.Generator | None) -> Tensor:
    """Frozen features (B, D) go in as they are."""
    return features


def _affine(x: Tensor, augment: Augment, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    count, height = len(x), x.shape[-2]
    draw = torch.rand(4, count, device=x.device, generator=generator) * 2 - 1
    angle = draw[0] * math.radians(augment.rotate)
    zoom = 1 + draw[1] * augment.scale
    shift = draw[2:] * (2 * augment.shift / height)  # grid coordinates run from -1 to 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack((torch.stack((cos, -sin, shift[0]), 1), torch.stack((sin, cos, shift[1]), 1)), 1)
    grid = F.affine_grid(rows, [count, x.shape[1], *size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _erase(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Random erasing (Zhong et al., 2017, arXiv:1708.04896): a rectangle of an eighth to a half of each side."""
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
