"""Stated corruptions of stored pictures, to measure how a model answers what its data set does not hold.

Each has four levels in a unit of its own, mildest first; level 0 leaves a picture as it is. Lengths are pixels of a
picture of 28 pixels a side; they grow with the side of larger ones. What is drawn at random, such as the sign of a
rotation, depends on the picture and on the corruption alone: it is the same at every level and in every run.

The kinds follow MNIST-C (Mu and Gilmer, 2019, arXiv:1906.02337), ImageNet-C (Hendrycks and Dietterich, 2019,
arXiv:1903.12261) and Morpho-MNIST (Castro et al., 2019, arXiv:1809.10780); the levels and the code are the suite's own.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 28  # pixels a side of the picture that lengths are stated for

GREY = 128.0  # grey level of an occluding square

FINE = 4  # parts of a pixel's side in which strokes grow and shrink

Edge = Literal["zeros", "border"]  # what lies outside of a picture: dark ground, or its outermost pixels continued


class _Chance:
    """Random numbers of each picture of a batch, from its pixels and the name of the corruption."""

    def __init__(self, images: Tensor, name: str) -> None:
        self._images, self._name = images, name

    @cached_property
    def _generators(self) -> list[np.random.Generator]:
        kind = zlib.crc32(self._name.encode())
        digests = (zlib.crc32(np.ascontiguousarray(image).data) for image in self._images.numpy())
        return [np.random.Generator(np.random.Philox(key=[digest, kind])) for digest in digests]

    def uniform(self, count: int) -> Tensor:
        """(B, count) float32 in 0..1."""
        return torch.from_numpy(np.stack([one.random(count, np.float32) for one in self._generators]))

    def normal(self) -> Tensor:
        """Standard normal values in the shape of the pictures."""
        shape = self._images.shape[1:]
        return torch.from_numpy(np.stack([one.standard_normal(shape, np.float32) for one in self._generators]))


# From pictures (B, C, side, side) float32 in 0..255, the level (a length in their own pixels) and what is random to
# changed pictures, not yet clipped.
Apply = Callable[[Tensor, float, _Chance, Edge], Tensor]


class Corruption(NamedTuple):
    """One kind of corruption."""

    unit: str  # of its levels
    levels: tuple[float, ...]  # mildest first
    apply: Apply
    length: bool = False  # whether levels are lengths
    strokes: bool = False  # whether it makes sense for pictures of strokes only


def _rotation(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Turned about the middle, clockwise or not, with bilinear interpolation."""
    angles = torch.where(chance.uniform(1)[:, 0] < 0.5, level, -level) * math.pi / 180
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(len(x))
    return _resampled(x, torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1), edge)


def _translation(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Moved up, down, left or right."""
    direction = (chance.uniform(1)[:, 0] * 4).long().clamp(max=3)
    step = 2 * level / x.shape[-1]  # the side is 2 units wide in the coordinates of `affine_grid`
    moves = torch.tensor([[step, 0.0], [-step, 0.0], [0.0, step], [0.0, -step]])[direction]
    return _resampled(x, torch.cat([torch.eye(2).expand(len(x), 2, 2), moves[:, :, None]], 2), edge)


def _resampled(x: Tensor, matrices: Tensor, edge: Edge) -> Tensor:
    """`matrices` (B, 2, 3) lead from a place in the result to one in the picture, as `affine_grid` takes them."""
    grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=edge, align_corners=False)


def _blur(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """A Gaussian of this standard deviation, cut off at four of them."""
    reach = math.ceil(4 * level)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / level) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    mode = "constant" if edge == "zeros" else "replicate"
    across = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(across, (0, 0, reach, reach), mode), kernel.transpose(2, 3), groups=x.shape[1])


def _noise(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Gaussian noise of this standard deviation, independent in each pixel and channel."""
    return x + level * chance.normal()


def _contrast(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Differences to the mean of each channel made smaller by this percentage."""
    mean = x.mean((2, 3), keepdim=True)
    return mean + (1 - level / 100) * (x - mean)


def _brightness(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Every pixel brighter."""
    return x + level


def _pixelation(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Means over square blocks of about this side; a whole number of blocks fills the picture."""
    blocks = max(1, round(x.shape[-1] / max(level, 1)))
    return F.interpolate(F.interpolate(x, size=(blocks, blocks), mode="area"), size=x.shape[-2:], mode="nearest")


def _occlusion(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """A grey square of this side somewhere in the picture."""
    side, hidden = x.shape[-1], min(round(level), x.shape[-1])
    start = (chance.uniform(2) * (side - hidden + 1)).long().clamp(max=side - hidden)[:, :, None]  # (B, 2, 1)
    within = (torch.arange(side) >= start) & (torch.arange(side) < start + hidden)  # (B, 2, side)
    return torch.where(within[:, None, 0, :, None] & within[:, None, 1, None, :], GREY, x)


def _thickness(x: Tensor, level: float, chance: _Chance, edge: Edge) -> Tensor:
    """Light strokes wider by this many pixels, or thinner where it is negative, in steps of half a pixel.

    Grey dilation or erosion by an octagon, of pixels divided by four in both directions.
    """
    reach = max(1, round(abs(level) * FINE / 2))
    fine = x.to(torch.uint8).repeat_interleave(FINE, 2).repeat_interleave(FINE, 3)
    fine = fine if level > 0 else 255 - fine
    for step in range(reach):  # a cross and a square in turn make an octagon
        across = _with_neighbours(fine, 3)
        fine = torch.maximum(across, _with_neighbours(fine, 2)) if step % 2 == 0 else _with_neighbours(across, 2)
    return F.avg_pool2d((fine if level > 0 else 255 - fine).float(), FINE)


def _with_neighbours(x: Tensor, axis: int) -> Tensor:
    """The largest of each pixel and its two neighbours along an axis."""
    size, grown = x.shape[axis], x.clone()
    inner, outer = grown.narrow(axis, 0, size - 1), grown.narrow(axis, 1, size - 1)
    torch.maximum(inner, x.narrow(axis, 1, size - 1), out=inner)
    torch.maximum(outer, x.narrow(axis, 0, size - 1), out=outer)
    return grown


CORRUPTIONS: dict[str, Corruption] = {
    "rotation": Corruption("degrees", (10, 20, 30, 45), _rotation),
    "translation": Corruption("px of 28", (1, 2, 4, 6), _translation, length=True),
    "blur": Corruption("px of 28, sd", (0.5, 1, 1.5, 2), _blur, length=True),
    "noise": Corruption("grey levels, sd", (16, 32, 64, 96), _noise),
    "contrast": Corruption("% less", (25, 50, 70, 85), _contrast),
    "brightness": Corruption("grey levels", (32, 64, 96, 128), _brightness),
    "pixelation": Corruption("px of 28, blocks", (2, 3, 4, 5), _pixelation, length=True),
    "occlusion": Corruption("px of 28, square", (4, 6, 8, 10), _occlusion, length=True),
    "thickness": Corruption("px of 28", (-1, 1, -1.5, 2), _thickness, length=True, strokes=True),
}


def corrupted(images: Tensor, name: str, level: float, *, edge: Edge = "zeros") -> Tensor:
    """Corrupted pictures.

    Args:
        images: (B, C, side, side) uint8, on the CPU.
        name: a key of `CORRUPTIONS`.
        level: in the unit of the corruption; 0 changes nothing.
        edge: what lies outside of a picture.

    Returns:
        Pictures of the same shape and type.
    """
    if not level:
        return images
    kind = CORRUPTIONS[name]
    own = level * images.shape[-1] / SIDE if kind.length else level
    changed = kind.apply(images.float(), own, _Chance(images, name), edge)
    return changed.round().clamp(0, 255).to(torch.uint8)
