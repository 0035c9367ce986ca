"""What a study will run, checked before anything is written; and the studies of one training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from suite.data.datasets import describe, prepare
from suite.data.inspection import OnProgress
from suite.data.registry import is_own
from suite.errors import InputError
from suite.execution.choices import refuse_bad
from suite.execution.options import Options, caps_latency
from suite.models.preprocessing import of_arm
from suite.search.storage import open_storage
from suite.spec import Arm, Experiment
from suite.training.checkpoint import checkpoint_seconds
from suite.training.setup import crops_at_random


def check(experiment: Experiment, results: Path, options: Options, *, fetch: bool = True, begun: bool = False) -> None:
    """Refuse what cannot run before anything is written or trained. Raises InputError.

    All choices that a search may make are tried without weights, on the meta device, and all that is wrong with them
    is said at once. Without `fetch` a data set that is not in the cache is taken to be as the registry says. A study
    that has `begun`, perhaps with an older version, keeps choices that its backbones cannot take: their trials fail.
    """
    options.check()
    _check_latency_cap(experiment, options)
    checkpoint_seconds()
    if options.storage is not None:
        open_storage(results, options.storage)
    refuse_bad([experiment, *pretrainings_of(experiment)], results, fetch=fetch, begun=begun)


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


def pretrainings_of(experiment: Experiment) -> list[Experiment]:
    """The one-trial experiments whose models are the teachers 'experiment' of the arms, the first one's also the
    weights 'experiment'. None where no arm uses them.

    Their names depend on their content alone, so experiments with the same pretraining share one study.
    """
    plan, arms = experiment.pretraining, experiment.arms.values()
    if plan is None or not any(arm.pretrained_here for arm in arms):
        return []
    also = plan.also if any(arm.teacher == "experiment" for arm in arms) else ()
    plans = []
    for backbone in dict.fromkeys((plan.backbone, *also)):
        arm = Arm.model_validate(
            {"backbone": backbone, "strategy": {"kind": "pretrain"}, "recipe": plan.recipe.model_dump()}
        )
        name = auto_name("pretrain", arm, plan.dataset, experiment.seed, experiment.limit)
        plans.append(single(name, arm, plan.dataset, seed=experiment.seed, limit=experiment.limit))
    return plans


def auto_name(verb: str, arm: Arm, dataset: str, seed: int, limit: int | None) -> str:
    """A study name that is the same for the same training, so that a second request finds the first one's result."""
    content = f"{arm.model_dump_json(exclude=arm.unhashed())} {dataset} {seed} {limit}"
    plain = "".join(
        c if c.isascii() and c.isalnum() else "-" for c in f"{arm.backbone.removeprefix('timm:')}-{dataset}"
    )[:48]
    return f"{verb}-{plain.strip('-')}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"
