"""Reading of how a model errs on the validation or the test images."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from suite.ranking.stored import Stored, read_stored
from suite.spec import Count, Unit
from suite.store.study import StudyDir

if TYPE_CHECKING:
    import numpy as np

VALIDATION_FILE = "validation.json"  # in a finished trial's directory

Pixel = Annotated[int, Field(ge=0, le=255)]


class CalibrationBin(Stored):
    """Predictions whose confidence lies in one range; both means are 0..1."""

    low: Unit
    high: Unit
    count: Annotated[int, Field(ge=1, lt=2**63)]
    confidence: Unit
    accuracy: Unit


class Mistake(Stored):
    """One image that was answered wrongly."""

    label: Count  # index of the true class
    predicted: Count
    probability: Unit  # of the predicted class
    pixels: tuple[tuple[Pixel, ...], ...]  # (height, width), grey
    rgb: str | None = None  # (height, width, 3) bytes in Base64; None for an image without colours

    @model_validator(mode="after")
    def _is_a_picture(self) -> Self:
        if not self.pixels or not self.pixels[0] or len({len(line) for line in self.pixels}) > 1:
            raise ValueError("pixels must be lines of one length")
        if self.rgb is not None and len(base64.b64decode(self.rgb, validate=True)) != 3 * len(self.pixels) * len(
            self.pixels[0]
        ):
            raise ValueError("rgb must have three bytes a pixel")
        return self

    @property
    def image(self) -> np.ndarray:
        """The image as the model's input shows it: (height, width, 3) in colours, else (height, width); uint8."""
        import numpy as np  # imported late, since the dashboard starts without pictures

        grey = np.array(self.pixels, dtype=np.uint8)
        if self.rgb is None:
            return grey
        return np.frombuffer(base64.b64decode(self.rgb), np.uint8).reshape(*grey.shape, 3)


class Mistakes(Stored):
    """validation.json, as `training.mistakes` writes it."""

    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    confusion: tuple[tuple[Count, ...], ...]  # counts (classes, classes) as [label][predicted]
    worst: tuple[Mistake, ...]  # the most confident mistakes
    ece: Unit | None = None  # expected calibration error; files of early versions lack it, and the bins
    bins: tuple[CalibrationBin, ...] = ()

    @model_validator(mode="after")
    def _fits_its_classes(self) -> Self:
        n = len(self.classes)
        if len(self.confusion) != n or any(len(line) != n for line in self.confusion):
            raise ValueError(f"confusion must have {n} lines of {n} counts, one a class")
        if any(max(one.label, one.predicted) >= n for one in self.worst):
            raise ValueError(f"labels and answers must be below {n}, the number of classes")
        return self

    @property
    def total(self) -> int:
        """Images answered."""
        return sum(map(sum, self.confusion))

    @property
    def wrong(self) -> int:
        return self.total - sum(line[i] for i, line in enumerate(self.confusion))


def validation_mistakes(study: StudyDir, trial_id: str) -> Mistakes | None:
    """How a finished trial errs on validation; None where that is not known. Raises InputError for a damaged file."""
    return read_stored(study.trial(trial_id).path / VALIDATION_FILE, Mistakes)
