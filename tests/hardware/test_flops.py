"""Parameters and FLOPs: counted against hand computation and published figures."""

import pytest
import torch

from suite.hardware import flops
from suite.models import backbones, strategies
from suite.spec import NormOnly, Partial


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
    """The backward pass costs one forward pass for the weights and one for the inputs, except those of layer one."""
    counted = flops.count(built("cnn"), (1, 28, 28))
    first = 2 * 28 * 28 * 32 * 9
    assert counted.training_flops == 3 * counted.forward_flops - first


def test_grouped_convolutions_cost_as_much_backward_as_forward() -> None:
    """torch's own counter is off by the number of groups, here in the gradients of depthwise weights."""
    counted = flops.count(built("timm:tf_efficientnet_lite0", size=32, channels=3), (3, 32, 32))
    first = 2 * 16 * 16 * 32 * 9 * 3
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


def test_attention_flops_by_hand() -> None:
    """A ViT of 12 blocks, width 192, over 196 patches and a class token; biases and norms count nothing."""
    model = backbones.build("timm:vit_tiny_patch16_224", classes=10, channels=3, size=224, seed=0)
    tokens, width, depth = 197, 192, 12
    projections = 3 * width * width + width * width + 2 * width * 4 * width  # qkv, out, and both layers of the MLP
    attention = 2 * tokens * tokens * width  # q times k, then the weights times v; all heads together
    patches, classifier = 196 * 16 * 16 * 3 * width, width * 10
    counted = flops.count(model, (3, 224, 224))
    assert counted.forward_flops == 2 * (patches + depth * (tokens * projections + attention) + classifier)
    images = 2 * patches  # no gradient is computed for the images
    assert counted.training_flops == 3 * counted.forward_flops - images


def test_frozen_parameters_cost_no_backward_pass() -> None:
    model = built("timm:test_efficientnet", size=32)
    full = flops.count(model, (1, 32, 32))
    strategies.freeze(Partial(blocks=1), model)
    partial = flops.count(model, (1, 32, 32))
    assert partial.parameters == full.parameters
    assert partial.trainable < full.trainable
    assert partial.forward_flops == full.forward_flops < partial.training_flops < full.training_flops
    strategies.freeze(NormOnly(), model)
    assert 0 < flops.count(model, (1, 32, 32)).trainable < full.trainable


def test_counting_leaves_the_model_unchanged() -> None:
    model = built("timm:test_efficientnet", size=32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flops.count(model, (1, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert next(model.parameters()).device.type == "cpu"
