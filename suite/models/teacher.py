"""Trained models that another learns from: loaded from their files, on the inputs of the student."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.models import backbones
from suite.models.assembly import weights_path
from suite.models.ensembles import mean_of
from suite.models.shapes import load_reshaped
from suite.models.state_dicts import read_tensors
from suite.spec import Preprocess
from suite.spec import Teacher as TeacherSpec


class Teacher(nn.Module):
    """A frozen model on inputs (B, C, size, size) that were made for another: to class scores (B, classes).

    The inputs are brought to the mean, standard deviation and size that the model was trained with, where they differ.
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, expects: Preprocess, given: Preprocess) -> None:
        super().__init__()
        self.model, self.size = model, expects.size
        self.equal = (expects.mean, expects.std) == (given.mean, given.std)
        (own_mean, own_std), (mean, std) = (
            (torch.tensor(p.mean).view(1, -1, 1, 1), torch.tensor(p.std).view(1, -1, 1, 1)) for p in (expects, given)
        )
        self.register_buffer("gain", std / own_std)
        self.register_buffer("offset", (mean - own_mean) / own_std)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        if not self.equal:
            x = torch.addcmul(self.offset, x, self.gain)
        if x.shape[-1] != self.size:
            antialias = x.shape[-1] > self.size
            x = F.interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=antialias)
        return self.model(x)


class Teachers(nn.Module):
    """Several teachers as one: the logarithms of the mean of their probabilities, (B, classes)."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, x: Tensor) -> Tensor:
        return mean_of(torch.stack([teacher(x).float().log_softmax(1) for teacher in self.teachers]))


def load_teacher(teacher: TeacherSpec, given: Preprocess, classes: int, results: Path) -> Teacher | Teachers:
    """The teacher for a student that takes inputs as in `given`, in evaluation mode on the CPU.

    Raises InputError where its weights are gone or others than planned, and where it takes other channels or tells
    other classes apart than the student.
    """
    found = [_loaded(one, given, classes, results) for one in teacher.all]
    return Teachers(found) if len(found) > 1 else found[0]


def _loaded(teacher: TeacherSpec, given: Preprocess, classes: int, results: Path) -> Teacher:
    expects = teacher.preprocess
    if expects.channels != given.channels:
        raise InputError(
            f"The teacher {teacher.weights.source} takes images of {expects.channels} channel(s), but the student's "
            f"have {given.channels}. Choose a teacher that was trained on such images."
        )
    tensors = read_tensors(weights_path(teacher.weights, results))
    model = backbones.unfilled(teacher.backbone, classes=classes, channels=expects.channels, size=expects.size)
    if teacher.weights.reshaped:
        load_reshaped(model, tensors, teacher.weights.source)
        return Teacher(model, expects, given)
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"The teacher {teacher.weights.source} is no {teacher.backbone} for {classes} classes. Choose one that was "
            "trained on the same classes as the student."
        ) from None
    return Teacher(model, expects, given)
