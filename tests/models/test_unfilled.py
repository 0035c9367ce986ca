"""Networks that are made for weights to be loaded into."""

from __future__ import annotations

import pytest
import torch

from suite.errors import InputError
from suite.models.backbones import _Unfilled, build, unfilled

NAMES = ["cnn", "lean-s", "timm:test_vit", "timm:test_efficientnet", "timm:swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_loaded_make_it_the_same_network(name: str) -> None:
    """Buffers that the weights do not include, as Swin's, are there too."""
    size = 224 if "swin" in name else 32
    filled = build(name, classes=3, channels=3, size=size, seed=1).eval()
    made = unfilled(name, classes=3, channels=3, size=size).eval()
    made.load_state_dict(filled.state_dict())
    images = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(made(images), filled(images))


def test_no_random_numbers_are_drawn() -> None:
    before = torch.get_rng_state()
    unfilled("timm:test_vit", classes=3, channels=1, size=64)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.nn.Linear(3, 3).weight.std() > 0  # others are initialised as before


@pytest.mark.timeout(30)
@pytest.mark.parametrize("bounds", [(-2.0, 2.0), (2.0, 3.0)])
def test_initialisers_that_draw_until_values_fit_come_to_an_end(bounds: tuple[float, float]) -> None:
    weight = torch.nn.Parameter(torch.full((8,), 100.0))  # as newly allocated memory may be
    with _Unfilled():
        torch.nn.init.trunc_normal_(weight, 0.0, 1.0, *bounds)
    assert (bounds[0] <= weight).all() and (weight <= bounds[1]).all()


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(InputError, match="no backbone called"):
        unfilled("nett", classes=3, channels=1, size=28)
