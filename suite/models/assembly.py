"""The model of a trial: its backbone built for the data set, with initial weights, or with its trained weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from suite.data.splits import Info
from suite.errors import InputError
from suite.models import backbones, heads, pretrained
from suite.models.preprocessing import Preprocess, preprocess
from suite.models.state_dicts import read_tensors
from suite.spec import FROM_RANDOM, HeadOnly, Trial
from suite.store.files import file_sha256
from suite.store.trial import TrialDir


@dataclass(frozen=True)
class Assembled:
    """A model, the input that it expects, and where its initial weights came from."""

    model: nn.Module  # (B, C, size, size) to class scores (B, classes)
    expects: Preprocess
    provenance: pretrained.Provenance | None  # None for random weights


def build_for(
    info: Info, backbone: str, *, size: int | None, pretrained: bool, seed: int
) -> tuple[nn.Module, Preprocess]:
    """Build a backbone for the images and classes of a data set, with random weights that depend on `seed` alone.

    `size` is the input size in pixels, None for the backbone's default. `pretrained` says whether public weights will
    be loaded, which bring their own normalisation. Returns the model and the input that it expects. Raises InputError
    for an unknown backbone and where it cannot take images of that size.
    """
    expects = preprocess(
        backbone,
        channels=info.channels,
        native_size=info.size,
        mean=info.mean,
        std=info.std,
        size=size,
        pretrained=pretrained,
    )
    model = backbones.build(backbone, classes=len(info.classes), channels=info.channels, size=expects.size, seed=seed)
    return model, expects


def assemble(trial: Trial, info: Info, results: Path) -> Assembled:
    """The trial's backbone with its initial weights, on the CPU; paths of weights are below `results`.

    Raises InputError where the weights cannot be found or read, are not those the trial was planned with, or do not
    fit the backbone.
    """
    given = trial.weights
    public = given is not None and given.source == pretrained.PRETRAINED
    model, expects = build_for(info, trial.backbone, size=trial.size, pretrained=public, seed=trial.seed)
    provenance = None
    if given is not None:
        source = given.source if public else str(results / given.source)
        if given.sha256 is not None and Path(source).is_file() and file_sha256(Path(source)) != given.sha256:
            raise InputError(
                f"The weights in {source} are not the ones this trial was planned with (their SHA-256 differs). "
                "Start a new study, or put the old file back."
            )
        provenance = pretrained.load_pretrained(trial.backbone, model, source)
    if trial.strategy.kind not in FROM_RANDOM:
        zero_classifier(model)
    return Assembled(model, expects, provenance)


def classifier_name(model: nn.Module) -> str:
    """The module path of the one classifier. Raises InputError for models with several, as distilled ones have."""
    classifier = model.get_classifier()  # type: ignore[operator]
    names = [name for name, module in model.named_modules() if module is classifier]
    if len(names) != 1:
        raise InputError(
            "This backbone has no single classifier that a head could take the place of; train it with strategy full."
        )
    return names[0]


@torch.no_grad()
def zero_classifier(model: nn.Module) -> None:
    """Set the classifier's weights and biases to zero.

    All classes of a new task then start with equal probability, and the first gradients do not reach the features
    through random classifier weights.
    """
    parameters = dict(model.named_parameters())
    for name in backbones.classifier_parameters(model):
        if parameters[name].ndim > 1 or name.endswith("bias"):  # the scale of a norm inside a classifier stays
            parameters[name].zero_()


def attach(model: nn.Module, head: heads.AnyHead) -> nn.Module:
    """Replace the classifier of `model` with `head`, its standardisation folded into the weights. Returns `model`.

    Raises InputError for a model with several classifiers.
    """
    fitted = head.folded() if isinstance(head, heads.Head) else head
    name = classifier_name(model)
    old = model.get_submodule(name)
    if isinstance(fitted, nn.Linear) and isinstance(old, nn.Linear):
        old.load_state_dict(fitted.state_dict())
    else:
        model.set_submodule(name, fitted)
    return model


def load_trained(directory: TrialDir, trial: Trial, info: Info, results: Path) -> Assembled:
    """The best model of a finished trial, in evaluation mode on the CPU.

    Raises InputError where the trial is not finished, its weights are missing or damaged, or the weights that its
    frozen features came from are no longer the same.
    """
    record = directory.record()
    if record is None or record.state != "finished" or record.artifact is None:
        raise InputError(f"Trial {directory.id} is not finished, so there is no model of it to load.")
    path = directory.path / record.artifact
    if not path.is_file():
        raise InputError(f"The weights of trial {directory.id} are gone: {path} is missing.")
    if file_sha256(path) != record.artifact_sha256:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in result.json.")
    assembled = assemble(trial, info, results)
    model = assembled.model
    tensors = read_tensors(path)
    if isinstance(trial.strategy, HeadOnly):
        trained_on = record.provenance.weights_sha256 if record.provenance else None
        if assembled.provenance is not None and trained_on not in (None, assembled.provenance.sha256):
            raise InputError(
                f"Trial {directory.id} trained a head on the features of other weights than those found now "
                f"({assembled.provenance.source}); put the old ones back."
            )
        model = attach(model, heads.restore(trial.strategy.head, tensors, len(info.classes)))
    else:
        model.load_state_dict(tensors)
    return Assembled(model.eval(), assembled.expects, assembled.provenance)
