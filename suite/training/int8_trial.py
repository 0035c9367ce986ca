"""A trial that quantises a trained model: nothing is trained."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from suite.hardware.device import device_time
from suite.models.int8 import quantize
from suite.models.preprocessing import evaluation_preparer, resize
from suite.models.quantize import calibration_count
from suite.spec import Evaluated, Measuring
from suite.spec.seeds import mix
from suite.training.attempt import Attempt, Events, Trained, TrialStopped, check_caps
from suite.training.evaluation import Scores, evaluate
from suite.training.record import Account, started_event
from suite.training.setup import Setup
from suite.training.state import Diverged, Tally

QUANTISING = Measuring(what="the ranges of its activations")

LOSS = 0.0005  # of validation accuracy: a way to calibrate that loses no more is taken, and no other one is tried


def int8_trial(setup: Setup, account: Account, attempt: Attempt) -> Events[Trained]:
    """Quantise `setup.model`, calibrated on training images that the seed draws. Raises TrialPruned and TrialStopped.

    onnxruntime computes on the CPU, whatever the device of the trial. The cost is that of the model in float32, but
    for the latency and the size of the file.
    """
    yield from check_caps(setup, account, attempt, setup.model)
    account.begin_training(setup.device)
    if (yield started_event(attempt.token, account, steps=0)) == "stop":  # it takes seconds, and is not interrupted
        raise TrialStopped
    yield QUANTISING
    where, classes = setup.device, len(setup.images.info.classes)
    prepare = evaluation_preparer(setup.expects, where)

    def scores(model: nn.Module) -> Scores:
        return evaluate(model, setup.images.validation, prepare, where, torch.float32)

    begin = device_time(where)
    least = scores(setup.model).accuracy - LOSS
    pictures = _calibration(setup)
    model = quantize(setup.model, setup.expects, classes, pictures, lambda one: scores(one).accuracy, least)
    found = scores(model)
    if not math.isfinite(found.loss):
        raise Diverged(f"the validation loss is {found.loss}")
    account.tally = Tally(step=1, seconds=device_time(where) - begin)
    account.tally.note(1, found)
    yield Evaluated(step=1, epoch=1, accuracy=found.accuracy, loss=found.loss, seconds=account.tally.seconds)
    return Trained(model, model, found.logits, found.accuracy)


def _calibration(setup: Setup) -> np.ndarray:
    """Training images (N, C, size, size) uint8, without augmentation."""
    train, expects = setup.images.train, setup.expects
    generator = torch.Generator().manual_seed(mix(setup.trial.seed, 5))
    count = min(len(train), calibration_count(expects.size))
    rows = torch.randperm(len(train), generator=generator)[:count]
    images = train.inputs[rows.to(train.labels.device)]
    return resize(images, expects).round().to(torch.uint8).cpu().contiguous().numpy()
