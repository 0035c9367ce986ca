"""Whether a backbone can be trained, given a head, and saved as asked: tried without weights, on the meta device.

There tensors have shapes but no values, so the largest of timm's models are tried in seconds and take no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError, as_clause
from suite.models import backbones, classifiers, compression, heads, strategies
from suite.models.backbones import embed
from suite.models.onnx_graph import require_onnx
from suite.spec import RESHAPED, HeadOnly, Int8, LpFt, Strategy

BATCH = 2  # images of a try

T = TypeVar("T")


_answers: dict[tuple[object, ...], str | None] = {}  # of `refusal`, for the life of the process


def refusal(
    backbone: str, strategy: Strategy, *, channels: int, size: int, classes: int, single: bool = False
) -> str | None:
    """Why `backbone` cannot be trained by `strategy` on images (B, channels, size, size), in a sentence; None if it
    can.

    `single` says that batches may hold one image.
    """
    key = (backbone, repr(strategy), channels, size, classes, single)
    if key not in _answers:
        try:
            _try_out(backbone, strategy, channels, size, classes, single)
            _answers[key] = None
        except InputError as error:
            _answers[key] = str(error)
    return _answers[key]


def _try_out(backbone: str, strategy: Strategy, channels: int, size: int, classes: int, single: bool) -> None:
    backbones.exists(backbone)
    images = torch.zeros(BATCH, channels, size, size, device="meta")
    model = _tried(backbone, images, lambda: backbones.sketch(backbone, classes=classes, channels=channels, size=size))
    if strategy.kind in RESHAPED:

        def built() -> nn.Module:
            return backbones.build(backbone, classes=classes, channels=channels, size=size, seed=0)

        model = compression.tried(strategy, built, (channels, size, size)).to("meta")
    if isinstance(strategy, HeadOnly | LpFt):
        _try_head(backbone, model, strategy, images, classes)
    if isinstance(strategy, Int8):
        require_onnx()
    elif not isinstance(strategy, HeadOnly):
        _try_step(backbone, model, strategy, images, classes, single)


def _tried(backbone: str, images: Tensor, work: Callable[[], T]) -> T:
    """Raises InputError where the backbone cannot take such images. timm's models raise almost anything then."""
    try:
        return work()
    except Exception as error:
        raise InputError(
            f"The backbone {backbone} cannot take images of {images.shape[-1]} pixels with {images.shape[1]} "
            f"channel(s): {as_clause(error)}. Choose another size, or another backbone."
        ) from error


def _try_head(backbone: str, model: nn.Module, strategy: HeadOnly | LpFt, images: Tensor, classes: int) -> None:
    """Raises InputError where features cannot be computed, or the head cannot take the classifier's place."""
    spec = strategy.head if isinstance(strategy, HeadOnly) else HeadOnly().head
    model.eval()
    with torch.no_grad():
        features = _tried(backbone, images, lambda: embed(model, images))
    if isinstance(strategy, LpFt) and not classifiers.holds_linear(model):
        raise InputError(
            f"The classifier of {backbone} is no linear layer, so the one that lp-ft trains first cannot take its "
            "place. Choose the strategy full, or another backbone."
        )
    try:
        classifiers.refuse_unfit(model, spec)
    except InputError as error:
        raise InputError(f"A {spec.kind} head does not fit {backbone}. {error}") from None
    if isinstance(strategy, HeadOnly):
        probe = nn.Linear(features.shape[1], classes, device="meta")
        classifiers.attach(model, probe if heads.is_linear(spec) else nn.Sequential(probe))
        with torch.no_grad():
            _tried(backbone, images, lambda: model(images))


def _try_step(backbone: str, model: nn.Module, strategy: Strategy, images: Tensor, classes: int, single: bool) -> None:
    """Raises InputError where a step of training fails."""
    keep_frozen = strategies.freeze(strategy, model)
    model.train()
    if keep_frozen is not None:
        keep_frozen(model)
    if single and any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules()):
        raise InputError(
            f"There may be batches of one image, but {backbone} has batch norm layers, which cannot train on one "
            "image: take batches of 2 or more (--set batch_size=N), or a backbone without batch norm."
        )
    scores = _tried(backbone, images, lambda: model(images))
    if not isinstance(scores, Tensor) or scores.shape != (len(images), classes):
        raise InputError(f"The backbone {backbone} is no classifier: it does not answer with one score a class.")
    labels = torch.zeros(len(images), dtype=torch.long, device="meta")
    _tried(backbone, images, lambda: F.cross_entropy(scores, labels).backward())
