"""Inference latency."""

import torch
from torch import nn

from suite.hardware import latency
from suite.hardware.flops import Counted
from suite.models import backbones
from suite.spec import Caps

CPU = torch.device("cpu")


def built(name: str, size: int = 28) -> torch.nn.Module:
    return backbones.build(name, classes=10, channels=1, size=size, seed=0)


def test_latency_is_the_time_of_one_image() -> None:
    small = latency.latency(built("net"), (1, 28, 28), CPU)
    large = latency.latency(built("timm:resnet18", 64), (1, 64, 64), CPU)
    assert 0 < small < large


def test_a_batch_of_256_is_not_measured_where_it_would_take_long() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    assert 0 < (latency.latency_256(model, (1, 3, 3), CPU, one=1e-5) or 0) < 1
    assert latency.latency_256(model, (1, 3, 3), CPU, one=0.2) is None


def test_an_exceeded_cap_is_named_and_latency_is_measured_only_if_it_is_capped() -> None:
    counted = Counted(parameters=1000, trainable=10, forward_flops=5000, training_flops=9000)
    measured: list[float] = []

    def message(caps: Caps | None) -> str | None:
        def measure() -> float:
            measured.append(0.002)
            return 0.002

        return latency.exceeded_cap(caps, counted, measure)

    assert message(None) is None
    assert message(Caps(flops=5000, params=1000)) is None
    assert "5,000 FLOPs an image, 4,999" in (message(Caps(flops=4999, latency=0.001)) or "")
    assert "1,000 parameters" in (message(Caps(params=999, latency=0.001)) or "")
    assert measured == []
    assert "2 ms for one image, 1 ms" in (message(Caps(latency=0.001)) or "")
    assert message(Caps(latency=0.003)) is None
    assert measured == [0.002, 0.002]
