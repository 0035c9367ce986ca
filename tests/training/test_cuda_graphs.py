"""CUDA graphs: the warm-up leaves no trace, and replayed steps train as plain steps do."""

from __future__ import annotations

import pytest
import torch

from suite.data.datasets import search_splits
from suite.models import backbones
from suite.spec import Preprocess, Recipe
from suite.training import cuda_graphs
from suite.training.augment import training_preparer
from suite.training.evaluation import Examples
from suite.training.loop import fit
from suite.training.state import begin

RECIPES = [
    Recipe(lr=0.02, epochs=2, batch_size=32),
    Recipe(optimizer="adamw", lr=0.002, epochs=2, batch_size=32, ema=0.9, clip_norm=1.0, schedule="onecycle"),
]


def test_existing_tensors_are_restored_and_new_ones_are_zero() -> None:
    kept, new = torch.tensor([1.0, 2.0]), torch.tensor([5.0])
    before = [(kept, kept.clone())]
    kept.mul_(7)
    view = kept.detach()  # another tensor on the same memory, as in a `state_dict`
    cuda_graphs._restore(before, [view, new])
    assert kept.tolist() == [1.0, 2.0]
    assert new.tolist() == [0.0]


def test_graphs_are_for_nvidia_gpus_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    assert cuda_graphs.usable(cuda, torch.bfloat16)
    assert not cuda_graphs.usable(cuda, torch.float16)
    assert not cuda_graphs.usable(torch.device("cpu"), torch.bfloat16)
    monkeypatch.setenv("MNIST_SUITE_CUDA_GRAPHS", "0")
    assert not cuda_graphs.usable(cuda, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES, ids=["sgd", "adamw"])
@pytest.mark.parametrize("backbone", ["cnn", "lean-l"])
def test_a_training_by_replay_equals_a_plain_one(
    recipe: Recipe, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    where = torch.device("cuda", 0)
    splits = search_splits("mnist", limit=400)
    train, validation = (
        Examples(torch.from_numpy(p.images).to(where), torch.from_numpy(p.labels).to(where))
        for p in (splits.train, splits.validation)
    )
    prepare = training_preparer(
        Preprocess(channels=1, size=28, stored=28, mean=(0.1307,), std=(0.3081,)), recipe.augment, where
    )

    def trained(graphed: bool) -> list[torch.Tensor]:
        monkeypatch.setenv("MNIST_SUITE_CUDA_GRAPHS", "1" if graphed else "0")
        model = backbones.build(backbone, classes=10, channels=1, size=28, seed=0)
        training = begin(model, recipe, where, torch.float32)
        for _ in fit(training, train, validation, recipe, prepare, seed=3):
            pass
        assert (training.recorded is not None) == graphed
        return [p.detach().cpu() for p in model.parameters()]

    for a, b in zip(trained(True), trained(False), strict=True):
        assert torch.allclose(a, b, atol=5e-3, rtol=1e-2)
