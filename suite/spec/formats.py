"""What is measured of each file format that a trained model is exported to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from suite.spec.base import Count, Positive, Spec, Unit

Format = Literal["safetensors", "onnx", "int8", "torch-export"]


class FormatFigures(Spec):
    """A file of an exported model, read back in its own runtime and compared with the trained model in PyTorch."""

    file: str
    sha256: str
    bytes: Count
    runtime: str  # what ran it, with its version
    compared_on: Literal["validation pictures", "random pictures"]
    images: Count  # that were compared
    equal: Unit  # proportion of them with the same answer
    difference: float = Field(ge=0)  # largest, over all pictures and classes
    difference_of: Literal["logits", "log-probabilities"]
    accuracy: Unit | None = None  # on the compared images; None for random pictures
    # Median of several passes, from stored pictures to probabilities, with `threads` threads.
    latency_seconds: Positive | None = None  # of one picture
    latency_256_seconds: Positive | None = None  # of 256 pictures at once
    threads: Count
    calibration: str | None = None  # of int8: how ranges of activations were found
