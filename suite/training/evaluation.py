"""Evaluation of a model on labelled examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.hardware.activations import evaluation_batch
from suite.models.streaming import Streamed


@dataclass(frozen=True)
class Examples:
    """Inputs and labels, both on the device that computes with them.

    inputs: (N, C, H, W) uint8 images, or (N, D) float32 features; images that are too many for the memory are read
    when they are asked for. labels: (N,) int64.
    """

    inputs: Tensor | Streamed
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def features(self) -> Tensor:
        """`inputs` of frozen features, which are always in memory."""
        assert isinstance(self.inputs, Tensor)
        return self.inputs


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation."""

    accuracy: float
    loss: float  # mean cross-entropy
    logits: Tensor  # (N, classes) float32, on the CPU


def at_least_float32(scores: Tensor) -> Tensor:
    """`scores` in float32 if they have a shorter type: the softmax needs the precision."""
    return scores if scores.dtype == torch.float64 else scores.float()


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Examples, prepare: Callable[[Tensor], Tensor], device: torch.device, dtype: torch.dtype
) -> Scores:
    """Accuracy and mean cross-entropy over all of `data`, under autocast to `dtype`. Puts the model into evaluation
    mode."""
    model.eval()
    shape = tuple(prepare(data.inputs[:1]).shape[1:])
    most = 250 if device.type == "cpu" else 2000  # on a CPU, activations of 250 small images fit the caches
    batch = evaluation_batch(model, shape, device, most=most)
    parts: list[Tensor] = []
    for start in range(0, len(data), batch):
        inputs = prepare(data.inputs[start : start + batch])
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts.append(model(inputs).float())
    logits = torch.cat(parts)
    accuracy = int((logits.argmax(1) == data.labels).sum()) / len(data)
    loss = F.cross_entropy(logits, data.labels).item()
    return Scores(accuracy, loss, logits.cpu())
