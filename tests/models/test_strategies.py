"""One contract over every strategy: what it trains, and that nothing else changes."""

from typing import get_args

import pytest
import torch

from suite.errors import InputError
from suite.models import backbones
from suite.models.strategies import TRAINED, freeze, layer_scales, trained_names
from suite.spec import Bitfit, HeadOnly, Int8, NormOnly, Partial, Strategy
from suite.spec.recipe import Full

GRADIENT_STRATEGIES = [kind for kind in get_args(get_args(Strategy)[0]) if kind not in (HeadOnly, Int8)]


def small(name: str = "lean-m") -> torch.nn.Module:
    return backbones.build(name, classes=10, channels=1, size=28, seed=0)


def test_every_strategy_that_trains_the_backbone_has_an_entry() -> None:
    assert set(TRAINED) == set(GRADIENT_STRATEGIES)


@pytest.mark.parametrize("kind", GRADIENT_STRATEGIES, ids=lambda kind: kind.__name__)
def test_a_strategy_trains_the_classifier_and_freezes_all_that_it_does_not_name(kind: type) -> None:
    model, strategy = small(), kind()
    freeze(strategy, model)
    names = trained_names(strategy, model)
    assert backbones.classifier_parameters(model) <= names <= {name for name, _ in model.named_parameters()}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == names


def test_partial_trains_the_last_blocks() -> None:
    blocks = backbones.blocks(small())
    assert trained_names(Partial(blocks=2), small()) == {name for block in blocks[-3:] for name in block}
    with pytest.raises(InputError, match="has only"):
        trained_names(Partial(blocks=100), small())


def test_norm_only_and_bitfit_train_norms_and_biases() -> None:
    classifier = backbones.classifier_parameters(small())
    norms, biases = trained_names(NormOnly(), small()) - classifier, trained_names(Bitfit(), small()) - classifier
    assert norms and all(".norm." in name for name in norms)
    assert biases and all(name.endswith(".bias") for name in biases)
    with pytest.raises(InputError, match="normalisation layers"):
        trained_names(NormOnly(), small("cnn"))


def test_statistics_of_frozen_batch_norm_do_not_change() -> None:
    model = small()
    freeze_statistics = freeze(Partial(blocks=1), model)
    assert freeze_statistics is not None
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    freeze_statistics(model)
    model(torch.rand(4, 1, 28, 28))
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert freeze(Full(), model) is None


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "lean-s",
        "timm:tf_efficientnet_lite0",
        "timm:resnet10t",
        "timm:mobilenetv3_small_050",
        "timm:convnext_atto",
        "timm:vit_tiny_patch16_224",
        "timm:deit_tiny_distilled_patch16_224",
        "timm:swin_s3_tiny_224",
        "timm:regnety_002",
    ],
)
def test_layer_decay_has_one_scale_for_every_parameter(name: str) -> None:
    """1 for the classifier, the smallest for the first block, and never smaller in a later block than in an earlier."""
    size = 28 if not name.startswith("timm:") else 224 if "_224" in name else 32
    model = backbones.build(name, classes=3, channels=3, size=size, seed=0)
    scales, blocks = layer_scales(model, 0.75), backbones.blocks(model)
    assert sorted(scales) == sorted(name for name, _ in model.named_parameters())
    assert sorted(name for block in blocks for name in block) == sorted(scales)
    assert {scales[name] for name in backbones.classifier_parameters(model)} == {1.0}
    by_block = [{scales[name] for name in block} for block in blocks]
    assert all(len(values) == 1 for values in by_block)
    order = [values.pop() for values in by_block]
    assert order == [0.75**k for k in reversed(range(len(blocks)))] and order[0] == min(order) < 1
    assert layer_scales(model, 1.0) == {}
