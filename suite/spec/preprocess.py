"""How a picture becomes the input of a model: one description for training, evaluation, prediction and exports."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from suite.spec.base import Positive, Spec

Fit = Literal["crop", "pad", "squeeze"]

Interpolation = Literal["bilinear", "bicubic"]

Placement = Literal["centred", "filled"]


class View(NamedTuple):
    """How the picture in a file becomes an array (channels, side, side) uint8.

    The steps are those of timm's `transforms_imagenet_eval` with crop_mode center (crop), border (pad) or squash
    (squeeze): the picture is resized with antialias, then cropped or padded at its centre.
    """

    side: int  # pixels
    channels: int  # 1: grey, 3: RGB
    fit: Fit
    share: float  # side of the crop as a proportion of the resized picture's
    interpolation: Interpolation
    fill: tuple[int, ...]  # of the padding, a value 0..255 for each channel
    white: float | None  # value of 16-bit and floating-point pictures that becomes 255; None: the type's largest

    @property
    def scaled(self) -> int:
        """Pixels of the shorter side (crop), the longer side (pad) or both sides (squeeze) before the centre crop."""
        return math.floor(self.side / self.share)


class Preprocess(Spec):
    """From a picture to the input (channels, size, size) of a model.

    A picture in a file is first brought to `stored` pixels, as an array of integers: pictures of glyphs by placing
    the glyph (`placement`), others by `fit`, `crop_share` and `interpolation`, see `View`. The array is resized to
    `size` if that differs, scaled to 0..1, and normalised as (x - mean) / std.
    """

    channels: int = Field(ge=1, le=16, description="1: grey, 3: RGB")
    size: int = Field(ge=1, le=1024, description="side of the model's input in pixels")
    stored: int = Field(ge=1, le=1024, description="side of the stored picture in pixels")
    fit: Fit = Field(default="crop", description="how a picture becomes square")
    crop_share: float = Field(default=1.0, gt=0, le=1, description="proportion of the resized side that is kept")
    interpolation: Literal["none", "bilinear", "bicubic"] = Field(
        default="bicubic", description="with antialias; 'none', of older versions, where `stored` equals `size`"
    )
    mean: tuple[float, ...] = Field(min_length=1, description="of each channel, for pixels scaled to 0..1")
    std: tuple[Positive, ...] = Field(min_length=1)
    placement: Placement | None = Field(
        default=None,
        description="glyphs are placed light on dark, with the centre of mass in the middle (centred), as in MNIST, "
        "or filling the picture (filled)",
    )
    white: Positive | None = Field(
        default=None,
        description="value of 16-bit and floating-point pictures that is white; None: the largest of their type",
    )

    @model_validator(mode="after")
    def _normalisation_fits_channels(self) -> Preprocess:
        if not {len(self.mean), len(self.std)} <= {1, self.channels}:
            raise ValueError(f"mean and std need {self.channels} figures each")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return (self.channels, self.size, self.size)

    def view(self) -> View:
        """How a file becomes the stored picture that is evaluated."""
        return self._view(self.stored, self.crop_share)

    def training_view(self) -> View:
        """How a file becomes the stored picture that random crops are taken from: without the central crop.

        It is at least an eighth larger than the input, so that crops need not be enlarged as much.
        """
        return self._view(math.floor(self.stored / min(self.crop_share, 0.875)), 1.0)

    def _view(self, side: int, share: float) -> View:
        fill = tuple(round(255 * value) for value in self.mean) if self.fit == "pad" else (0,) * self.channels
        kind: Interpolation = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        return View(side, self.channels, self.fit, share, kind, fill, self.white)
