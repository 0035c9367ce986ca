"""Initial weights by name: pretrained ones, a file, or a trial below the results directory."""

from __future__ import annotations

from pathlib import Path

from suite.errors import InputError
from suite.spec import Weights
from suite.store.files import file_sha256
from suite.store.study import find_trial, open_study, split_reference


def weights_of(reference: str, results: Path) -> Weights:
    """Weights by name: 'pretrained', a file or a folder, or STUDY[/TRIAL] below the results. Raises InputError."""
    if reference == "pretrained":
        return Weights(source="pretrained")
    path = Path(reference).expanduser()
    if path.exists():
        return _weights_of_file(path.absolute(), reference)
    study_name, trial_id = split_reference(reference)
    try:
        study = open_study(results, study_name)
    except InputError as error:
        raise InputError(
            f"There are no weights '{reference}': it is neither a file or folder nor a study or trial in {results}. "
            f"{error}"
        ) from None
    state = find_trial(study, trial_id)
    best = study.trial(state.id).best
    if not best.is_file() or state.trial.strategy.kind == "head":
        raise InputError(
            f"Trial {study.name}/{state.id} has no whole model to start from (strategy {state.trial.strategy.kind}, "
            f"{state.state}); choose a finished trial that trained its backbone, or export it first."
        )
    digest = file_sha256(best)
    if state.record is not None and digest != state.record.artifact_sha256:
        raise InputError(
            f"{best} is damaged: its SHA-256 is not the one in result.json. `mnist-suite doctor {study.name} --repair` "
            "sets the trial aside, to be trained again."
        )
    return Weights(source=str(best.relative_to(results)), sha256=digest)


def _weights_of_file(path: Path, reference: str) -> Weights:
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            raise InputError(f"The folder {reference} holds no model.safetensors to start from.")
    if not path.is_file():
        raise InputError(f"{reference} is no plain file, so it holds no weights to start from.")
    return Weights(source=str(path), sha256=file_sha256(path))
