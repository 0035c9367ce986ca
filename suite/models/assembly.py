"""From a trial to the model it trains, and from its files back to the trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from suite.data.splits import Info
from suite.errors import InputError
from suite.models import backbones, heads, pretrained
from suite.models.preprocessing import Preprocess, preprocess
from suite.spec import FROM_RANDOM, HeadOnly, Knn, Trial
from suite.store.files import file_sha256
from suite.store.trial import TrialDir


@dataclass(frozen=True)
class Assembled:
    model: nn.Module  # (B, C, size, size) -> (B, classes)
    expects: Preprocess
    provenance: pretrained.Provenance | None  # of the weights it starts from


def assemble(trial: Trial, info: Info, results: Path) -> Assembled:
    """The trial's backbone with the weights it starts from. Raises InputError."""
    given = trial.weights
    expects = preprocess(
        trial.backbone,
        channels=info.channels,
        native_size=info.size,
        mean=info.mean,
        std=info.std,
        size=trial.size,
        pretrained=given is not None and given.source == "pretrained",
    )
    model = backbones.build(
        trial.backbone, classes=len(info.classes), channels=info.channels, size=expects.size, seed=trial.seed
    )
    provenance = None
    if given is not None:
        source = given.source if given.source == "pretrained" else str(results / given.source)
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
    """The path of the one classifier. Raises InputError for models with several, as distilled ones have."""
    classifier = model.get_classifier()  # type: ignore[operator]
    names = [name for name, module in model.named_modules() if module is classifier]
    if len(names) != 1:
        raise InputError(
            "This backbone has no single classifier that a head could take the place of; train it with strategy full."
        )
    return names[0]


@torch.no_grad()
def zero_classifier(model: nn.Module) -> None:
    """A new task starts with even odds, and with the features untouched by a random head's first gradients."""
    parameters = dict(model.named_parameters())
    for name in backbones.classifier_parameters(model):
        if parameters[name].ndim > 1 or name.endswith("bias"):  # a norm inside a head keeps its scale
            parameters[name].zero_()


def attach(model: nn.Module, head: heads.Head | heads.Neighbours) -> nn.Module:
    """The backbone with `head` as its classifier; standardisation is folded into the weights."""
    fitted = head.folded() if isinstance(head, heads.Head) else head
    name = classifier_name(model)
    old = model.get_submodule(name)
    if isinstance(fitted, nn.Linear) and isinstance(old, nn.Linear):
        old.load_state_dict(fitted.state_dict())
    else:
        model.set_submodule(name, fitted)
    return model


def load_trained(directory: TrialDir, trial: Trial, info: Info, results: Path) -> Assembled:
    """The finished trial's best model, in evaluation mode on the CPU. Raises InputError."""
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
    tensors = pretrained.read_tensors(path)
    if isinstance(trial.strategy, HeadOnly):
        began = record.provenance.weights_sha256 if record.provenance else None
        if assembled.provenance is not None and began not in (None, assembled.provenance.sha256):
            raise InputError(
                f"Trial {directory.id} trained a head on the features of other weights than those found now "
                f"({assembled.provenance.source}); put the old ones back."
            )
        model = attach(model, rebuild_head(trial.strategy, tensors, len(info.classes)))
    else:
        model.load_state_dict(tensors)
    return Assembled(model.eval(), assembled.expects, assembled.provenance)


def rebuild_head(strategy: HeadOnly, tensors: dict[str, torch.Tensor], classes: int) -> heads.Head | heads.Neighbours:
    """A head of the shape that its saved tensors tell."""
    if isinstance(strategy.head, Knn):
        head: heads.Head | heads.Neighbours = heads.Neighbours(
            torch.zeros_like(tensors["bank"]), tensors["labels"], strategy.head.k, classes
        )
    else:
        features = torch.zeros(2, tensors["standardize.mean"].numel())
        head = heads.make(strategy.head, features, classes, seed=0)
    head.load_state_dict(tensors)
    return head
