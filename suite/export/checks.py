"""What is checked of an export before it is published.

The model is read back in every way that its card promises and compared with the trained model, on validation pictures
where they are on this machine, else on random ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.data import cache
from suite.data.datasets import search_splits, validation_files
from suite.data.inspection import in_parallel
from suite.data.pictures import plain_picture, stored_picture
from suite.data.registry import is_own
from suite.errors import InputError, WorkError
from suite.export.card import Agreement
from suite.export.loading import load
from suite.export.predict import batch_size
from suite.models.preprocessing import evaluation_preparer
from suite.spec import Preprocess, Trial

if TYPE_CHECKING:
    from PIL.Image import Image

COMPARED = 64  # pictures, of timm's transform with ours

READ_BACK = 8  # of them, of a model that is read back with the trained one

TOLERANCE = 2e-4  # of a logit that is read back, relative to the largest one; kernels round by the memory format

CPU = torch.device("cpu")

EQUAL = 0.995  # proportion of labels that timm's transform has to give alike


@dataclass(frozen=True)
class Pictures:
    """Pictures to compare models on."""

    stored: Tensor  # (N, C, stored, stored) uint8
    plain: Callable[[int], Image] | None  # what timm's transform starts from, by position; None: random pictures


def pictures(trial: Trial, expects: Preprocess) -> Pictures:
    """At most COMPARED of the trial's validation pictures, spread over them; random ones where they are not there.

    Nothing is fetched. Pictures that have changed since the trial count as gone.
    """
    found = _own_pictures(trial, expects) if is_own(trial.dataset) else _of_data_set(trial)
    if found is not None:
        return found
    generator = torch.Generator().manual_seed(0)
    shape = (COMPARED, expects.channels, expects.stored, expects.stored)
    return Pictures(torch.randint(256, shape, generator=generator, dtype=torch.uint8), None)


def _own_pictures(trial: Trial, expects: Preprocess) -> Pictures | None:
    try:
        files, _, data_hash = validation_files(trial.dataset, limit=trial.limit)
        if data_hash != trial.data_hash:
            return None
        chosen = [files[i] for i in _spread(len(files))]
        stored = list(in_parallel(lambda path: stored_picture(path, expects), chosen))
    except (InputError, OSError):
        return None
    return Pictures(torch.from_numpy(np.stack(stored)), lambda i: plain_picture(chosen[i], expects.view()))


def _of_data_set(trial: Trial) -> Pictures | None:
    from PIL import Image

    if any(status.state != "ok" for status in cache.verify(trial.dataset, quick=True)[:2]):  # the training part
        return None
    images = search_splits(trial.dataset, limit=trial.limit).validation.images
    stored = images[_spread(len(images))]
    return Pictures(torch.from_numpy(stored), lambda i: Image.fromarray(stored[i].transpose(1, 2, 0).squeeze()))


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, COMPARED).round().astype(int))


def check(folder: Path, model: nn.Module, expects: Preprocess, stored: Tensor, *, timm_loads: bool) -> Tensor:
    """Load the folder in every way that its card promises, and compare the logits.

    Returns the logits (N, classes) of the trained model. Raises WorkError where others differ.
    """
    prepare = evaluation_preparer(expects, CPU)
    inputs = prepare(stored)
    expected = _logits(model, inputs, expects)
    loaders: dict[str, Callable[[], nn.Module]] = {"suite.export.load": lambda: load(folder)}
    if timm_loads:
        loaders["timm.create_model"] = lambda: _by_timm(folder)
    for name, load_model in loaders.items():
        logits, same = _logits(load_model(), inputs[:READ_BACK], expects), expected[:READ_BACK]
        worst = (logits - same).abs().max().item()
        if not worst <= TOLERANCE * max(1.0, same.abs().max().item()):
            raise WorkError(f"The export was not published: read back by {name}, logits differ by up to {worst:.2g}.")
    return expected


def agreement(folder: Path, given: Pictures, expected: Tensor, expects: Preprocess) -> Agreement | None:
    """How timm's own transform and model agree with the trained model; None for random pictures."""
    if given.plain is None:
        return None
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    model = _by_timm(folder)
    transform: Any = create_transform(**resolve_model_data_config(model))
    inputs = torch.stack([transform(given.plain(i)) for i in range(len(expected))])
    logits = _logits(model, inputs, expects)
    return Agreement(
        pictures=len(expected),
        equal=(logits.argmax(1) == expected.argmax(1)).double().mean().item(),
        logits=(logits - expected).abs().max().item(),
    )


def _by_timm(folder: Path) -> nn.Module:
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True)


@torch.inference_mode()
def _logits(model: nn.Module, inputs: Tensor, expects: Preprocess) -> Tensor:
    model.eval()
    return torch.cat([model(part) for part in inputs.split(batch_size(expects, CPU))])
