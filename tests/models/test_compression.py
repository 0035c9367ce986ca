"""Models made smaller: how small, what they still compute, and rebuilding them from the shapes of their state dict."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from suite.errors import InputError
from suite.models import compression
from suite.models.backbones import build, embed, embed_size, unfilled
from suite.models.feasibility import refusal
from suite.models.shapes import LowRank, fit_shapes, load_reshaped
from suite.spec import LowRank as LowRankSpec
from suite.spec import Prune

pruning = pytest.mark.skipif(
    not compression.can_prune(), reason="Torch-Pruning, of the extra `compress`, is not installed"
)
KINDS = [pytest.param(Prune(keep=0.2), marks=pruning), LowRankSpec(rank=0.2)]
IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def trained(name: str = "lean-s") -> nn.Module:
    return build(name, classes=10, channels=1, size=28, seed=0)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("strategy", KINDS, ids=lambda strategy: strategy.kind)
def test_a_compressed_model_is_rebuilt_from_its_state_dict(strategy: Prune | LowRankSpec) -> None:
    model = trained()
    compression.compress(strategy, model, (1, 28, 28))
    assert model.training and count(model) < 0.5 * count(trained())
    rebuilt = unfilled("lean-s", classes=10, channels=1, size=28)
    load_reshaped(rebuilt, model.state_dict(), "a file")
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(IMAGES), model.eval()(IMAGES))
        assert embed(rebuilt, IMAGES).shape == (3, embed_size(rebuilt))
    assert repr(rebuilt) == repr(model)
    for wrong in ({"classes": 3, "channels": 1}, {"classes": 10, "channels": 3}):
        with pytest.raises(InputError, match="images or classes of another kind"):
            load_reshaped(unfilled("lean-s", size=28, **wrong), model.state_dict(), "a file")
    with pytest.raises(InputError, match="another model"):
        load_reshaped(unfilled("cnn", classes=10, channels=1, size=28), model.state_dict(), "a file")


def test_equal_shapes_change_nothing() -> None:
    model = trained("cnn")
    before = dict(model.named_parameters())
    fit_shapes(model, trained("cnn").state_dict())
    assert all(value is before[name] for name, value in model.named_parameters())


@pruning
@pytest.mark.parametrize("keep", [1.0, 0.7, 0.3, 0.05])
def test_pruning_keeps_at_most_the_share_and_the_classes(keep: float) -> None:
    model = trained()
    compression.prune(model, keep, (1, 28, 28))
    assert 0.8 * keep < count(model) / count(trained()) <= keep
    assert model.eval()(IMAGES).shape == (3, 10)


@pruning
def test_pruning_removes_the_units_of_least_weight() -> None:
    """Half of the hidden units have weights near 0: those go, and what is left answers as before."""
    model = trained("net")
    with torch.no_grad():
        model.hidden.weight[::2] *= 1e-4  # type: ignore[union-attr]
        model.hidden.bias[::2] *= 1e-4  # type: ignore[union-attr]
        model.classifier.weight[:, ::2] *= 1e-4  # type: ignore[union-attr]
    left = model.hidden.weight[1::2].detach().clone()  # type: ignore[union-attr]
    smaller = compression._pruned(model, 0.5, (1, 28, 28))
    kept = smaller.hidden.weight  # type: ignore[union-attr]
    assert kept.shape[0] == 25 and abs(float(kept.detach().norm() / left.norm()) - 0.7) < 0.2
    assert float(kept.detach().abs().max(1).values.min()) > 1e-3


def test_a_factored_layer_is_the_best_approximation_of_its_rank() -> None:
    model = trained("net")
    layer = model.hidden
    assert isinstance(layer, nn.Linear)
    before = layer.weight.detach().clone()
    compression.factor(model, 0.4)
    assert isinstance(model.hidden, LowRank) and isinstance(model.classifier, nn.Linear)
    left, values, right = torch.linalg.svd(before, full_matrices=False)
    rank = model.hidden.down.out_features
    assert rank == 20
    torch.testing.assert_close(model.hidden.weight, left[:, :rank] * values[:rank] @ right[:rank], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "size", "strategy", "reason"),
    [
        pytest.param("net", 28, Prune(keep=0.0001), "of them are left", marks=pruning),
        ("net", 28, LowRankSpec(rank=1.0), "makes no layer of this backbone smaller"),
        pytest.param("timm:test_vit", 160, Prune(), "cannot compress this backbone", marks=pruning),
        pytest.param("timm:mobilenetv3_small_050", 32, Prune(), None, marks=pruning),
        ("timm:test_vit", 160, LowRankSpec(), None),
    ],
)
def test_what_cannot_be_compressed_is_refused_before_training(
    backbone: str, size: int, strategy: Prune | LowRankSpec, reason: str | None
) -> None:
    found = refusal(backbone, strategy, channels=1, size=size, classes=10)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_pruning_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    assert not compression.can_prune()
    with pytest.raises(InputError, match=r"mnist-suite\[compress\]"):
        compression.prune(trained("net"), 0.5, (1, 28, 28))
