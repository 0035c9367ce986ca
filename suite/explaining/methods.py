"""Attribution maps: how much each pixel of an input speaks for a class. captum computes them.

The score that is explained is the class's logit. Maps are (size, size) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.errors import InputError
from suite.explaining import layers
from suite.spec import Method

FEWEST_STEPS, MOST_STEPS = 32, 2048  # of integrated gradients

WINDOWS = 8  # of occlusion, side by side across an input

GRADIENT_SHARE = 8  # a pass that keeps its activations takes about so many times the memory of one without gradients


class Question(NamedTuple):
    """One input, the class that is asked about, and the input that stands for "nothing there"."""

    x: Tensor  # (1, C, size, size), normalised
    baseline: Tensor  # of the same shape
    target: int
    share: float  # of completeness: the largest remainder of integrated gradients, in parts of the difference
    batch: int  # inputs that may be computed together without gradients


class Map(NamedTuple):
    values: Tensor  # (size, size) float32 on the CPU
    facts: dict[str, Any]  # fields of `spec.Attribution`: steps, remainder, layer, cells, window, stride


class Unsuitable(Exception):
    """The method has no meaning for this model; the message is a sentence that says why."""


def captum() -> Any:
    """The module captum.attr. Raises InputError where it is not installed."""
    try:
        import captum.attr
    except ModuleNotFoundError:
        raise InputError("Explanations need captum: pip install 'mnist-suite[explain]'.") from None
    return captum.attr


def saliency(model: nn.Module, asked: Question) -> Map:
    """The gradient's magnitude, of colours the largest (Simonyan et al., 2014, arXiv:1312.6034)."""
    values = captum().Saliency(model).attribute(asked.x.clone().requires_grad_(), target=asked.target)
    return _map(values.amax(1))


def integrated_gradients(model: nn.Module, asked: Question) -> Map:
    """Gradients along the line from the baseline, times the difference (Sundararajan et al., 2017, arXiv:1703.01365).

    The values add up to the difference of the scores of input and baseline (completeness). Steps are doubled until they
    do within `asked.share` of it, or there are MOST_STEPS.
    """
    method = captum().IntegratedGradients(model)
    ends = score(model, torch.cat((asked.x, asked.baseline)), asked.target)
    difference = abs(float(ends[0] - ends[1]))
    steps = FEWEST_STEPS
    while True:
        values, missing = method.attribute(
            asked.x.clone().requires_grad_(),
            baselines=asked.baseline,
            target=asked.target,
            n_steps=steps,
            method="riemann_middle",  # Gauss-Legendre has to solve an eigenproblem of so many steps, for no gain here
            internal_batch_size=max(1, asked.batch // GRADIENT_SHARE),
            return_convergence_delta=True,
        )
        remainder = abs(float(missing)) / max(difference, 1e-6)
        if remainder <= asked.share or steps >= MOST_STEPS:
            return _map(values.sum(1), steps=steps, remainder=remainder)
        steps *= 2


def grad_cam(model: nn.Module, asked: Question) -> Map:
    """A layer's maps weighted by their mean gradients, positive part (Selvaraju et al., 2017, arXiv:1610.02391)."""
    layer = layers.choose(model, asked.x)
    if layer is None:
        raise Unsuitable("Grad-CAM needs a network with maps (B, C, h, w), as convolutional ones have.")
    method = captum().LayerGradCam(model, layer.module)
    values = method.attribute(asked.x.clone().requires_grad_(), target=asked.target, relu_attributions=True)
    side = asked.x.shape[-1]
    larger = F.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
    return _map(larger[:, 0], layer=layer.name, cells=layer.cells)


@torch.no_grad()
def occlusion(model: nn.Module, asked: Question) -> Map:
    """How far the score falls where a window is replaced by the baseline, averaged over the windows that cover a pixel
    (Zeiler and Fergus, 2014, arXiv:1311.2901)."""
    _, channels, side, _ = asked.x.shape
    window = max(1, round(side / WINDOWS))
    stride = max(1, window // 2)
    values = (
        captum()
        .Occlusion(model)
        .attribute(
            asked.x,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=asked.baseline,
            target=asked.target,
            perturbations_per_eval=asked.batch,
        )
    )
    return _map(values.mean(1), window=window, stride=stride)


Attribute = Callable[[nn.Module, Question], Map]

BY_METHOD: dict[Method, Attribute] = {
    "saliency": saliency,
    "integrated-gradients": integrated_gradients,
    "grad-cam": grad_cam,
    "occlusion": occlusion,
}

WITHOUT_GRADIENTS: frozenset[Method] = frozenset({"occlusion"})


@torch.no_grad()
def score(model: nn.Module, inputs: Tensor, target: int) -> Tensor:
    """The logits (B,) of a class."""
    return model(inputs)[:, target].float()


def _map(values: Tensor, **facts: Any) -> Map:
    """`values` (1, size, size)."""
    return Map(values[0].detach().float().cpu(), facts)
