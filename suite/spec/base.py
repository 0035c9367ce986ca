"""The vocabulary: frozen, strict models of everything that crosses a seam or lies on disk.

No torch and no optuna here, so that the dashboard and `--help` stay light. Every model refuses unknown
keys and survives a JSON round trip unchanged.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1  # of every file below results/; readers refuse a newer one

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"  # of studies, experiments and arms: one path component everywhere

Name = Annotated[str, Field(pattern=NAME)]

Unit = Annotated[float, Field(ge=0, le=1)]

Positive = Annotated[float, Field(gt=0)]
# Bounded, since they are read from files of others and have to fit what computes with them.
Count = Annotated[int, Field(ge=0, lt=2**63)]

Epoch = Annotated[float, Field(ge=0, lt=2**31)]  # whole, or with the part of one that a rung stands at

Moment = Annotated[float, Field(ge=0, lt=2**40)]  # seconds since 1970


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
