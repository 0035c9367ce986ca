"""Low-rank adaptation: which weights have factors, what is trained, and that merging changes no answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.errors import InputError
from suite.hardware import flops
from suite.models import backbones, lora
from suite.models.strategies import freeze, trained_names
from suite.spec import Lora

LITE, VIT = "timm:test_efficientnet", "timm:test_vit"
CASES = [
    ("cnn", {}),
    ("lean-m", {"rank": 1, "alpha": 3.0, "layers": "conv"}),
    (LITE, {"rank": 4}),
    (LITE, {"layers": "pointwise", "norms": False}),
    (VIT, {"layers": "attention", "rank": 4}),
]


def build(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    size = 28 if not name.startswith("timm:") else 160 if "vit" in name else 32
    return backbones.build(name, classes=10, channels=1, size=size, seed=0), (1, size, size)


def adapted(name: str, **values: Any) -> tuple[nn.Module, tuple[int, int, int]]:
    """A model whose factors change its weights."""
    model, shape = build(name)
    freeze(Lora(**values), model, seed=1)
    for path, parameter in model.named_parameters():
        if path.endswith(".b"):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(2))
    return model.eval(), shape


@torch.no_grad()
def answers(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    return model.eval()(torch.rand(4, *shape, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize(("name", "values"), CASES, ids=[f"{name}-{values}" for name, values in CASES])
def test_merging_changes_no_answer_and_leaves_the_plain_architecture(name: str, values: dict[str, Any]) -> None:
    model, shape = adapted(name, **values)
    plain, _ = build(name)
    before = answers(plain, shape)
    whole = lora.merged(model)
    assert not torch.allclose(answers(model, shape), before)
    assert torch.equal(answers(whole, shape), answers(model, shape))
    plain.load_state_dict(whole.state_dict())
    assert torch.equal(answers(plain, shape), answers(model, shape))
    assert repr(whole) == repr(plain) and lora.merged(whole) is whole


@pytest.mark.parametrize(("name", "values"), CASES, ids=[f"{name}-{values}" for name, values in CASES])
def test_training_begins_at_the_given_weights_and_the_frozen_ones_stay(name: str, values: dict[str, Any]) -> None:
    (model, shape), (plain, _) = build(name), build(name)
    freeze(Lora(**values), model, seed=1)
    assert torch.equal(answers(model, shape), answers(plain, shape))
    before = {path: p.detach().clone() for path, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # A has no gradient until B has left zero
        nn.functional.cross_entropy(model.train()(torch.rand(4, *shape)), torch.arange(4)).backward()
        optimizer.step()
    changed = {path for path, p in model.named_parameters() if not torch.equal(p, before[path])}
    trained = trained_names(Lora(**values), model)
    assert changed <= trained and {path for path in trained if path.endswith((".a", ".b"))} <= changed
    assert all(p.grad is None for path, p in model.named_parameters() if path not in trained)


def factored(layers: str, name: str, rank: int = 4) -> dict[str, nn.Module]:
    model, _ = build(name)
    freeze(Lora.model_validate({"layers": layers, "rank": rank}), model)
    return {path: layer for path, layer in model.named_modules() if hasattr(layer, "parametrizations")}


def test_the_layers_that_are_named_have_factors() -> None:
    convolutions = [path for path, layer in build(LITE)[0].named_modules() if isinstance(layer, nn.Conv2d)]
    pointwise = factored("pointwise", LITE)
    assert pointwise and all(layer.weight.shape[2:] == (1, 1) for layer in pointwise.values())
    assert set(pointwise) < set(factored("all", LITE)) == set(factored("conv", LITE)) <= set(convolutions)
    attention, linear = factored("attention", VIT), factored("linear", VIT)
    assert {path.split(".")[-1] for path in attention} == {"qkv", "proj"}
    assert {path.split(".")[-1] for path in linear} == {"qkv", "proj", "fc1", "fc2"}
    assert not {"head", "classifier"} & {*linear, *factored("all", LITE)}
    with pytest.raises(InputError, match=r"strategy\.layers=attention"):
        factored("attention", LITE)


def test_a_weight_no_larger_than_its_factors_is_trained_whole() -> None:
    """A 3x3 depthwise weight (C, 1, 3, 3) has 9 C numbers, its factors rank * (C + 9)."""
    model, _ = build(LITE)
    depthwise = {path for path, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert depthwise <= set(factored("all", LITE, rank=1)) and not depthwise & set(factored("all", LITE, rank=9))
    freeze(Lora(rank=9), model)
    assert {f"{path}.weight" for path in depthwise} <= trained_names(Lora(rank=9), model)


def test_a_weight_that_several_layers_share_stays_frozen() -> None:
    model, _ = build(VIT)
    first, second = (block.attn.proj for block in list(model.blocks)[:2])  # type: ignore[attr-defined]
    second.weight = first.weight
    freeze(Lora(layers="attention"), model)
    assert not hasattr(first, "parametrizations") and not first.weight.requires_grad


def test_factors_depend_on_the_seed_alone() -> None:
    def drawn(seed: int) -> Tensor:
        model, _ = build("cnn")
        torch.rand(1)
        freeze(Lora(), model, seed)
        return model.get_parameter("hidden.parametrizations.weight.0.a")

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_cost_is_that_of_the_merged_model_and_of_training_the_factors() -> None:
    """Training `cnn` by factors: the products of its three weights' factors come once a step to what training them
    costs; the batch has one image here, so they count in full."""
    model, shape = adapted("cnn", rank=2, norms=False)
    plain = flops.count(build("cnn")[0], shape)
    counted = lora.counted(model, shape, 1)
    sizes = [(32, 9), (64, 9 * 32), (128, 3136)]
    products = sum(6 * 2 * rows * columns for rows, columns in sizes)
    assert (counted.parameters, counted.forward_flops) == (plain.parameters, plain.forward_flops)
    assert counted.training_flops == plain.training_flops + products
    assert lora.counted(model, shape, 64).training_flops == plain.training_flops + products // 64
    assert counted.trainable == sum(2 * (rows + columns) for rows, columns in sizes) + 1290
    assert lora.counted(build("cnn")[0], shape, 1) == plain
