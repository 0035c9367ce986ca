"""A trial: one training with every setting resolved."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal

from pydantic import Field

from suite.spec.base import SCHEMA, Count, Epoch, Name, Spec
from suite.spec.experiment import Caps
from suite.spec.preprocess import Preprocess
from suite.spec.recipe import RESHAPED, Recipe, Strategy
from suite.spec.space import Params, canonical_params


class Weights(Spec):
    """Initial weights of a trial."""

    source: str = Field(description="'pretrained', or a path (relative ones are below the results directory)")
    sha256: str | None = None  # None for 'pretrained': the record has the hash of the file that was found
    reshaped: bool = Field(default=False, description="layers have the sizes of the file's tensors, not the backbone's")

    added: ClassVar[frozenset[str]] = frozenset({"reshaped"})


class Teacher(Spec):
    """A trained model whose answers a trial learns from, beside the labels. With `others` these are the mean
    probabilities of all."""

    weights: Weights
    backbone: str
    preprocess: Preprocess  # of its input; the student's is converted

    others: tuple[Teacher, ...] = ()

    added: ClassVar[frozenset[str]] = frozenset({"others"})

    @property
    def all(self) -> tuple[Teacher, ...]:
        return (self, *self.others)


UNHASHED = ("number", "study", "device", "threads", "caps")  # fields that do not enter the hash in a trial's id


class Trial(Spec):
    """trial.json: everything that is needed to repeat one training."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    arm: Name
    number: Count = Field(description="position in the study, over all arms")
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
    params: Params  # as sampled by the search; `recipe`, `strategy` and `size` contain them already
    seed: Count
    device: str
    threads: Count = Field(description="CPU threads; 0: all")
    rungs: tuple[Epoch, ...] = ()  # epochs of the training at which one of Optuna's pruners may end it
    stages: tuple[Epoch, ...] = ()  # lengths of the complete short trainings that decide whether the trial goes on
    caps: Caps | None = None
    preprocess: Preprocess | None = None  # None in trials of older versions: see `models.preprocessing.of_trial`

    teacher: Teacher | None = None

    added: ClassVar[frozenset[str]] = frozenset({"preprocess", "stages", "teacher"})

    @property
    def id(self) -> str:
        """The number, then a hash of all fields but `UNHASHED`: equal trainings have equal hashes."""
        left_out = {**dict.fromkeys(UNHASHED, True), **self.unhashed()}
        canonical = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return f"{self.number:04d}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"

    @property
    def given(self) -> tuple[Weights, ...]:
        """All weights that the training needs: those that it starts from, and its teachers'."""
        teachers = self.teacher.all if self.teacher is not None else ()
        return (*([self.weights] if self.weights is not None else []), *(one.weights for one in teachers))

    @property
    def reshaped(self) -> bool:
        """Whether the trained model's layers have other sizes than its backbone's, see `models.shapes`."""
        return self.strategy.kind in RESHAPED or (self.weights is not None and self.weights.reshaped)

    @property
    def canonical_params(self) -> Params:
        """`params` under their canonical names. `params` itself keeps the names of older studies, since the id depends
        on it."""
        return canonical_params(self.params)
