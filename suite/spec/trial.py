"""One trial: a training with every choice resolved."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import Field

from suite.spec.base import SCHEMA, Count, Epoch, Name, Spec
from suite.spec.experiment import Caps, Params
from suite.spec.recipe import Recipe, Strategy


class Weights(Spec):
    """Where a trial starts from."""

    source: str = Field(description="'pretrained', or a path (relative ones are below the results directory)")
    sha256: str | None = None  # None for 'pretrained': the record tells what was found


UNHASHED = ("number", "study", "device", "threads", "caps")  # what of a trial its id does not speak of


class Trial(Spec):
    schema_version: Literal[1] = SCHEMA
    study: Name
    arm: Name
    number: Count = Field(description="in the study, over all arms")
    dataset: str
    data_hash: str
    split_hash: str
    fraction: float = Field(gt=0, le=1)
    limit: Count | None = None
    backbone: str
    weights: Weights | None
    size: Count | None
    strategy: Strategy
    recipe: Recipe
    params: Params  # what the search chose; already put into recipe, strategy and size
    seed: Count
    device: str
    threads: Count = Field(description="CPU threads; 0: all")
    rungs: tuple[Epoch, ...] = ()  # epochs after which the controller may prune
    caps: Caps | None = None

    @property
    def id(self) -> str:
        """Number, then a hash of everything but number and place: the same training has the same hash."""
        canonical = json.dumps(self.model_dump(mode="json", exclude=set(UNHASHED)), sort_keys=True)
        return f"{self.number:04d}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"
