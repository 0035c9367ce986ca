"""A trial of a head on frozen features, trained by gradient descent or solved."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from suite.hardware.device import device_time
from suite.hardware.flops import Counted, count
from suite.models import classifiers, heads
from suite.spec import Evaluated, HeadOnly
from suite.training.attempt import (
    Attempt,
    Events,
    Trained,
    TrialStopped,
    best_accuracy,
    check_caps,
    extract_features,
    frozen_features,
    train_with_checkpoints,
)
from suite.training.augment import feature_preparer
from suite.training.evaluation import evaluate
from suite.training.record import Account, started_event
from suite.training.setup import Loaded, Setup
from suite.training.state import Diverged, Tally

Head = heads.Head | heads.Neighbours


def head_trial(setup: Setup, account: Account, attempt: Attempt, strategy: HeadOnly) -> Events[Trained]:
    """Fit a head on the frozen features of `setup.model`. Raises TrialPruned, TrialStopped and Diverged."""
    model = setup.model
    yield from check_caps(setup, account, attempt, model)
    features = yield from frozen_features(setup, account, setup.precision)
    in_fp32 = features.validation
    if setup.precision != torch.float32:
        in_fp32 = yield from extract_features(setup, account, setup.images.validation, "validation", torch.float32)
    if heads.by_gradient(strategy.head):
        head = yield from _train(setup, account, attempt, strategy, features)
    else:
        head = yield from _solve(setup, account, attempt, strategy, features)
    fitted = head.folded() if isinstance(head, heads.Head) else head
    whole = classifiers.attach(model, head).requires_grad_(False)
    used = count(whole, setup.expects.shape)  # the head may be larger or smaller than the classifier it replaces
    account.counted = replace(account.counted, parameters=used.parameters, forward_flops=used.forward_flops)
    yield from check_caps(setup, account, attempt, whole)
    # The whole model in float32 is its classifier on float32 features, which all trials of a backbone share.
    scores = evaluate(fitted, in_fp32, feature_preparer, setup.device, torch.float32)
    return Trained(head, whole, scores.logits, scores.accuracy)


def _train(setup: Setup, account: Account, attempt: Attempt, strategy: HeadOnly, features: Loaded) -> Events[Head]:
    """By gradient descent."""
    inputs, body = features.train.features, account.counted
    head = heads.make(strategy.head, inputs, len(features.info.classes), setup.trial.seed)
    inner = count(head, tuple(inputs.shape[1:]))
    account.counted = Counted(body.parameters, inner.trainable, body.forward_flops, inner.training_flops)
    training = yield from train_with_checkpoints(
        setup, account, attempt, head, features, feature_preparer, dtype=torch.float32
    )
    best_accuracy(training)  # raises Diverged
    return head


def _solve(setup: Setup, account: Account, attempt: Attempt, strategy: HeadOnly, features: Loaded) -> Events[Head]:
    """Without steps."""
    train, body, where = features.train, account.counted, setup.device
    account.begin_training(where)
    verdict = yield started_event(attempt.token, account, steps=0)
    if verdict == "stop":  # solving cannot be interrupted, and may take minutes
        raise TrialStopped
    begin = device_time(where)
    head, flops = heads.solve(strategy.head, train.features, train.labels, len(features.info.classes))
    account.tally = Tally(step=1, images=len(train), seconds=device_time(where) - begin)
    scores = evaluate(head, features.validation, feature_preparer, where, torch.float32)
    if not math.isfinite(scores.loss):
        raise Diverged(f"the validation loss is {scores.loss}")
    account.tally.note(1, scores)
    yield Evaluated(step=1, epoch=1, accuracy=scores.accuracy, loss=scores.loss, seconds=account.tally.seconds)
    account.counted = Counted(body.parameters, _parameters(head), body.forward_flops, flops)
    return head


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
