"""What a training step learns from: mixed images, the labels of both, and how much each counts in the loss."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from suite.spec import Augment, Distill
from suite.training.evaluation import at_least_float32

Batch = tuple[Tensor, ...]
"""Inputs (B, ...) and labels (B,); where images are mixed or classes weighted also the labels of the images that are
mixed in, (B,), and the weights in the loss of both labels, (B, 2)."""

KNOTS = 1025  # of the quantile function of a Beta distribution


def mixed(inputs: Tensor, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each image (B, C, H, W) with the one before it in the batch, whose order is random.

    Mixup (Zhang et al., 2018, arXiv:1710.09412) averages both; CutMix (Yun et al., 2019, arXiv:1905.04899) replaces a
    rectangle. With both on, each image draws one of them. Returns the mixed images, and the share (B,) of each that is
    its own: for CutMix exactly the proportion of its pixels.
    """
    count, _, height, width = inputs.shape
    draw = torch.rand(4, count, device=inputs.device, generator=generator)
    cuts = draw[0] < (0.0 if not augment.cutmix else 0.5 if augment.mixup else 1.0)
    averaged = _beta(draw[1], augment.mixup or 1.0)
    side = (1 - _beta(draw[1], augment.cutmix or 1.0)).sqrt()
    rows, columns = _span(draw[2], side, height), _span(draw[3], side, width)
    outside = ~(rows[:, :, None] & columns[:, None, :])  # (B, H, W): the pixels that an image keeps under CutMix
    kept = torch.where(cuts[:, None, None], outside, averaged[:, None, None])[:, None].to(inputs.dtype)
    share = torch.where(cuts, 1 - (rows.sum(1) * columns.sum(1)) / (height * width), averaged)
    return torch.lerp(partners(inputs), inputs, kept), share


def partners(values: Tensor) -> Tensor:
    """Images or labels (B, ...) of what `mixed` mixes in."""
    return values.roll(1, 0)


def _span(centre: Tensor, side: Tensor, pixels: int) -> Tensor:
    """Which pixels of one axis a rectangle covers, cut off at the borders: (B, pixels) bool."""
    at = torch.arange(pixels, device=centre.device)
    low = ((centre - side / 2) * pixels).round()
    high = ((centre + side / 2) * pixels).round()
    return (at >= low[:, None]) & (at < high[:, None])


def _beta(uniform: Tensor, alpha: float) -> Tensor:
    """Samples of Beta(alpha, alpha) from samples (B,) of the uniform distribution, by the inverse of its CDF.

    torch's own sampler takes no generator.
    """
    knots = _quantiles(alpha, uniform.device)
    place = uniform * (KNOTS - 1)
    index = place.long().clamp(max=KNOTS - 2)
    return torch.lerp(knots[index], knots[index + 1], place - index)


@lru_cache(maxsize=16)
def _quantiles(alpha: float, device: torch.device) -> Tensor:
    from scipy.special import betaincinv  # here, since few recipes need it and every worker would import it

    levels = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, levels.numpy())).float().to(device)


def class_weights(labels: Tensor) -> Tensor:
    """Weight of each class in the loss, in inverse proportion to its number of images; their mean over `labels` is 1.

    0 for a class without images.
    """
    counts = torch.bincount(labels)
    weights = len(labels) / (counts.clamp(min=1) * (counts > 0).sum())
    return torch.where(counts > 0, weights, 0.0)


def balanced_order(labels: Tensor, seed: int) -> Tensor:
    """An epoch (N,) of indices into `labels` (N,) in which all classes are as frequent as each other.

    Each class has N / classes places; what remains of N goes to random classes, one place each. A class with fewer
    images repeats all of them equally often, with a difference of at most one; of one with more images a random part
    is taken. It depends on `labels` and `seed` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    total = len(labels)
    shuffled = torch.randperm(total, generator=generator)
    found = labels.cpu()[shuffled]
    counts = [count for count in torch.bincount(found).tolist() if count]
    share, rest = divmod(total, len(counts))
    extra = torch.randperm(len(counts), generator=generator) < rest
    classes = shuffled[found.argsort(stable=True)].split(counts)
    chosen = [
        rows[torch.arange(share + more) % len(rows)] for rows, more in zip(classes, extra.long().tolist(), strict=True)
    ]
    return torch.cat(chosen)[torch.randperm(total, generator=generator)]


def mean_loss(scores: Tensor, targets: Batch, smoothing: float) -> Tensor:
    """Mean cross-entropy of class scores (B, classes), with label smoothing.

    `targets` are a batch without its inputs.
    """
    if len(targets) == 1:
        return F.cross_entropy(at_least_float32(scores), targets[0], label_smoothing=smoothing)
    return image_losses(scores, targets, smoothing).mean()


def distilled(loss: Tensor, scores: Tensor, answers: Tensor, settings: Distill) -> Tensor:
    """The loss of the labels, with the teacher's part as `settings` say; scores and answers are (B, classes)."""
    student, teacher = (F.log_softmax(at_least_float32(s) / settings.temperature, 1) for s in (scores, answers))
    apart = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return torch.lerp(loss, settings.temperature**2 * apart, settings.weight)


def image_losses(scores: Tensor, targets: Batch, smoothing: float) -> Tensor:
    """Cross-entropy (B,) of each image, see `mean_loss`."""
    scores = at_least_float32(scores)
    own = F.cross_entropy(scores, targets[0], label_smoothing=smoothing, reduction="none")
    if len(targets) == 1:
        return own
    _, mixed_in, weights = targets
    other = F.cross_entropy(scores, mixed_in, label_smoothing=smoothing, reduction="none")
    return own * weights[:, 0] + other * weights[:, 1]
