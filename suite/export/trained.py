"""A finished trial as the export needs it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from suite.data.datasets import info
from suite.errors import InputError
from suite.models import backbones
from suite.models.assembly import load_trained
from suite.models.classifiers import holds_linear
from suite.models.heads import is_linear
from suite.models.preprocessing import of_trial
from suite.ranking.leaderboard import parent_of
from suite.spec import HeadOnly, HeadSpec, Int8, Preprocess, Record, Trial
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState


@dataclass(frozen=True)
class Trained:
    """A finished trial and its record."""

    name: str  # "STUDY/TRIAL"
    directory: TrialDir
    trial: Trial
    record: Record
    expects: Preprocess
    classes: tuple[str, ...]

    def load(self, results: Path) -> nn.Module:
        """The best model in evaluation mode on the CPU. Raises InputError, see `load_trained`."""
        return load_trained(self.directory, self.trial, self.expects, len(self.classes), results).model

    @cached_property
    def head(self) -> HeadSpec | None:
        """The head that replaces the backbone's classifier; None where the classifier holds its weights."""
        if not isinstance(self.trial.strategy, HeadOnly):
            return None
        channels, size = self.expects.channels, self.expects.size
        body = backbones.sketch(self.trial.backbone, classes=len(self.classes), channels=channels, size=size)
        return None if is_linear(self.trial.strategy.head) and holds_linear(body) else self.trial.strategy.head


def trained(study: StudyDir, state: TrialState, name: str = "") -> Trained:
    """A trial of a study; `name` of the study where it is another one than the directory's.

    The data set need not be there, but for trials of older versions. Raises InputError where the trial is not
    finished.
    """
    directory, trial, file = study.trial(state.id), state.trial, study.study()
    if isinstance(trial.strategy, Int8):
        raise InputError(
            f"Trial {name or study.name}/{state.id} holds integers alone, for the figures of its row. Export the trial "
            f"that it was made from, in that format: mnist-suite export {parent_of(state)} --format int8."
        )
    record = directory.record()
    if record is None or record.state != "finished" or record.accuracy is None:
        raise InputError(f"Trial {directory.id} is not finished, so there is no model of it to load.")
    same = file is not None and file.experiment.dataset == trial.dataset
    classes = file.classes if file is not None and same else info(trial.dataset).classes
    expects = trial.preprocess or of_trial(trial, info(trial.dataset))
    return Trained(f"{name or study.name}/{state.id}", directory, trial, record, expects, classes)
