"""Reading of files that a study's trials and its final evaluation leave beside their records."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from suite.errors import InputError
from suite.spec import first_error
from suite.store.files import read_bytes


class Stored(BaseModel):
    """Base of these files' models. Strict in its values; unknown keys are ignored, as other versions may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Stored)


def read_stored(path: Path, kind: type[Model]) -> Model | None:
    """The file's content; None where it is missing or no JSON. Raises InputError for JSON that the model refuses."""
    try:
        return kind.model_validate_json(read_bytes(path))
    except OSError:
        return None
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return None
        raise InputError(f"{path} is damaged ({first_error(error)}).") from None
