"""What a model expects of its input, and the preparation of stored images without augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.data.splits import Info
from suite.errors import InputError
from suite.models.backbones import BACKBONES, exists, timm_config
from suite.models.pretrained import PRETRAINED
from suite.spec import Arm, Fit, Preprocess, Trial

SMALL_SIZE = 64  # pixels; default input size of convolutional timm models for images that are smaller


def preprocess(
    name: str, info: Info, *, size: int | None = None, pretrained: bool = False, fit: Fit | None = None
) -> Preprocess:
    """The input that the backbone `name` expects of a data set.

    The suite's own backbones take images at their native size. A timm model without a fixed input size takes them at
    `SMALL_SIZE`, or at their native size where that is larger, but at no more than timm's size for the model; a model
    with a fixed input size takes that size. `size` overrides this choice. Pictures in files are decoded to exactly
    the size of the input; `fit` overrides how they become square.

    Pretrained weights bring their own mean and standard deviation; for grey images these are averaged over the
    colours, as the weights of the first convolution are summed over them. They also bring the central crop that timm
    evaluates them with.

    Raises InputError for an unknown name.
    """
    exists(name)
    mean, std, share, fit = info.mean, info.std, 1.0, fit or info.fit
    interpolation: Literal["bilinear", "bicubic"] = "bicubic" if info.decoded else "bilinear"
    if name in BACKBONES:
        size = size or info.size
    else:
        config = timm_config(name)
        largest: int = config.input_size[-1]
        size = size or (largest if config.fixed_input_size else min(max(SMALL_SIZE, info.size), largest))
        interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"
        if pretrained:
            mean, std = _per_channel(config.mean, info.channels), _per_channel(config.std, info.channels)
            share = config.crop_pct if info.decoded and fit == "crop" else 1.0
    return Preprocess(
        channels=info.channels,
        size=size,
        stored=size if info.decoded else info.size,
        fit=fit if info.decoded else "crop",
        crop_share=float(share),
        interpolation=interpolation,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        placement=info.placement,
        white=info.white,
    )


def of_arm(arm: Arm, info: Info) -> Preprocess:
    """The input that the model of an arm expects of a data set. Raises InputError for an unknown backbone."""
    return preprocess(arm.backbone, info, size=arm.size, pretrained=arm.weights == PRETRAINED, fit=arm.fit)


def of_trial(trial: Trial, info: Info) -> Preprocess:
    """The input of a trial's model, as the trial states it; trials of older versions do not, so that it is derived.

    Raises InputError for a trial of an older version on a folder of pictures, which it read in another way.
    """
    if trial.preprocess is not None:
        return trial.preprocess
    if info.decoded:
        raise InputError(
            f"Trial {trial.id} was trained by an older version, which read the pictures of {trial.dataset} at 64 "
            "pixels and does not say how. Train it again with this version."
        )
    public = trial.weights is not None and trial.weights.source == PRETRAINED
    return preprocess(trial.backbone, info, size=trial.size, pretrained=public)


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
