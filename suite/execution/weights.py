"""Initial weights by name: pretrained ones, a file, a folder, or a trial."""

from __future__ import annotations

import os
import re
from pathlib import Path

from suite.data.datasets import info
from suite.errors import InputError, expand_user
from suite.models.preprocessing import of_trial
from suite.models.weight_sources import weights_file
from suite.spec import NAME, Record, Teacher, Trial, Weights
from suite.store.files import file_sha256, read_model
from suite.store.study import StudyDir, find_trial, open_study, split_reference
from suite.store.trial import BEST, RESULT, TRIAL


def weights_of(reference: str, results: Path) -> Weights:
    """Weights by name: 'pretrained', STUDY[/TRIAL] below the results, or the path of a file or folder.

    The folder can be that of a trial or a study, wherever it is, an export, or any other with a file of weights. A
    name that begins with '.', '/' or '~' is a path. Any other name can be both, and means what holds weights.

    Raises InputError where there are no weights, and where both hold some.
    """
    if reference == "pretrained":
        return Weights(source="pretrained")
    path = Path(os.path.abspath(expand_user(reference)))
    study, is_path = _study(reference, results), os.path.exists(path)  # takes any text, unlike Path.exists
    if study is None or not is_path:
        return _of_path(path, results) if is_path else _of_study(reference, results)
    found: list[Weights] = []
    refusals: list[str] = []
    for look in (lambda: _of_path(path, results), lambda: _of_study(reference, results)):
        try:
            found.append(look())
        except InputError as error:
            refusals.append(str(error))
    if not found:
        raise InputError(f"'{reference}' names a path and a study, and neither has weights. {' '.join(refusals)}")
    if found[0] != found[-1]:
        raise InputError(
            f"'{reference}' is both {path}, which holds weights, and a study, {study.path}. Write ./{reference} for "
            f"the first, or the path of the study or of its trial for the second."
        )
    return found[0]


def teacher_of(reference: str, results: Path) -> Teacher:
    """The trained model of a trial, named as for `weights_of`, or of several trials separated by commas.

    Raises InputError where there is none, and for weights that are no trial's: what model they are for is not known.
    """
    names = [reference] if os.path.exists(reference) else [name.strip() for name in reference.split(",")]
    first, *others = [_teacher(name, results) for name in names]
    return first.model_copy(update={"others": tuple(others)}) if others else first


def _teacher(reference: str, results: Path) -> Teacher:
    weights = weights_of(reference, results)
    file = results / weights.source
    trial = read_model(file.parent / TRIAL, Trial) if file.name == BEST else None
    if trial is None:
        raise InputError(
            f"'{reference}' cannot be a teacher: it is no trial, so the model that the weights are for is not known. "
            "Name a finished trial, as STUDY, STUDY/TRIAL or the path of its folder."
        )
    expects = trial.preprocess or of_trial(trial, info(trial.dataset))
    return Teacher(weights=weights, backbone=trial.backbone, preprocess=expects)


def _study(reference: str, results: Path) -> StudyDir | None:
    """The study that a reference may name."""
    name, _ = split_reference(reference)
    if reference.startswith("/") or re.fullmatch(NAME, name) is None:
        return None
    study = StudyDir(results, name)
    return study if study.exists() else None


def _of_study(reference: str, results: Path) -> Weights:
    name, trial_id = split_reference(reference)
    try:
        study = open_study(results, name)
    except InputError as error:
        raise InputError(
            f"There are no weights '{reference}': it is neither a file or folder nor a study or trial in {results}. "
            f"{error}"
        ) from None
    return _of_trial(study.trial(find_trial(study, trial_id).id).path, study.name, results)


def _of_path(path: Path, results: Path) -> Weights:
    if (path / TRIAL).is_file():
        return _of_trial(path, None, results)
    if (path / "study.json").is_file() and re.fullmatch(NAME, path.name):
        study = StudyDir(path.parent, path.name)
        return _of_trial(study.trial(find_trial(study, None).id).path, study.name, results)
    file = weights_file(path)
    if not file.is_file():
        raise InputError(f"{path} is no plain file, so it holds no weights to start from.")
    return Weights(source=str(file), sha256=_hash(file))


def _of_trial(folder: Path, study: str | None, results: Path) -> Weights:
    """The weights that a trial has trained; `study` is None where its folder was given by its path."""
    trial, record, best = read_model(folder / TRIAL, Trial), read_model(folder / RESULT, Record), folder / BEST
    name = f"{study}/{folder.name}" if study else str(folder)
    if trial is None:
        raise InputError(f"{folder / TRIAL} is damaged or of a newer version, so there is no trial to start from.")
    if record is None or not best.is_file() or trial.strategy.kind in ("head", "int8"):
        raise InputError(
            f"Trial {name} has no whole model to start from (strategy {trial.strategy.kind}, "
            f"{record.state if record else 'not finished'}); choose a finished trial that trained its backbone, or "
            "export it first."
        )
    digest = _hash(best)
    if digest != record.artifact_sha256:
        cure = (
            f"`mnist-suite doctor {study} --repair` sets the trial aside, to be trained again"
            if study
            else "Copy it again"
        )
        raise InputError(f"{best} is damaged: its SHA-256 is not the one in result.json. {cure}.")
    # Relative, so that the results directory can be moved with what depends on it.
    below = os.path.relpath(os.path.realpath(best), os.path.realpath(results))
    source = str(best) if below.startswith(os.pardir) else below
    return Weights(source=source, sha256=digest, reshaped=trial.reshaped)


def _hash(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise InputError(f"The weights in {file} cannot be read: {error.strerror}.") from error
