"""The model of a trial: its backbone built for the data set, with initial weights, or with its trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from suite.errors import InputError, WorkError
from suite.models import backbones, classifiers, compression, heads, int8, pretrained, shapes
from suite.models.state_dicts import read_tensors
from suite.models.weight_sources import find_pretrained, weights_file
from suite.spec import AS_TRAINED, FROM_RANDOM, HeadOnly, Int8, Preprocess, Trial, Weights
from suite.store.files import file_sha256
from suite.store.trial import TrialDir


@dataclass(frozen=True)
class Assembled:
    """A model, the input that it expects, and where its initial weights came from."""

    model: nn.Module  # (B, C, size, size) to class scores (B, classes)
    expects: Preprocess
    provenance: pretrained.Provenance | None  # None for random weights


def build(backbone: str, expects: Preprocess, *, classes: int, seed: int) -> nn.Module:
    """A backbone for inputs as in `expects`, with random weights that depend on `seed` alone.

    Raises InputError for an unknown backbone and where it cannot take images of that size.
    """
    return backbones.build(backbone, classes=classes, channels=expects.channels, size=expects.size, seed=seed)


def assemble(
    trial: Trial,
    expects: Preprocess,
    classes: int,
    results: Path,
    saved: Mapping[str, Tensor] | None = None,
) -> Assembled:
    """The trial's model with its initial weights, on the CPU; paths of weights are below `results`.

    `saved` is the state dict of the model in a checkpoint, which is about to be loaded: only its sizes are needed then.

    Raises InputError where the weights cannot be found or read, are not those the trial was planned with, or do not
    fit the backbone.
    """
    model = build(trial.backbone, expects, classes=classes, seed=trial.seed)
    provenance = None
    if trial.weights is not None:
        provenance = load_weights(trial.backbone, model, trial.weights, results)
    kept = trial.strategy.kind in AS_TRAINED and not (provenance and pretrained.LEFT_OUT in provenance.detail)
    if trial.strategy.kind not in FROM_RANDOM and not kept:
        classifiers.zero(model)
    if saved is not None:
        shapes.fit_shapes(model, saved)
    else:
        compression.compress(trial.strategy, model, expects.shape)
    return Assembled(model, expects, provenance)


def check_weights(trial: Trial, results: Path) -> None:
    """Raises InputError where the weights that a trial starts from, or those of a teacher, are missing.

    Nothing is downloaded, and no model is built.
    """
    for given in trial.given:
        if given.source == pretrained.PRETRAINED:
            find_pretrained(trial.backbone)
        elif not weights_file(weights_path(given, results)).is_file():
            raise InputError(
                f"Trial {trial.id} {'starts' if given == trial.weights else 'learns'} from the weights {given.source} "
                f"(SHA-256 {given.sha256 or 'not recorded'}), which are not in {results}. Put them back where they "
                "were."
            )


def load_weights(backbone: str, model: nn.Module, given: Weights, results: Path) -> pretrained.Provenance:
    """Fill `model`, built as `backbone`, with the weights that are `given`; it takes their sizes where these say so.

    Raises InputError where they cannot be found or read, are not those that were planned with, or do not fit.
    """
    if given.source == pretrained.PRETRAINED:
        return pretrained.load_pretrained(backbone, model, given.source)
    path = weights_path(given, results)
    if not given.reshaped:
        return pretrained.load_pretrained(backbone, model, path)
    shapes.load_reshaped(model, read_tensors(path), str(path))
    return pretrained.Provenance(str(path), file_sha256(path), "every weight as it is, in layers of its sizes")


def weights_path(given: Weights, results: Path) -> Path:
    """The file of weights. Raises InputError where it is not the one that the trial was planned with."""
    source = results / given.source
    if given.sha256 is not None and source.is_file() and file_sha256(source) != given.sha256:
        raise InputError(
            f"The weights in {source} are not the ones this trial was planned with (their SHA-256 differs). "
            "Start a new study, or put the old file back."
        )
    return source


def load_trained(directory: TrialDir, trial: Trial, expects: Preprocess, classes: int, results: Path) -> Assembled:
    """The best model of a finished trial, in evaluation mode on the CPU.

    The trial's initial weights are needed only where they are not all in its artifact: for heads on frozen features.

    Raises InputError where the trial is not finished, its weights are missing or damaged, or the weights that its
    frozen features came from are gone or no longer the same.
    """
    record = directory.record()
    if record is None or record.state != "finished" or record.artifact is None:
        raise InputError(f"Trial {directory.id} is not finished, so there is no model of it to load.")
    path = directory.path / record.artifact
    if not path.is_file():
        raise InputError(f"The weights of trial {directory.id} are gone: {path} is missing.")
    if file_sha256(path) != record.artifact_sha256:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in result.json.")
    tensors = read_tensors(path)
    if isinstance(trial.strategy, Int8):
        return Assembled(int8.Int8(tensors["graph"], expects, classes).eval(), expects, None)
    if not isinstance(trial.strategy, HeadOnly):
        model = backbones.unfilled(trial.backbone, classes=classes, channels=expects.channels, size=expects.size)
        if trial.reshaped:
            shapes.fit_shapes(model, tensors)
        model.load_state_dict(tensors)
        return Assembled(model.eval(), expects, None)
    trained_on = record.provenance.weights_sha256 if record.provenance else None
    try:
        assembled = assemble(trial, expects, classes, results)
    except (InputError, WorkError) as error:
        raise InputError(_missing_weights(directory, trial, trained_on, error)) from error
    if assembled.provenance is not None and trained_on not in (None, assembled.provenance.sha256):
        raise InputError(
            f"Trial {directory.id} trained a head on the features of other weights (SHA-256 {trained_on}) than those "
            f"found now ({assembled.provenance.source}, SHA-256 {assembled.provenance.sha256}); put the old ones back."
        )
    model = classifiers.attach(assembled.model, heads.restore(trial.strategy.head, tensors, classes))
    return Assembled(model.eval(), expects, assembled.provenance)


def _missing_weights(directory: TrialDir, trial: Trial, sha256: str | None, error: Exception) -> str:
    source = trial.weights.source if trial.weights else None
    return (
        f"Trial {directory.id} is a head on frozen features of {trial.backbone}, whose own weights are not part of the "
        f"trial: it needs the weights {source} (SHA-256 {sha256 or 'not recorded'}). {error} "
        "Put them back where they were; the strategies full and lp-ft keep all weights in the trial."
    )
