"""The base class of all specifications, and constrained types that several of them share.

Nothing in `suite.spec` imports torch or Optuna, so that `--help` and the dashboard start quickly.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1  # version of every file below results/; readers refuse a newer one

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"  # of studies, experiments and arms: a valid file name everywhere

Name = Annotated[str, Field(pattern=NAME)]

Unit = Annotated[float, Field(ge=0, le=1)]  # a proportion or an accuracy

Positive = Annotated[float, Field(gt=0)]

# The upper bounds below exist because files may come from others: values must fit the arithmetic that uses them.
Count = Annotated[int, Field(ge=0, lt=2**63)]

Epoch = Annotated[float, Field(ge=0, lt=2**31)]  # may be fractional, since a rung may lie within an epoch

Timestamp = Annotated[float, Field(ge=0, lt=2**40)]  # seconds since 1970-01-01 UTC


class Spec(BaseModel):
    """Base class: immutable, strictly typed, without unknown keys, NaN or infinity.

    A model equals the result of writing it as JSON and reading it again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    added: ClassVar[frozenset[str]] = frozenset()
    """Fields that older versions lack. While such a field has its default, it enters no hash, so that the ids of older
    trials and the names of older studies stay the same."""

    def unhashed(self) -> dict[str, Any]:
        """The `added` fields that have their defaults, at any depth, as `model_dump(exclude=...)` takes them."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name in self.added and value == field.get_default(call_default_factory=True):
                found[name] = True
            elif isinstance(value, Spec) and (inner := value.unhashed()):
                found[name] = inner
        return found


def first_error(error: ValueError) -> str:
    """The first problem that a `ValueError` reports, on one line.

    For a pydantic `ValidationError` the line starts with the dotted path of the field, for example
    "augment.shift: Input should be greater than or equal to 0".
    """
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    one = errors()[0]
    path = ".".join(str(part) for part in one["loc"])
    message = one["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
