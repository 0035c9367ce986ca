"""study.json: what is asked now against what a study began with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from suite.data.datasets import describe
from suite.errors import InputError
from suite.execution.options import Options
from suite.execution.resolution import check_fit
from suite.spec import Experiment, StudyFile
from suite.store import repair
from suite.store.files import write_model
from suite.store.provenance import packages, version
from suite.store.study import StudyDir


@dataclass(frozen=True)
class Opening:
    """A study that may begin or go on. Nothing is written until `write`."""

    directory: StudyDir
    file: StudyFile
    changed: bool  # study.json has to be written
    lost: bool  # there are trials, but their study.json is damaged or gone

    @property
    def owner(self) -> str:
        """Identifies this results directory in a database that others may use too."""
        return repr(self.file.created)

    def write(self) -> None:
        if self.changed:
            write_model(self.directory.path / "study.json", self.file)


def check_study(directory: StudyDir, experiment: Experiment, results: Path, options: Options) -> Opening:
    """Check a new study, or an old one against what is asked now. Raises InputError where they do not agree."""
    old = directory.study()
    lost = old is None and (directory.exists() or bool(directory.trials()))
    if old is not None:
        _check_resumable(directory, old, experiment, results, options)
    elif lost:
        _check_trials(directory, experiment, options)
    skip = options.skip_broken or old is not None  # an old study knows its pictures by their hash
    info = describe(experiment.dataset, limit=experiment.limit, skip_broken=skip).info
    if old is not None and old.data_hash != info.data_hash:
        raise InputError(f"The data of '{experiment.dataset}' have changed since study '{directory.name}' began.")
    file = StudyFile(
        study=directory.name,
        created=old.created if old else time.time(),
        experiment=experiment,
        data_hash=info.data_hash,
        split_hash=info.split_hash,
        classes=info.classes,
        version=version(),
        packages=packages(),
        storage="sqlite" if options.storage is None else "external",
    )
    return Opening(directory, file, old is None or old.experiment != experiment, lost)


def _check_resumable(
    directory: StudyDir, old: StudyFile, experiment: Experiment, results: Path, options: Options
) -> None:
    states = directory.states()
    if not options.resume:
        done = sum(s.record is not None for s in states)
        raise InputError(
            f"Study '{directory.name}' already exists in {results} with {done} of "
            f"{old.experiment.trials} trials done. Go on with --resume, or take another name with --study NAME."
        )
    _check_same_question(old.experiment, experiment, directory.name)
    if experiment.trials < len(states):
        raise InputError(
            f"Study '{directory.name}' already has {len(states)} trials; --trials "
            f"{experiment.trials} would throw some away. Ask for at least as many."
        )


def _check_same_question(old: Experiment, new: Experiment, name: str) -> None:
    """A study goes on with the question it began with; the number of trials may grow, that of finalists may change."""
    prose = {"trials", "finalists", "name", "question"}
    before, now = old.model_dump(exclude=prose), new.model_dump(exclude=prose)
    if before == now:
        return
    changed = [key for key in before if before[key] != now[key]]
    raise InputError(
        f"Study '{name}' cannot be resumed: the experiment now differs from the one it began with in "
        f"{', '.join(changed)}. Put it back, or start a new study with --study NAME."
    )


def _check_trials(directory: StudyDir, experiment: Experiment, options: Options) -> None:
    """study.json is damaged or gone: it may be written anew if the experiment fits the trials that are there."""
    refuse_newer(directory.path / "study.json")
    if not options.resume:
        raise InputError(
            f"Study '{directory.name}' has {len(directory.trials())} trials but no readable study.json. "
            "Have it written anew with --resume, or take another name with --study NAME."
        )
    for place in directory.trials():
        if place.sound() and (trial := place.trial()) is not None:
            check_fit(experiment, trial, directory)


def refuse_newer(path: Path) -> None:
    """Raises InputError where a file that cannot be read is no damaged one, but one of a later version."""
    if repair.newer(path):
        raise InputError(f"{path} was written by a newer version. Use that one, or take another --study NAME.")
