"""Heads in the place of classifiers; tests/timm_contract.py tries them on all architectures."""

from __future__ import annotations

import torch
from torch import nn

from suite.models import backbones, classifiers


def test_an_auxiliary_classifier_adds_nothing_to_the_scores_of_a_head() -> None:
    """VOLO adds the largest scores of a second layer, which `get_classifier` does not name, to those of the first."""
    model = backbones.build("timm:volo_d1_224", classes=3, channels=1, size=32, seed=0).eval()
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = backbones.embed(model, images)
        head = nn.Linear(features.shape[1], 3)
        expected = head(features)
        assert torch.allclose(classifiers.attach(model, head)(images), expected, atol=1e-5)
    classifiers.zero(model)
    with torch.inference_mode():
        assert not model(images).any()
