"""A trial that trains the backbone by gradient descent, wholly or in part."""

from __future__ import annotations

import torch

from suite.hardware.device import precision
from suite.hardware.flops import count
from suite.models import classifiers, heads, lora
from suite.models.preprocessing import evaluation_preparer
from suite.spec import HeadOnly, LpFt, Progress, Recipe
from suite.training.attempt import (
    Attempt,
    Events,
    Trained,
    TrialStopped,
    best_accuracy,
    check_caps,
    frozen_features,
    train_with_checkpoints,
)
from suite.training.augment import feature_preparer, training_preparer
from suite.training.evaluation import evaluate
from suite.training.loop import fit
from suite.training.record import Account
from suite.training.setup import Setup
from suite.training.state import Diverged, begin


def gradient_trial(setup: Setup, account: Account, attempt: Attempt) -> Events[Trained]:
    """Train `setup.model` with the trial's strategy and recipe. Raises TrialPruned, TrialStopped and Diverged."""
    trial, model, where = setup.trial, setup.model, setup.device
    yield from check_caps(setup, account, attempt, lora.merged(model))
    if isinstance(trial.strategy, LpFt) and setup.saved is None:
        yield from _linear_probe(setup, account, trial.strategy)
    training = yield from train_with_checkpoints(
        setup,
        account,
        attempt,
        model,
        setup.images,
        training_preparer(setup.expects, trial.recipe.augment, where),
        dtype=setup.precision,
        keep_frozen=setup.keep_frozen,
    )
    accuracy, logits, whole = best_accuracy(training), training.best_logits, lora.merged(model)
    if setup.precision != torch.float32 and not attempt.short:  # an exported model answers in float32
        prepare = evaluation_preparer(setup.expects, where)
        scores = evaluate(whole, setup.images.validation, prepare, where, torch.float32)
        accuracy, logits = scores.accuracy, scores.logits
    return Trained(whole, whole, logits, accuracy)


def _linear_probe(setup: Setup, account: Account, strategy: LpFt) -> Events[None]:
    """Train a linear head on frozen features and put it in as the classifier: the first part of lp-ft.

    It is part of the setup: its Progress events stand at step 0. Raises TrialStopped and Diverged.
    """
    trial, where = setup.trial, setup.device
    dtype = precision(trial.recipe.precision, where, setup.model, training=False)
    examples = yield from frozen_features(setup, account, dtype)
    train = examples.train
    head = heads.make(HeadOnly().head, train.features, len(examples.info.classes), trial.seed)
    recipe = Recipe(
        lr=strategy.probe_lr, batch_size=min(256, len(train)), epochs=strategy.probe_epochs, schedule="cosine"
    )
    probe = begin(head, recipe, where, torch.float32)
    for event in fit(probe, train, examples.validation, recipe, feature_preparer, seed=trial.seed):
        if isinstance(event, Progress):
            if (yield event.model_copy(update={"step": 0, "epoch": 0.0, "seconds": 0.0})) == "stop":
                raise TrialStopped
        elif event.loss is None:
            raise Diverged(f"the validation loss of the linear probe is no finite number after epoch {event.epoch:g}")
    head.load_state_dict(probe.best_state)
    account.setup_flops += count(head, tuple(train.inputs.shape[1:])).training_flops * probe.tally.images
    classifiers.attach(setup.model, head)
