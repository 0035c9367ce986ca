"""What an explanation of a model's answer holds, and explanations.json, which the dashboard and the report read."""

from __future__ import annotations

import base64
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from suite.spec.base import SCHEMA, Count, Spec, Unit

Method = Literal["saliency", "integrated-gradients", "grad-cam", "occlusion"]

METHODS: tuple[Method, ...] = ("saliency", "integrated-gradients", "grad-cam", "occlusion")

SIGNED: frozenset[Method] = frozenset({"integrated-gradients", "occlusion"})  # maps that have values below zero

Side = Annotated[int, Field(ge=1, le=1024)]  # pixels


class Raster(Spec):
    """A picture of 8-bit values."""

    height: Side
    width: Side
    channels: Literal[1, 3]
    data: str  # Base64 of (height, width, channels) bytes

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(base64.b64decode(self.data, validate=True)) != self.height * self.width * self.channels:
            raise ValueError("data must have height x width x channels bytes")
        return self

    @property
    def content(self) -> bytes:
        """(height, width, channels), row by row."""
        return base64.b64decode(self.data)


class Attribution(Spec):
    """How much each pixel of the input speaks for a class, by one method; positive values speak for it."""

    method: Method
    height: Side
    width: Side
    largest: float = Field(ge=0)  # magnitude, in units of the class's score
    data: str  # Base64 of (height, width) signed bytes: values in units of `largest` / 127
    deletion: Unit | None = None  # mean probability of the class while pixels are removed, the most important first
    random: Unit | None = None  # the same for pixels removed in random order
    seconds: float | None = Field(default=None, ge=0)  # that the map took, without its check
    steps: Count | None = None  # of integrated gradients
    remainder: float | None = Field(default=None, ge=0)  # by which completeness is missed, in parts of the difference
    layer: str | None = None  # of Grad-CAM: the module whose map it is
    cells: tuple[Count, Count] | None = None  # rows and columns of that map
    window: Count | None = None  # of occlusion: pixels a side
    stride: Count | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len(base64.b64decode(self.data, validate=True)) != self.height * self.width:
            raise ValueError("data must have height x width bytes")
        return self

    @property
    def rows(self) -> list[list[int]]:
        """(height, width) whole numbers, -127 to 127."""
        values = memoryview(base64.b64decode(self.data)).cast("b").tolist()
        return [values[start : start + self.width] for start in range(0, len(values), self.width)]


class Neighbour(Spec):
    """A training image whose features are near those of the picture."""

    index: Count  # in the training part
    label: Count
    distance: float = Field(ge=0, le=2)  # 1 - cosine of the angle between the features
    picture: Raster


class Explanation(Spec):
    """Why a model answers as it does about one picture."""

    image: str  # the path of its file, or "validation 123"
    label: Count | None = None  # index of the true class; None where it is not known
    predicted: Count
    probability: Unit  # of the predicted class
    target: Count  # the class that is explained
    target_probability: Unit
    picture: Raster  # what the model saw
    maps: tuple[Attribution, ...]
    nearest: tuple[Neighbour, ...] = ()


class Explanations(Spec):
    """explanations.json: explanations of a finished trial's answers, written by `mnist-suite explain STUDY/TRIAL`."""

    schema_version: Literal[1] = SCHEMA
    trial: str
    artifact_sha256: str  # of the weights that were explained
    classes: tuple[str, ...] = Field(min_length=1)
    explanations: tuple[Explanation, ...]
    notes: tuple[str, ...] = ()  # what could not be done, in sentences

    @model_validator(mode="after")
    def _fits_its_classes(self) -> Self:
        for one in self.explanations:
            of_nearest = (neighbour.label for neighbour in one.nearest)
            if max(one.label or 0, one.predicted, one.target, *of_nearest) >= len(self.classes):
                raise ValueError(f"labels and answers must be below {len(self.classes)}, the number of classes")
        return self
