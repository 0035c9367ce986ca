"""Evaluation in batches that keep within a bound of memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from suite.models import backbones, features
from suite.models.preprocessing import evaluation_preparer, preprocess
from suite.training.evaluation import Examples, Scores, evaluate

CPU = torch.device("cpu")


def batches(name: str, size: int, images: int, *, extracted: bool) -> tuple[list[int], Scores | None, nn.Module]:
    """The batch sizes in which `images` of 28 pixels are evaluated, or features of them extracted."""
    expects = preprocess(name, channels=1, native_size=28, mean=(0.1,), std=(0.3,), size=size, pretrained=False)
    model = backbones.build(name, classes=10, channels=1, size=size, seed=0)
    pixels = torch.randint(0, 256, (images, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])) if given[0].is_cpu else None)
    if extracted:
        for _ in features.extract(model, pixels, expects, torch.float32):
            pass
        return seen, None, model
    data = Examples(pixels, torch.zeros(images, dtype=torch.long))
    return seen, evaluate(model, data, evaluation_preparer(expects, CPU), CPU, torch.float32), model


@pytest.mark.parametrize("extracted", [False, True])
def test_small_networks_keep_their_batches(extracted: bool) -> None:
    expected = [128, 128, 44] if extracted else [250, 50]
    assert batches("lean-m", 28, 300, extracted=extracted)[0] == expected


@pytest.mark.parametrize("extracted", [False, True])
def test_large_images_are_evaluated_in_small_batches(extracted: bool) -> None:
    sizes, _, _ = batches("timm:resnet18", 224, 45, extracted=extracted)
    assert sum(sizes) == 45
    assert max(sizes) < 45


def test_the_batches_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    from suite.hardware import activations

    _, whole, _ = batches("lean-m", 28, 40, extracted=False)
    monkeypatch.setitem(activations.EVALUATION_BYTES, "cpu", 1 << 20)
    sizes, parts, _ = batches("lean-m", 28, 40, extracted=False)
    assert whole is not None and parts is not None and max(sizes) < 40
    torch.testing.assert_close(parts.logits, whole.logits)
    assert parts.accuracy == whole.accuracy
