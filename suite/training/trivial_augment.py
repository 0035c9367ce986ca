"""TrivialAugment, wide: one random operation of random strength for each image (Müller and Hutter, 2021,
arXiv:2103.10158), for whole batches on the device.

Every image runs through all groups of operations with parameters that leave it as it is, except those of its own
operation. Shapes are static, and nothing waits for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

OPERATIONS = (
    "identity",
    "shear-x",
    "shear-y",
    "translate-x",
    "translate-y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)

BINS = 31  # strengths, from none to the largest

SHEAR, TRANSLATE, ROTATE, ENHANCE = 0.99, 32.0, 135.0, 0.99  # largest: ratio, pixels, degrees, relative change


@dataclass(frozen=True)
class Draws:
    """The operation of every image, and its strength."""

    operation: Tensor  # (B,) index into OPERATIONS
    strength: Tensor  # (B,) 0..1, in steps of 1 / (BINS - 1)
    sign: Tensor  # (B,) -1 or 1, for the operations that have two directions

    def of(self, *names: str) -> Tensor:
        """Which images have one of these operations: (B, 1, 1, 1) bool."""
        found = torch.zeros_like(self.operation, dtype=torch.bool)
        for name in names:
            found |= self.operation == OPERATIONS.index(name)
        return found.view(-1, 1, 1, 1)

    def signed(self, name: str, largest: float) -> Tensor:
        """Signed strengths (B,) up to `largest` of the images with this operation; 0 for all others."""
        return self.sign * self.strength * largest * self.of(name).flatten()


def trivial_augment(x: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Augment images (B, C, H, W) float32 in 0..255. `fill` (1, C, 1, 1) is the colour outside of an image."""
    draw = torch.rand(3, len(x), device=x.device, generator=generator)
    draws = Draws(
        operation=(draw[0] * len(OPERATIONS)).long(),
        strength=(draw[1] * BINS).floor() / (BINS - 1),
        sign=torch.where(draw[2] < 0.5, -1.0, 1.0),
    )
    return apply(x, draws, fill)


def apply(x: Tensor, draws: Draws, fill: Tensor) -> Tensor:
    """Each image after its operation: (B, C, H, W) in 0..255."""
    return _toned(_enhanced(_moved(x, draws, fill), draws), draws)


def _moved(x: Tensor, draws: Draws, fill: Tensor) -> Tensor:
    """Shear from the top left corner, translation, rotation about the centre."""
    shear_x, shear_y = draws.signed("shear-x", SHEAR), draws.signed("shear-y", SHEAR)
    angle = draws.signed("rotate", math.radians(ROTATE))
    # Grid coordinates run from -1 to 1: the corner is at -1, and W pixels are 2.
    across = shear_x + draws.signed("translate-x", 2 * TRANSLATE / x.shape[-1])
    down = shear_y + draws.signed("translate-y", 2 * TRANSLATE / x.shape[-2])
    first = torch.stack((angle.cos(), shear_x - angle.sin(), across), 1)
    second = torch.stack((shear_y + angle.sin(), angle.cos(), down), 1)
    grid = F.affine_grid(torch.stack((first, second), 1), list(x.shape), align_corners=False)
    moved = F.grid_sample(x - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill
    return torch.where(draws.of("shear-x", "shear-y", "translate-x", "translate-y", "rotate"), moved, x)


def _enhanced(x: Tensor, draws: Draws) -> Tensor:
    """Brightness, colour, contrast and sharpness: away from, or towards, an image without that quality."""
    gray = grayscale(x)
    without = torch.where(draws.of("color"), gray, x)
    without = torch.where(draws.of("contrast"), gray.mean((1, 2, 3), keepdim=True), without)
    without = torch.where(draws.of("brightness"), 0.0, without)
    without = torch.where(draws.of("sharpness"), _smoothed(x), without)
    factor = 1 + draws.sign * draws.strength * ENHANCE
    return torch.lerp(without, x, factor.view(-1, 1, 1, 1)).clamp(0, 255)


def _toned(x: Tensor, draws: Draws) -> Tensor:
    """Operations on the values of single pixels, which are whole numbers here as in stored images."""
    whole, strength = x.round(), draws.strength.view(-1, 1, 1, 1)
    step = 2 ** (strength * 6).round()  # 8 to 2 bits are left
    out = torch.where(draws.of("posterize"), (whole / step).floor() * step, x)
    out = torch.where(draws.of("solarize") & (whole >= 255 * (1 - strength)), 255 - whole, out)
    low, high = whole.amin((2, 3), keepdim=True), whole.amax((2, 3), keepdim=True)
    stretched = (whole - low) * (255 / (high - low).clamp(min=1))
    out = torch.where(draws.of("autocontrast") & (high > low), stretched, out)
    return torch.where(draws.of("equalize"), _equalized(whole), out)


def grayscale(x: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of colour images by ITU-R BT.601; the mean over any other number of channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def _smoothed(x: Tensor) -> Tensor:
    """A 3 x 3 blur with the weight 5 in the centre and 1 around it; the border stays as it is."""
    inner = (F.avg_pool2d(x, 3, stride=1) * 9 + 4 * x[..., 1:-1, 1:-1]) / 13
    blurred = x.clone()
    blurred[..., 1:-1, 1:-1] = inner
    return blurred


def _equalized(whole: Tensor) -> Tensor:
    """Histogram equalisation of each channel of images with whole values in 0..255, as Pillow's ImageOps.equalize."""
    index = whole.long().flatten(2)  # (B, C, H * W)
    counts = torch.zeros(*index.shape[:2], 256, device=whole.device)
    counts.scatter_add_(2, index, torch.ones((), device=whole.device).expand(index.shape))
    highest = counts.gather(2, index.amax(2, keepdim=True))
    step = ((index.shape[2] - highest) / 255).floor()
    table = ((counts.cumsum(2) - counts + (step / 2).floor()) / step.clamp(min=1)).floor().clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256.0, device=whole.device))
    return table.gather(2, index).view_as(whole)
