"""What a trial needs before its training begins: data, model, precision, and where an earlier attempt stopped."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from suite.data.datasets import search_splits
from suite.data.registry import is_own
from suite.data.splits import Info
from suite.errors import InputError
from suite.hardware import autotune, device, memory
from suite.models import assembly, strategies
from suite.models.assembly import Assembled
from suite.models.ensembles import Ensemble
from suite.models.preprocessing import of_trial
from suite.models.pretrained import Provenance as WeightsProvenance
from suite.models.streaming import on_device
from suite.models.teacher import load_teacher
from suite.spec import Arm, HeadOnly, Int8, Measuring, Preprocess, Trial, View
from suite.training import checkpoint
from suite.training.checkpoint import Saved
from suite.training.evaluation import Examples
from suite.training.measuring import announced


@dataclass(frozen=True)
class Loaded:
    """The splits that a search may see, as images or as frozen features."""

    train: Examples
    validation: Examples
    info: Info


@lru_cache(maxsize=2)
def load_examples(
    dataset: str, fraction: float, limit: int | None, where: str, view: View | None = None, training: View | None = None
) -> Loaded:
    """Training and validation images for the device `where`; kept for the next trial in this process.

    `view` and `training` are how the user's own pictures are decoded, see `search_splits`.
    """
    splits = search_splits(dataset, fraction=fraction, limit=limit, view=view, training_view=training)
    target = torch.device(where)
    parts = [
        Examples(on_device(part.images, target), torch.from_numpy(part.labels).to(target))
        for part in (splits.train, splits.validation)
    ]
    return Loaded(parts[0], parts[1], splits.info)


@dataclass(frozen=True)
class Setup:
    """All that the training of a trial starts from."""

    trial: Trial
    device: torch.device
    images: Loaded
    model: nn.Module  # the backbone with its initial weights, on `device`
    expects: Preprocess
    weights: WeightsProvenance | None  # None: random weights
    teacher: Ensemble | None  # on `device`
    precision: torch.dtype  # of autocast: for training, or for extracting the features that a head is trained on
    keep_frozen: Callable[[nn.Module], None] | None  # puts frozen norm layers into evaluation mode
    saved: Saved | None  # where an earlier attempt at this training stopped
    earlier: dict[str, Any]  # what earlier attempts used, as `Account.spent` and the checkpoint tell it


def views(trial: Trial) -> tuple[View | None, View | None]:
    """How the user's own pictures are decoded for a trial: for evaluation, and for training where it crops at random.

    (None, None) for trials of older versions, and for data sets that are no files of pictures.
    """
    if trial.preprocess is None or not is_own(trial.dataset):
        return None, None
    return trial.preprocess.view(), trial.preprocess.training_view() if crops_at_random(trial) else None


def crops_at_random(training: Trial | Arm) -> bool:
    """Whether training images are random crops, which are taken from larger pictures than those that are evaluated."""
    return not isinstance(training.strategy, HeadOnly | Int8) and training.recipe.augment.crop > 0


def load_images(trial: Trial, where: torch.device) -> Loaded:
    """The trial's images on the device `where`. Raises InputError where they are not those that it was planned with."""
    view, training = views(trial)
    images = load_examples(trial.dataset, trial.fraction, trial.limit, str(where), view, training)
    if images.info.data_hash != trial.data_hash or images.info.split_hash != trial.split_hash:
        raise InputError(f"The data of '{trial.dataset}' are not the ones this trial was planned with.")
    return images


def set_up(
    trial: Trial, images: Loaded, where: torch.device, results: Path, directory: Path, stage: int = 0
) -> Generator[Measuring, object, Setup]:
    """Build the model and choose the precision. Sets the global seed, number of threads and current CUDA device.

    `directory` is the trial's, with the checkpoints of earlier attempts; `stage` is the number of short trainings that
    the trial has passed. Raises InputError where the weights are not those of the trial, or the strategy does not fit
    the backbone.
    """
    if trial.threads:
        torch.set_num_threads(trial.threads)
    if where.type == "cuda":
        torch.cuda.set_device(where)  # CUDA graphs are recorded there
    memory.keep_memory()
    torch.manual_seed(trial.seed)
    expects = of_trial(trial, images.info)
    saved = checkpoint.load(directory)
    earlier = saved.numbers if saved is not None else {}
    if saved is not None and (saved.numbers.get("stage", 0) != stage or "tally" not in saved.numbers):
        saved = None  # of a shorter training: this one begins anew
    state = None if saved is None else checkpoint.model_state(saved)
    assembled = assembly.assemble(trial, expects, len(images.info.classes), results, state)
    used = assembled.provenance.sha256 if assembled.provenance is not None else None
    if saved is not None and saved.numbers.get("weights", used) != used:  # the frozen weights, which it leaves out
        saved = None
        assembled = assembly.assemble(trial, expects, len(images.info.classes), results)
    model = assembled.model.to(where)
    teacher = None
    if trial.teacher is not None:
        teacher = load_teacher(trial.teacher, expects, len(images.info.classes), results).to(where)
        memory.channels_last(teacher)
    keep_frozen = None
    if isinstance(trial.strategy, HeadOnly | Int8):
        model.requires_grad_(False)
        precision = torch.float32
        if isinstance(trial.strategy, HeadOnly):
            precision = device.precision(trial.recipe.precision, where, model, training=False)
    else:
        keep_frozen = strategies.freeze(trial.strategy, model, trial.seed)
        precision = yield from _training_precision(trial, where, assembled, len(images.train), earlier)
    return Setup(
        trial=trial,
        device=where,
        images=images,
        model=model,
        expects=assembled.expects,
        weights=assembled.provenance,
        teacher=teacher,
        precision=precision,
        keep_frozen=keep_frozen,
        saved=saved,
        earlier=earlier,
    )


def _training_precision(
    trial: Trial, where: torch.device, assembled: Assembled, images: int, earlier: dict[str, Any]
) -> Generator[Measuring, object, torch.dtype]:
    """That of the earlier attempt, or else what the recipe says or measuring finds."""
    if "precision" in earlier:
        return device.DTYPES[earlier["precision"]]
    expects = assembled.expects
    what = f"{trial.backbone} at {expects.size} px, {trial.strategy.kind}"
    trained_on = images * trial.recipe.epochs
    work = autotune.precision(trial.recipe.precision, where, assembled.model, expects.shape, what, trained_on)
    return (yield from announced(work, Measuring(what="which precision is fastest")))
