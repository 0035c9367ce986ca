"""Memory of activations, and the batch sizes that follow from it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from suite.hardware.activations import evaluation_batch, largest_batch, peak_bytes
from suite.models import backbones

CPU = torch.device("cpu")


def built(name: str, size: int, channels: int) -> nn.Module:
    return backbones.build(name, classes=10, channels=channels, size=size, seed=0)


def test_tensors_that_live_at_the_same_time_are_counted() -> None:
    model = nn.Sequential(nn.Linear(100, 1000), nn.ReLU(), nn.Linear(1000, 10), nn.ReLU())
    assert peak_bytes(model, (100,)) == (4 * (100 + 1000 + 1000), 0)  # the input, and both sides of the ReLU
    each, once = peak_bytes(model, (100,), training=True)
    assert each >= 4 * (100 + 1000 + 10)  # kept for the backward pass
    assert once >= 4 * sum(p.numel() for p in model.parameters())  # the gradients
    assert all(p.device == CPU and p.grad is None for p in model.parameters())


def test_counting_leaves_the_model_as_it_is() -> None:
    model = built("lean-m", 28, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    peak_bytes(model, (1, 28, 28), training=True)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_small_networks_are_evaluated_in_whole_batches(name: str) -> None:
    model = built(name, 28, 1)
    assert evaluation_batch(model, (1, 28, 28), CPU, most=250) == 250
    assert evaluation_batch(model, (1, 28, 28), torch.device("cuda"), most=2000) == 2000


def test_a_batch_keeps_within_its_bound_and_shrinks_as_images_grow() -> None:
    sizes = []
    for size in (64, 128, 224):
        model = built("timm:resnet18", size, 3)
        each, once = peak_bytes(model, (3, size, size))
        sizes.append(evaluation_batch(model, (3, size, size), CPU, most=250))
        assert each * sizes[-1] + once <= 256 << 20
    assert 250 == sizes[0] > sizes[1] > sizes[2] > 16


def test_a_model_that_exceeds_the_bound_with_one_image_takes_one() -> None:
    assert largest_batch(nn.Linear(10, 1000), (10,), most=64, within=1000) == 1
