"""Random crops of images, resampled with antialiasing: a box of its own for every image of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ASPECT = 4 / 3  # largest ratio of the sides, as in torchvision's RandomResizedCrop


def random_boxes(count: int, smallest: float, device: torch.device, generator: torch.Generator) -> Tensor:
    """Random boxes (4, count) in a unit square: top, left, height, width.

    The area is uniform from `smallest` to 1, and the logarithm of the aspect ratio is uniform up to `ASPECT`, as
    far as a box of that area fits (Szegedy et al., 2015, arXiv:1409.4842). No draw is rejected: shapes are static.
    """
    draw = torch.rand(4, count, device=device, generator=generator)
    area = smallest + (1 - smallest) * draw[0]
    widest = (-area.log()).clamp(max=math.log(ASPECT))
    ratio = ((2 * draw[1] - 1) * widest).exp()
    height, width = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
    return torch.stack((draw[2] * (1 - height), draw[3] * (1 - width), height, width))


def resampled(images: Tensor, boxes: Tensor, size: int, *, cubic: bool) -> Tensor:
    """The `boxes` (4, B) of images (B, C, H, W) float32, each at `size` pixels: (B, C, size, size).

    The filters are those of `torch.nn.functional.interpolate` with `antialias=True`: a triangle, or Keys' cubic with
    a = -0.5, stretched where the box shrinks. Both are separable, so that this is two matrix products an image.
    """
    top, left, height, width = boxes
    rows = _weights(top, height, images.shape[-2], size, cubic)
    columns = _weights(left, width, images.shape[-1], size, cubic)
    x = images.flatten(1, 2) @ columns.transpose(1, 2)  # (B, C * H, size)
    return rows[:, None] @ x.unflatten(1, images.shape[1:3])


def _weights(start: Tensor, length: Tensor, pixels: int, size: int, cubic: bool) -> Tensor:
    """Weights (B, size, pixels) of the stored pixels of one axis; `start` and `length` (B,) are shares of the axis."""
    step = (length * (pixels / size)).view(-1, 1, 1)  # stored pixels per output pixel
    target = torch.arange(size, device=start.device).view(1, -1, 1) + 0.5
    source = torch.arange(pixels, device=start.device).view(1, 1, -1) + 0.5
    distance = ((source - (start.view(-1, 1, 1) * pixels + target * step)) / step.clamp(min=1)).abs()
    weights = _cubic(distance) if cubic else (1 - distance).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5 (Keys, 1981, https://doi.org/10.1109/TASSP.1981.1163711)."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
