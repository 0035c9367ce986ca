"""The model that is explained: an exported one, or that of a finished trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from suite.data import cache
from suite.data.datasets import info, search_splits
from suite.data.registry import is_own
from suite.data.splits import Splits
from suite.errors import InputError, WorkError
from suite.explaining.raster import pixels
from suite.export.card import read_card
from suite.export.loading import load
from suite.models.assembly import load_trained
from suite.models.preprocessing import of_trial
from suite.spec import HeadOnly, HeadSpec, Knn, Mistakes, Preprocess, Trial
from suite.store.files import read_model
from suite.store.study import find_trial, open_study, split_reference
from suite.store.trial import TrialDir


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode on the CPU, and what is known of it."""

    name: str  # "STUDY/TRIAL"
    model: nn.Module  # normalised inputs (B, C, size, size) float32 to logits (B, classes)
    expects: Preprocess
    classes: tuple[str, ...]
    dataset: str
    head: HeadSpec | None
    fraction: float = 1.0  # of the training labels, that the model has seen
    limit: int | None = None
    data_hash: str = ""  # of the images that it was trained on; empty where that is not known
    directory: TrialDir | None = None  # of a trial
    sha256: str = ""  # of the weights

    @property
    def gradients(self) -> bool:
        """Whether the scores are differentiable. Votes of nearest neighbours change by steps."""
        return not isinstance(self.head, Knn)

    def splits(self) -> Splits:
        """Training and validation images as the model takes them. Nothing is fetched. Raises InputError, WorkError."""
        if not is_own(self.dataset) and any(one.state != "ok" for one in cache.verify(self.dataset, quick=True)[:2]):
            raise InputError(
                f"The images of {self.dataset} are not on this machine; `mnist-suite data fetch {self.dataset}` gets "
                "them."
            )
        found = search_splits(self.dataset, fraction=self.fraction, limit=self.limit, view=self.expects.view())
        if self.data_hash not in ("", found.info.data_hash) or len(found.info.classes) != len(self.classes):
            raise InputError(f"The data set {self.dataset} has changed since {self.name} was trained on it.")
        return found


def exported(folder: Path) -> Subject:
    """The model that `export` wrote to a folder. Raises InputError."""
    card = read_card(folder)
    return Subject(card.trial, load(folder), card.preprocess, card.classes, card.dataset, card.head, sha256=card.sha256)


def trained(results: Path, reference: str) -> Subject:
    """The model of a finished trial, "STUDY/TRIAL", or of a study's best, "STUDY". Raises InputError."""
    study_name, trial_id = split_reference(reference)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    directory, trial = study.trial(state.id), state.trial
    expects = trial.preprocess or of_trial(trial, info(trial.dataset))
    file, record = study.study(), directory.record()
    same = file is not None and file.experiment.dataset == trial.dataset
    classes = file.classes if file is not None and same else info(trial.dataset).classes
    assembled = load_trained(directory, trial, expects, len(classes), results)
    assert record is not None and record.artifact_sha256 is not None  # load_trained has checked it
    return Subject(
        name=f"{study.name}/{state.id}",
        model=assembled.model,
        expects=expects,
        classes=classes,
        dataset=trial.dataset,
        head=_head(trial),
        fraction=trial.fraction,
        limit=trial.limit,
        data_hash=trial.data_hash,
        directory=directory,
        sha256=record.artifact_sha256,
    )


def _head(trial: Trial) -> HeadSpec | None:
    return trial.strategy.head if isinstance(trial.strategy, HeadOnly) else None


@dataclass(frozen=True)
class Mistaken:
    """A validation image that the trial has answered wrongly."""

    name: str  # "validation 123"
    label: int
    picture: np.ndarray  # (C, stored, stored) uint8


def worst_mistakes(subject: Subject) -> list[Mistaken]:
    """The trial's most confident mistakes on validation, as its validation.json keeps them.

    Pictures that it keeps at a smaller size than the model takes are read from the data set. Raises InputError and
    WorkError where that is not there.
    """
    assert subject.directory is not None
    path = subject.directory.path / "validation.json"
    kept = read_model(path, Mistakes)
    if kept is None:
        raise InputError(f"{path} is missing or damaged, so no mistakes of {subject.name} are known; name pictures.")
    side, channels = subject.expects.stored, subject.expects.channels
    whole = [pixels(one.pixels, one.rgb, channels) for one in kept.worst]
    if any(picture.shape[1:] != (side, side) for picture in whole):
        try:
            images = subject.splits().validation.images
            whole = [np.asarray(images[one.index]) for one in kept.worst]
        except (IndexError, OSError) as error:
            raise WorkError(f"The validation images of {subject.name} cannot be read: {error}.") from None
    return [
        Mistaken(f"validation {one.index}", one.label, picture) for one, picture in zip(kept.worst, whole, strict=True)
    ]
