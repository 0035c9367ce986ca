"""The final evaluation of a study as it lies on disk: its models, and their reading.

results/<study>/final/evaluation.json           the figures of the last evaluation: `FinalEvaluation`
results/<study>/final/readings.jsonl            every reading of the test images, one line each: `Reading`
results/<study>/final/trials/<id>/test.json     how one model answered the test images: `Tested`
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from suite.errors import InputError
from suite.ranking.mistakes import Mistakes
from suite.ranking.statistics import Sample, within_bounds
from suite.ranking.stored import Stored, read_stored
from suite.spec import Count, Name, Params, Timestamp, Unit
from suite.store.files import read_bytes
from suite.store.study import StudyDir, final_of

EVALUATION_FILE = "evaluation.json"
READINGS_FILE = "readings.jsonl"
TEST_FILE = "test.json"


def _share(value: Sample) -> Sample:
    """A sample of accuracies or other shares of one, its interval cut to 0..1, which files of early versions exceed.

    Raises ValueError.
    """
    if not 0 <= value.mean <= 1 or value.n < 1:
        raise ValueError("must be the mean of at least one share, 0..1")
    bounds = [bound for bound in (value.low, value.high) if bound is not None]
    if len({v is None for v in (value.sd, value.low, value.high)}) > 1 or any(abs(bound) > 10 for bound in bounds):
        raise ValueError("must have a standard deviation and both bounds of an interval, or none of them")
    return within_bounds(value)


Share = Annotated[Sample, AfterValidator(_share)]


class Tested(Mistakes):
    """test.json: one model's answers to the test images."""

    accuracy: Unit
    images: Count  # in the test set
    test_sha256: str  # of its images and labels

    @model_validator(mode="after")
    def _has_its_calibration(self) -> Self:
        if self.ece is None:
            raise ValueError("ece is missing")
        return self


class Reading(Stored):
    """One reading of the test images."""

    time: Timestamp
    command: str = ""
    version: str = ""
    commit: str | None = None
    dataset: str
    models: tuple[str, ...] = ()  # trials whose models were tested
    earlier: Count = 0  # readings of this study before
    earlier_in_other_studies: Count  # of the same data set
    ensembles: tuple[tuple[Name, ...], ...] = ()  # of several arms, which were asked for before it


class McNemarFigures(Stored):
    only_first: Count
    only_second: Count
    exact: Unit
    mid: Unit
    mid_holm: Unit | None = None


class PairedFigures(Stored):
    difference: float | None  # of mean test accuracy, first minus second; None without a common seed
    low: float | None  # 95 %, of this comparison alone
    high: float | None
    t: float | None
    p: Unit | None
    n: Count  # common seeds
    p_holm: Unit | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low is not None and self.n < 2):
            raise ValueError("an interval has two bounds and comes from at least two seeds")
        if self.n and self.difference is None:
            raise ValueError("a difference is missing")
        return self


class EnsembleFigures(Stored):
    """Several models as one, which answers with the mean of their probabilities."""

    members: Annotated[int, Field(ge=2)]
    images: Count  # in the test set
    accuracy: Unit  # on them
    wilson: tuple[Unit, Unit]  # 95 %
    against_first: McNemarFigures  # the ensemble, then its first member on the images as they are


class ViewedFigures(Stored):
    """The runs of a finalist with test-time augmentation: the mean of their probabilities over views of each image."""

    accuracies: Annotated[tuple[Unit, ...], Field(min_length=1)]  # on test, of every run
    test: Share  # over seeds
    paired_t: PairedFigures  # over seeds, minus the answers to the images as they are
    ensemble: EnsembleFigures | None = None  # of the runs, each with all views


class ArmsEnsemble(Stored):
    """All runs of the representatives of several arms as one ensemble."""

    arms: tuple[Name, ...]
    plain: EnsembleFigures
    viewed: EnsembleFigures | None = None  # with test-time augmentation
    planned: bool  # asked for before this study first read the test images


class Finalist(Stored):
    """A trial of the search that was trained again with fresh seeds and tested."""

    arm: Name
    trial: Name  # id in the search
    params: Params
    search_accuracy: Unit  # on validation, in the search: optimistic
    represents_arm: bool  # the best of its arm by the mean validation accuracy of the new trainings
    runs: Annotated[tuple[Name, ...], Field(min_length=1)]  # ids of the new trainings that were tested
    seeds: tuple[Count, ...]  # of these
    failed: Count = 0  # new trainings without a model
    images: Count  # in the test set
    accuracies: Annotated[tuple[Unit, ...], Field(min_length=1)]  # on test, of every run
    test: Share  # over seeds
    validation: Share
    wilson: tuple[Unit, Unit]  # 95 %, of the first run
    ece: Share
    balanced: Share | None = None  # balanced accuracy on test; None in files of versions that did not compute it
    test_sha256: str | None = None
    ensemble: EnsembleFigures | None = (
        None  # of the runs, where they are at least two and the finalist represents its arm
    )
    viewed: ViewedFigures | None = None  # with test-time augmentation, where it was asked for


class Comparison(Stored):
    """Two arms, each by the finalist that represents it."""

    first: Name
    second: Name
    mcnemar: McNemarFigures  # image by image, their models of the first common seed
    paired_t: PairedFigures  # over common seeds


class FinalEvaluation(Stored):
    """evaluation.json: test accuracies of the finalists and the comparisons of the arms."""

    study: Name
    dataset: str
    made: Timestamp = 0.0
    top: Count  # finalists an arm, at most
    seeds: Count  # new trainings a finalist
    finalists: Annotated[tuple[Finalist, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...]
    readings: tuple[Reading, ...] = ()
    notes: tuple[str, ...] = ()
    views: tuple[Name, ...] = ()  # of test-time augmentation, see `suite.models.ensembles`
    ensembles: tuple[ArmsEnsemble, ...] = ()

    @property
    def representatives(self) -> list[Finalist]:
        """The finalist of every arm that represents it, the best by validation accuracy first."""
        return sorted((row for row in self.finalists if row.represents_arm), key=lambda row: -row.validation.mean)


def readings(study: StudyDir) -> list[Reading]:
    """Every reading of the test images by this study, the oldest first. Lines that are damaged are left out."""
    found: list[Reading] = []
    try:
        lines = read_bytes(final_of(study).path / READINGS_FILE).splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValidationError):  # torn by a full disk; the other lines still count
            found.append(Reading.model_validate_json(line))
    return found


def tested(directory: StudyDir, trial_id: str) -> Tested | None:
    """A final run's test figures; None where it was not tested. Raises InputError for a damaged file.

    `directory` is that of the final runs, see `store.study.final_of`.
    """
    return read_stored(directory.trial(trial_id).path / TEST_FILE, Tested)


def final_evaluation(study: StudyDir, arms: Sequence[str]) -> FinalEvaluation | None:
    """The study's last final evaluation with all readings of the test images, or None.

    `arms` are the experiment's. Raises InputError where the files are damaged or name an arm that is not among them.
    """
    place = final_of(study).path
    found = read_stored(place / EVALUATION_FILE, FinalEvaluation)
    if found is None:
        return None
    if unknown := {row.arm for row in found.finalists} - set(arms):
        raise InputError(f"{place / EVALUATION_FILE} is damaged (arms unknown to the study: {', '.join(unknown)}).")
    if not (all_readings := readings(study)):
        raise InputError(f"{place / READINGS_FILE} is damaged (it has no reading, but there is an {EVALUATION_FILE}).")
    return found.model_copy(update={"readings": tuple(all_readings)})
