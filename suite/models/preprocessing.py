"""What a model expects of its input, and the preparation of stored images without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.models.backbones import BACKBONES, exists, timm_config

SMALL_SIZE = 64  # pixels; default input size of convolutional timm models for images that are smaller


@dataclass(frozen=True)
class Preprocess:
    """The input of a model: images resized to `size`, scaled to 0..1, then normalised as (x - mean) / std."""

    channels: int
    size: int  # pixels, height and width alike
    mean: tuple[float, ...]  # one per channel
    std: tuple[float, ...]  # one per channel
    interpolation: Literal["none", "bilinear", "bicubic"]  # "none": images already have that size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)


def preprocess(
    name: str,
    *,
    channels: int,
    native_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None,
    pretrained: bool,
) -> Preprocess:
    """The input that the backbone `name` expects of a data set.

    `channels`, `native_size` (pixels), `mean` and `std` describe the data set. The suite's own backbones take images
    at their native size. A timm model without a fixed input size takes them at `SMALL_SIZE`, or at their native size
    where that is larger, but at no more than timm's size for the model; a model with a fixed input size takes that
    size. `size` overrides this choice. Pretrained weights bring their own mean and standard deviation; for grey images
    these are averaged over the colours, as the weights of the first convolution are summed over them.

    Raises InputError for an unknown name.
    """
    exists(name)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    if name in BACKBONES:
        size = size or native_size
    else:
        config = timm_config(name)
        largest: int = config.input_size[-1]
        size = size or (largest if config.fixed_input_size else min(max(SMALL_SIZE, native_size), largest))
        interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"
        if pretrained:
            mean, std = _per_channel(config.mean, channels), _per_channel(config.std, channels)
    return Preprocess(channels, size, tuple(mean), tuple(std), "none" if size == native_size else interpolation)


def _per_channel(values: Sequence[float], channels: int) -> Sequence[float]:
    return values if len(values) == channels else [sum(values) / len(values)] * channels


def evaluation_preparer(expects: Preprocess, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from images (B, C, H, W) uint8 to model inputs (B, C, size, size) float32 on `device`.

    It resizes and normalises and draws no random numbers. The result is in channels-last memory format.
    """
    normalize = normalizer(expects, device)
    return lambda images: normalize(resize(images, expects))


def resize(images: Tensor, expects: Preprocess) -> Tensor:
    """Images (B, C, H, W) uint8 at the model's size: (B, C, size, size) float32 in 0..255."""
    x = images.float()
    size = (expects.size, expects.size)
    if x.shape[-2:] == size:
        return x
    mode = "bicubic" if expects.interpolation == "bicubic" else "bilinear"
    shrinks = x.shape[-1] > expects.size
    return F.interpolate(x, size=size, mode=mode, align_corners=False, antialias=shrinks).clamp_(0, 255)


def normalizer(expects: Preprocess, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function (x / 255 - mean) / std of images (B, C, H, W) float32 in 0..255, to channels-last memory format."""
    mean = torch.tensor(expects.mean, device=device).view(1, -1, 1, 1)
    std = torch.tensor(expects.std, device=device).view(1, -1, 1, 1)
    gain, offset = 1 / (255 * std), -mean / std  # one fused multiply-add per pixel
    return lambda x: torch.addcmul(offset, x, gain).contiguous(memory_format=torch.channels_last)
