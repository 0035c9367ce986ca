"""Costs: counted against hand computation and published figures."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from suite.hardware import energy, flops, latency
from suite.hardware.energy import Meter
from suite.models import backbones, strategies
from suite.spec import NormOnly, Partial

CPU = torch.device("cpu")
RANGE = 262_143_328_850  # microjoules at which a counter of Intel's starts again from 0


def built(name: str, size: int = 28, channels: int = 1) -> torch.nn.Module:
    return backbones.build(name, classes=10, channels=channels, size=size, seed=0)


def test_flops_of_the_tutorials_nets_by_hand() -> None:
    """A convolution is 2 * outputs * kernel area * input channels; the linear layers 2 * in * out."""
    cnn = 2 * (28 * 28 * 32 * 9 + 14 * 14 * 64 * 9 * 32 + 3136 * 128 + 128 * 10)
    net = 2 * (24 * 24 * 10 * 25 + 8 * 8 * 20 * 25 * 10 + 320 * 50 + 50 * 10)
    assert flops.count(built("cnn"), (1, 28, 28)).forward_flops == cnn
    assert flops.count(built("net"), (1, 28, 28)).forward_flops == net
    assert cnn == pytest.approx(8.5e6, rel=0.01)


def test_training_flops_by_hand() -> None:
    """Backward costs once more for the weights and once for the inputs, which the first layer is spared."""
    counted = flops.count(built("cnn"), (1, 28, 28))
    first = 2 * 28 * 28 * 32 * 9
    assert counted.training_flops == 3 * counted.forward_flops - first


@pytest.mark.parametrize(
    ("name", "millions", "gmacs"),
    [  # timm's own, at 224 pixels: results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv
        ("resnet18", 11.69, 1.82),
        ("resnet34", 21.80, 3.67),
        ("regnetx_004", 5.16, 0.40),
        ("convnext_atto", 3.70, 0.55),
        ("tf_efficientnet_lite0", 4.65, 0.40),  # which counts batch norm, some 4 %, as well
        ("vit_tiny_patch16_224", 5.72, 1.26),  # 1.08 where attention itself is left out
    ],
)
def test_counts_agree_with_published_figures(name: str, millions: float, gmacs: float) -> None:
    model = backbones.build(f"timm:{name}", classes=1000, channels=3, size=224, seed=0)
    counted = flops.count(model, (3, 224, 224))
    assert counted.parameters / 1e6 == pytest.approx(millions, rel=0.005)
    assert counted.forward_flops / 2e9 == pytest.approx(gmacs, rel=0.045)


def test_attention_is_counted_as_by_hand() -> None:
    """A ViT of 12 blocks, width 192, over 196 patches and a class token; biases and norms count nothing."""
    model = backbones.build("timm:vit_tiny_patch16_224", classes=10, channels=3, size=224, seed=0)
    tokens, width, depth = 197, 192, 12
    projections = 3 * width * width + width * width + 2 * width * 4 * width  # qkv, out, and both layers of the MLP
    attention = 2 * tokens * tokens * width  # q times k, then the weights times v; all heads together
    patches, classifier = 196 * 16 * 16 * 3 * width, width * 10
    counted = flops.count(model, (3, 224, 224))
    assert counted.forward_flops == 2 * (patches + depth * (tokens * projections + attention) + classifier)
    spared = 2 * patches  # the gradient of the images themselves
    assert counted.training_flops == 3 * counted.forward_flops - spared


def test_what_is_frozen_costs_no_backward() -> None:
    model = built("timm:test_efficientnet", size=32)
    full = flops.count(model, (1, 32, 32))
    strategies.freeze(Partial(blocks=1), model)
    partial = flops.count(model, (1, 32, 32))
    assert partial.parameters == full.parameters
    assert partial.trainable < full.trainable
    assert partial.forward_flops == full.forward_flops < partial.training_flops < full.training_flops
    strategies.freeze(NormOnly(), model)
    assert 0 < flops.count(model, (1, 32, 32)).trainable < full.trainable


def test_counting_leaves_the_model_alone() -> None:
    model = built("timm:test_efficientnet", size=32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flops.count(model, (1, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert next(model.parameters()).device.type == "cpu"


def test_peak_memory_sees_what_was_used_and_forgets_what_was_before() -> None:
    big = np.ones(400 * 2**20, dtype=np.uint8)
    before = Meter(CPU)
    level = before.memory()[0]
    assert before.memory()[1] == "resident set"
    del big
    meter = Meter(CPU)
    small, _ = meter.memory()
    assert small < level - 300 * 2**20
    ours = np.ones(200 * 2**20, dtype=np.uint8)
    assert meter.memory()[0] > small + 150 * 2**20
    del ours


def test_energy_is_a_figure_with_a_source_or_an_honest_none() -> None:
    meter = Meter(CPU)
    time.sleep(0.05)
    joules, source = meter.energy()
    assert (joules is None) == source.startswith(("unavailable", "unattributable"))
    assert joules is None or joules >= 0


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files in which Linux shows the energy of one processor package, with a subzone that is part of it."""
    for zone in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text("100000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    monkeypatch.setattr(energy, "ALONE", 0.0)  # other tests run beside this one
    return tmp_path / "intel-rapl:0"


def drawn(package: Path, *microjoules: int) -> tuple[float | None, str]:
    meter = Meter(CPU)
    for count in microjoules:
        time.sleep(0.01)
        (package / "energy_uj").write_text(f"{count}\n")
        meter._take()
    return meter.energy()


def test_joules_are_the_difference_of_the_counter_also_where_it_wraps(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(package, 100_500_000) == (pytest.approx(0.5), "rapl")
    (package / "energy_uj").write_text(f"{RANGE - 250_000}\n")
    assert drawn(package, 250_000, 1_250_000) == (pytest.approx(1.5), "rapl")
    assert drawn(package, 250_000_000_000) == (None, "unavailable")  # more than it can draw: it began anew
    monkeypatch.setattr(energy, "MOST_WATTS", 1e9)  # with which it may wrap round between two readings
    assert drawn(package, 250_000_000_001) == (None, "unavailable")


def test_joules_of_a_shared_processor_or_a_lost_attempt_are_nobodys(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(CPU)
    meter.add(2.5)
    assert meter.energy() == (pytest.approx(2.5), "rapl")
    meter.add(None)
    assert meter.energy() == (None, "unavailable (of an earlier attempt)")
    monkeypatch.setattr(energy, "ALONE", 0.9)
    meter = Meter(CPU)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1.0)
        other.kill()
    assert meter.energy() == (None, "unattributable (the processor is shared)")
    (package / "energy_uj").unlink()
    assert Meter(CPU).energy() == (None, "unavailable")


def test_latency_is_the_time_of_one_image() -> None:
    small = latency.latency(built("net"), (1, 28, 28), CPU)
    large = latency.latency(built("timm:resnet18", 64), (1, 64, 64), CPU)
    assert 0 < small < large
