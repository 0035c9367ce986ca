"""How a model errs: confusion counts, calibration, the most confident mistakes."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from suite.ranking import statistics
from suite.training.evaluation import Examples

WORST = 16  # mistakes kept with their pixels


def errors(logits: Tensor, examples: Examples, classes: tuple[str, ...]) -> dict[str, object]:
    """How a model errs: confusion counts [label][predicted], calibration, the most confident mistakes with pixels."""
    labels = examples.labels.cpu()
    probability, predicted = logits.double().softmax(1).max(1)
    counts = torch.bincount(labels * len(classes) + predicted, minlength=len(classes) ** 2)
    bins = statistics.reliability(probability.numpy(), (predicted == labels).numpy())
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[probability[wrong].argsort(descending=True)][:WORST]
    return {
        "classes": list(classes),
        "confusion": counts.view(len(classes), len(classes)).tolist(),
        "ece": statistics.calibration_error(bins),
        "bins": [asdict(b) for b in bins],
        "worst": [
            {
                "index": int(i),
                "label": int(labels[i]),
                "predicted": int(predicted[i]),
                "probability": round(float(probability[i]), 6),
                "pixels": examples.inputs[i].float().mean(0).round().int().tolist(),
            }
            for i in worst
        ],
    }
