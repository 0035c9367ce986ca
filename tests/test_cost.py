"""Costs: counted against hand computation and published figures."""

import time

import numpy as np
import pytest
import torch

from suite import backbones, cost, models
from suite.spec import NormOnly, Partial

CPU = torch.device("cpu")


def built(name: str, size: int = 28, channels: int = 1) -> torch.nn.Module:
    return backbones.build(name, classes=10, channels=channels, size=size, seed=0)


def test_flops_of_the_tutorials_nets_by_hand() -> None:
    """A convolution is 2 * outputs * kernel area * input channels; the linear layers 2 * in * out."""
    cnn = 2 * (28 * 28 * 32 * 9 + 14 * 14 * 64 * 9 * 32 + 3136 * 128 + 128 * 10)
    net = 2 * (24 * 24 * 10 * 25 + 8 * 8 * 20 * 25 * 10 + 320 * 50 + 50 * 10)
    assert cost.count(built("cnn"), (1, 28, 28)).forward_flops == cnn
    assert cost.count(built("net"), (1, 28, 28)).forward_flops == net
    assert cnn == pytest.approx(8.5e6, rel=0.01)


def test_training_flops_by_hand() -> None:
    """Backward costs once more for the weights and once for the inputs, which the first layer is spared."""
    counted = cost.count(built("cnn"), (1, 28, 28))
    first = 2 * 28 * 28 * 32 * 9
    assert counted.training_flops == 3 * counted.forward_flops - first


@pytest.mark.parametrize(
    ("name", "size", "channels", "millions", "gmacs"),
    [  # parameters and multiply-adds as published for ImageNet's 1000 classes
        ("timm:resnet18", 224, 3, 11.69, 1.82),
        ("timm:tf_efficientnet_lite0", 224, 3, 4.65, 0.40),  # which counts batch norm, some 4 %, as well
        ("timm:vit_tiny_patch16_224", 224, 3, 5.72, 1.26),  # 1.08 where attention itself is left out
    ],
)
def test_counts_agree_with_published_figures(
    name: str, size: int, channels: int, millions: float, gmacs: float
) -> None:
    model = backbones.build(name, classes=1000, channels=channels, size=size, seed=0)
    counted = cost.count(model, (channels, size, size))
    assert counted.parameters / 1e6 == pytest.approx(millions, rel=0.005)
    assert counted.forward_flops / 2e9 == pytest.approx(gmacs, rel=0.045)


def test_what_is_frozen_costs_no_backward() -> None:
    model = built("timm:test_efficientnet", size=32)
    full = cost.count(model, (1, 32, 32))
    models.freeze(Partial(blocks=1), model)
    partial = cost.count(model, (1, 32, 32))
    assert partial.parameters == full.parameters
    assert partial.trainable < full.trainable
    assert partial.forward_flops == full.forward_flops < partial.training_flops < full.training_flops
    models.freeze(NormOnly(), model)
    assert 0 < cost.count(model, (1, 32, 32)).trainable < full.trainable


def test_counting_leaves_the_model_alone() -> None:
    model = built("timm:test_efficientnet", size=32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cost.count(model, (1, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert next(model.parameters()).device.type == "cpu"


def test_peak_memory_sees_what_was_used_and_forgets_what_was_before() -> None:
    big = np.ones(400 * 2**20, dtype=np.uint8)
    before = cost.Meter(CPU)
    level = before.memory()[0]
    assert before.memory()[1] == "resident set"
    del big
    meter = cost.Meter(CPU)
    small, _ = meter.memory()
    assert small < level - 300 * 2**20
    ours = np.ones(200 * 2**20, dtype=np.uint8)
    assert meter.memory()[0] > small + 150 * 2**20
    del ours


def test_energy_is_a_figure_with_a_source_or_an_honest_none() -> None:
    meter = cost.Meter(CPU)
    time.sleep(0.05)
    joules, source = meter.energy()
    assert (joules is None) == (source == "unavailable")
    assert joules is None or joules >= 0


def test_latency_is_the_time_of_one_image() -> None:
    small = cost.latency(built("net"), (1, 28, 28), CPU)
    large = cost.latency(built("timm:resnet18", 64), (1, 64, 64), CPU)
    assert 0 < small < large < 1
