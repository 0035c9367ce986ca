"""Several models as one: means of probabilities, views of images, and members with inputs of their own."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from suite.hardware import flops
from suite.models.ensembles import Ensemble, Views, mean_of, same_pictures, shared_input, viewed
from suite.models.preprocessing import evaluation_preparer
from suite.spec import Preprocess

CPU = torch.device("cpu")

GREY = Preprocess(channels=1, size=8, stored=8, mean=(0.2,), std=(0.3,), interpolation="bilinear")


def linear(expects: Preprocess, classes: int = 3) -> nn.Module:
    """A model that sees every pixel."""
    pixels = expects.channels * expects.size**2
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).sin().view_as(parameter))
    return model.eval()


def stored(count: int = 4, side: int = 8) -> torch.Tensor:
    return torch.randint(256, (count, 1, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2), st.just(4)), elements=st.floats(-30, 30)))
def test_the_softmax_is_the_mean_of_probabilities(scores: np.ndarray) -> None:
    logits = torch.from_numpy(scores)
    found = mean_of(logits.log_softmax(2)).softmax(1)
    assert torch.allclose(found, logits.softmax(2).mean(0), atol=1e-12)


@pytest.mark.parametrize("size, share, mode", [(8, 0.2, "bilinear"), (12, 0.5, "bicubic"), (5, 0.5, "bilinear")])
def test_each_member_sees_what_it_was_trained_on(size: int, share: float, mode: str) -> None:
    """Whatever the size, mean and standard deviation of the first one."""
    other = GREY.model_copy(update={"size": size, "mean": (share,), "std": (0.7,), "interpolation": mode})
    both, given_input = [GREY, other], shared_input([GREY, other])
    models = [linear(expects) for expects in both]
    alone = [model(evaluation_preparer(expects, CPU)(stored())).softmax(1) for model, expects in zip(models, both)]
    ensemble = Ensemble(models, both, given_input)
    found = ensemble(evaluation_preparer(given_input, CPU)(stored())).softmax(1)
    assert torch.allclose(found, torch.stack(alone).mean(0), atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(), ("shift",), ("flip",), ("shift", "flip")]))
def test_views_are_the_image_and_its_neighbours(row: int, column: int, views: tuple[Views, ...]) -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, row, column] = 1
    seen = viewed(image, views)
    assert torch.equal(seen[0], image) and len(seen) == (5 if "shift" in views else 1) * (2 if "flip" in views else 1)
    steps = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)] if "shift" in views else [(0, 0)]
    wanted = {(row + down, column + right) for down, right in steps}
    if "flip" in views:
        wanted |= {(down, 7 - right) for down, right in wanted}
    assert {tuple(view[0, 0].nonzero()[0].tolist()) for view in seen} == wanted


def test_shifts_repeat_the_edge() -> None:
    """So that the ground of a photo stays what it is."""
    assert all(
        torch.equal(view, torch.full((2, 3, 4, 4), 7.0)) for view in viewed(torch.full((2, 3, 4, 4), 7.0), ["shift"])
    )


def test_views_are_averaged_and_cost_what_they_compute() -> None:
    model = linear(GREY)
    plain, tta = Ensemble([model], [GREY], GREY), Ensemble([model], [GREY], GREY, ["shift", "flip"])
    inputs = evaluation_preparer(GREY, CPU)(stored())
    wanted = torch.stack([model(view).softmax(1) for view in viewed(inputs, ["shift", "flip"])]).mean(0)
    assert torch.allclose(tta(inputs).softmax(1), wanted, atol=1e-6)
    assert torch.allclose(plain(inputs).softmax(1), model(inputs).softmax(1), atol=1e-6)
    assert tta.log_probabilities(inputs).shape == (1, 10, 4, 3)
    assert flops.count(tta, GREY.shape).forward_flops == 10 * flops.count(plain, GREY.shape).forward_flops
    assert (
        tta.state_dict().keys() == plain.state_dict().keys() == {f"members.0.model.1.{n}" for n in ("weight", "bias")}
    )


@pytest.mark.parametrize(
    "change, alike, alike_in_files",
    [
        ({"size": 16, "mean": (0.5,)}, True, True),
        ({"interpolation": "bicubic"}, True, False),
        ({"crop_share": 0.875}, True, False),
        ({"stored": 16}, False, False),
        ({"placement": "filled"}, False, False),
    ],
)
def test_members_start_from_the_same_stored_pictures(
    change: dict[str, object], alike: bool, alike_in_files: bool
) -> None:
    other = GREY.model_copy(update=change)
    for (first, second), decoded in product([(GREY, other), (other, GREY)], [False, True]):
        assert same_pictures(first, second, decoded=decoded) == (alike_in_files if decoded else alike)
