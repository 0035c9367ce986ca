"""What a study will run, checked before anything is written; and the studies of one training."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from torch import nn

from suite.data.datasets import Description, describe, prepare
from suite.data.inspection import OnProgress
from suite.data.registry import is_own
from suite.data.splits import Info
from suite.errors import InputError
from suite.execution.options import Options, caps_latency
from suite.execution.weights import weights_of
from suite.models import backbones, strategies
from suite.models.assembly import build
from suite.models.preprocessing import of_arm
from suite.models.pretrained import load_pretrained
from suite.models.weight_sources import find_pretrained
from suite.search.storage import open_storage
from suite.spec import Arm, Choice, Experiment, HeadOnly
from suite.training.checkpoint import checkpoint_seconds
from suite.training.setup import crops_at_random


def check(experiment: Experiment, results: Path, options: Options) -> None:
    """Refuse what cannot run before anything is written or trained. Raises InputError."""
    options.check()
    _check_latency_cap(experiment, options)
    checkpoint_seconds()
    if options.storage is not None:
        open_storage(results, options.storage)
    for name, arm in experiment.arms.items():
        backbones.exists(arm.backbone)
        data = describe(experiment.dataset, fraction=arm.fraction, limit=experiment.limit)
        if arm.weights == "pretrained":
            find_pretrained(arm.backbone)
        elif arm.weights not in (None, "experiment"):
            given = weights_of(arm.weights, results)
            if os.path.isabs(given.source):  # a file from elsewhere: refused here rather than in every trial
                _check_weights(arm, data.info, given.source)
        _check_batch_size(experiment, name, data)


def prepare_pictures(experiment: Experiment, *, skip_broken: bool, on_progress: OnProgress) -> list[str]:
    """Decode a person's own pictures for all arms; returns what to know of them, in sentences.

    Nothing is done for other data sets. Raises InputError.
    """
    if not is_own(experiment.dataset):
        return []
    known = describe(experiment.dataset, limit=experiment.limit, skip_broken=skip_broken, on_progress=on_progress).info
    inputs = [(arm, of_arm(arm, known)) for arm in experiment.arms.values()]
    return prepare(
        experiment.dataset,
        [expects.training_view() if crops_at_random(arm) else expects.view() for arm, expects in inputs],
        [expects.view() for _, expects in inputs],
        limit=experiment.limit,
        skip_broken=skip_broken,
        on_progress=on_progress,
    )


def _check_latency_cap(experiment: Experiment, options: Options) -> None:
    """Trials that compete for a machine make each other's models look slow. Raises InputError.

    A stacked population is no such case: its trials share one process, where nothing else runs during a measurement.
    """
    if caps_latency(experiment) and (options.workers > 1 or "," in options.device or options.engine != "local"):
        raise InputError(
            f"Experiment '{experiment.name}' caps the latency of one image, which is measured by timing each model "
            "where it trains. Trials that run beside each other slow each other down, so the load would decide which "
            "models pass. Leave out --workers and --engine, and name one --device, to run one trial at a time on this "
            "machine, or cap FLOPs or parameters instead (--max-flops, --max-params), which do not depend on the load."
        )


def _check_batch_size(experiment: Experiment, name: str, data: Description) -> None:
    arm, images = experiment.arms[name], len(data.train_labels)
    choices = {**experiment.space, **arm.space}.get("batch_size")
    if choices is None:
        sizes = [arm.recipe.batch_size]
    else:
        ends = choices.values if isinstance(choices, Choice) else (choices.low, choices.high)
        sizes = [int(value) for value in ends]
    if max(sizes) > images:
        raise InputError(
            f"Arm '{name}' may use batches of {max(sizes)}, but has only {images} training images; take smaller "
            "batches (--set batch_size=N) or more data."
        )
    if min(sizes) == 1 and _trains_batch_norm(experiment, arm, data.info):
        raise InputError(
            f"Arm '{name}' may use batches of one image, but {arm.backbone} has batch norm layers, which cannot train "
            "on one image: take batches of 2 or more (--set batch_size=N), or a backbone without batch norm."
        )


def _trains_batch_norm(experiment: Experiment, arm: Arm, info: Info) -> bool:
    """Whether the arm's training puts a batch norm layer into training mode."""
    if isinstance(arm.strategy, HeadOnly):
        return False
    model = build(arm.backbone, of_arm(arm, info), classes=len(info.classes), seed=experiment.seed)
    keep_frozen = strategies.freeze(arm.strategy, model)
    model.train()
    if keep_frozen is not None:
        keep_frozen(model)
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules())


def _check_weights(arm: Arm, info: Info, source: str) -> None:
    """Raises InputError where the weights cannot be read, or do not fit the arm's architecture."""
    model = build(arm.backbone, of_arm(arm, info), classes=len(info.classes), seed=0)
    load_pretrained(arm.backbone, model, source)


def single(name: str, arm: Arm, dataset: str, *, seed: int, limit: int | None) -> Experiment:
    """The experiment of one training."""
    return Experiment(
        name=name,
        question=f"One training of {arm.backbone} by {arm.strategy.kind} on {dataset}.",
        dataset=dataset,
        arms={arm.strategy.kind: arm},
        trials=1,
        pruning=None,
        seed=seed,
        limit=limit,
    )


def with_small_batches(arm: Arm, images: int) -> Arm:
    """The arm with a batch size of at most a quarter of its training images, a power of two."""
    largest = 2 ** max(1, (images // 4).bit_length() - 1)
    if arm.recipe.batch_size <= largest:
        return arm
    return arm.model_copy(update={"recipe": arm.recipe.model_copy(update={"batch_size": largest})})


def pretraining_of(experiment: Experiment) -> Experiment:
    """The one-trial experiment whose best weights are the weights 'experiment' of the arms.

    Its name depends on its content alone, so experiments with the same pretraining share one study.
    """
    assert experiment.pretraining is not None
    plan = experiment.pretraining
    arm = Arm.model_validate(
        {"backbone": plan.backbone, "strategy": {"kind": "pretrain"}, "recipe": plan.recipe.model_dump()}
    )
    return single(
        auto_name("pretrain", arm, plan.dataset, experiment.seed, experiment.limit),
        arm,
        plan.dataset,
        seed=experiment.seed,
        limit=experiment.limit,
    )


def auto_name(verb: str, arm: Arm, dataset: str, seed: int, limit: int | None) -> str:
    """A study name that is the same for the same training, so that a second request finds the first one's result."""
    content = f"{arm.model_dump_json(exclude=arm.unhashed())} {dataset} {seed} {limit}"
    plain = "".join(c if c.isalnum() else "-" for c in f"{arm.backbone.removeprefix('timm:')}-{dataset}")[:48]
    return f"{verb}-{plain.strip('-')}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"
