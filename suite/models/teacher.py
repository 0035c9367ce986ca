"""Trained models that another learns from: loaded from their files, on the inputs of the student."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from suite.errors import InputError
from suite.models import backbones
from suite.models.assembly import weights_path
from suite.models.ensembles import Ensemble
from suite.models.shapes import load_reshaped
from suite.models.state_dicts import read_tensors
from suite.spec import Preprocess, Teacher


def load_teacher(teacher: Teacher, given: Preprocess, classes: int, results: Path) -> Ensemble:
    """The teacher for a student that takes inputs as in `given`: frozen, in evaluation mode on the CPU. Its answers are
    the logarithms of its probabilities, (B, classes), or of the mean of those of several teachers.

    Raises InputError where its weights are gone or others than planned, and where it takes other channels or tells
    other classes apart than the student.
    """
    models = [_loaded(one, given, classes, results) for one in teacher.all]
    return Ensemble(models, [one.preprocess for one in teacher.all], given).requires_grad_(False).eval()


def _loaded(teacher: Teacher, given: Preprocess, classes: int, results: Path) -> nn.Module:
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
        return model
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise InputError(
            f"The teacher {teacher.weights.source} is no {teacher.backbone} for {classes} classes. Choose one that was "
            "trained on the same classes as the student."
        ) from None
    return model
