"""Corruptions of stored pictures: what each does, that it is stated, and that it is the same everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch import Tensor

from suite.data.corruptions import CORRUPTIONS, corrupted
from suite.data.datasets import search_splits

KINDS = list(CORRUPTIONS)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.from_numpy(search_splits("mnist", limit=100).validation.images)


def random_pictures(count: int, channels: int, side: int, seed: int) -> Tensor:
    return torch.randint(256, (count, channels, side, side), generator=torch.Generator().manual_seed(seed)).byte()


@settings(max_examples=30)
@given(st.sampled_from(KINDS), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(16, 40), st.integers(0, 9))
def test_pictures_stay_pictures_and_each_is_changed_by_itself(
    name: str, count: int, channels: int, side: int, seed: int
) -> None:
    images = random_pictures(count, channels, side, seed)
    before = images.clone()
    for level in CORRUPTIONS[name].levels:
        for edge in ("zeros", "border"):
            found = corrupted(images, name, level, edge=edge)
            assert (found.shape, found.dtype) == (images.shape, torch.uint8)
            alone = torch.cat([corrupted(one[None], name, level, edge=edge) for one in images.flip(0)]).flip(0)
            # a convolution of one image may round differently from one of several
            assert (found.int() - alone.int()).abs().max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(corrupted(images, name, 0), images)


@pytest.mark.parametrize("name", KINDS)
def test_levels_begin_mild_and_grow(name: str, digits: Tensor) -> None:
    levels = CORRUPTIONS[name].levels
    assert len(levels) == 4 and sorted(levels, key=abs) == list(levels)
    far = [float((corrupted(digits, name, level).float() - digits.float()).square().mean().sqrt()) for level in levels]
    if name == "thickness":  # thinner, wider, thinner, wider
        assert 0 < far[0] < far[2] and 0 < far[1] < far[3]
        return
    assert far[0] > 0
    assert all(a < b for a, b in itertools.pairwise(far))


@pytest.mark.parametrize(("edge", "mode"), [("zeros", "constant"), ("border", "nearest")])
@pytest.mark.parametrize("angle", [10.0, 45.0])
def test_a_rotation_turns_by_its_angle_one_way_or_the_other(angle: float, edge: str, mode: str, digits: Tensor) -> None:
    found = corrupted(digits, "rotation", angle, edge=edge).numpy()[:, 0].astype(float)  # type: ignore[arg-type]
    ways = [
        np.stack(
            [ndimage.rotate(one.astype(float), turn, reshape=False, order=1, mode=mode) for one in digits.numpy()[:, 0]]
        )
        for turn in (angle, -angle)
    ]
    errors = np.stack([np.abs(found - way).mean((1, 2)) for way in ways])
    assert errors.min(0).max() < 1.0  # rounding, and the outermost row
    chosen = errors.argmin(0)
    assert 20 < chosen.sum() < 80


def test_a_rotation_agrees_with_pillow(digits: Tensor) -> None:
    found = corrupted(digits[:20], "rotation", 30).numpy()[:, 0]
    for before, after in zip(digits[:20].numpy()[:, 0], found):
        ways = [
            np.asarray(Image.fromarray(before).rotate(turn, Image.Resampling.BILINEAR)).astype(float)
            for turn in (30, -30)
        ]
        assert min(np.abs(after - way).mean() for way in ways) < 2


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_translation_moves_the_centre_of_mass_by_its_pixels(step: int, digits: Tensor) -> None:
    moved = corrupted(digits, "translation", step)
    inside = (moved.sum((1, 2, 3)) == digits.sum((1, 2, 3))).numpy()  # nothing has left the picture
    assert inside.mean() > 0.5
    there = np.array([ndimage.center_of_mass(one) for one in moved.numpy()[:, 0]])
    here = np.array([ndimage.center_of_mass(one) for one in digits.numpy()[:, 0]])
    steps = (there - here)[inside].round(4)
    assert {tuple(map(float, one)) for one in np.unique(steps, axis=0)} == {
        (0.0, step), (0.0, -step), (step, 0.0), (-step, 0.0),
    }  # fmt: skip


def test_lengths_grow_with_the_picture() -> None:
    images = torch.zeros(1, 1, 56, 56, dtype=torch.uint8)
    images[..., 20:30, 20:30] = 200
    there = ndimage.center_of_mass(corrupted(images, "translation", 3).numpy()[0, 0])
    assert np.abs(np.subtract(there, 24.5)).max() == pytest.approx(6, abs=1e-3)
    hidden = corrupted(images * 0, "occlusion", 4).numpy()[0, 0]
    assert (hidden > 0).sum() == 64


@pytest.mark.parametrize(("edge", "mode"), [("zeros", "constant"), ("border", "nearest")])
def test_a_blur_is_that_of_scipy(edge: str, mode: str) -> None:
    images = random_pictures(3, 3, 28, 1)
    found = corrupted(images, "blur", 1.5, edge=edge).numpy()  # type: ignore[arg-type]
    wanted = ndimage.gaussian_filter(images.numpy().astype(float), (0, 0, 1.5, 1.5), mode=mode)
    assert np.abs(found - wanted).max() <= 0.51


def test_noise_has_its_standard_deviation_and_differs_from_picture_to_picture() -> None:
    images = torch.full((8, 1, 28, 28), 128, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(8)  # they are not the same
    noise = corrupted(images, "noise", 20).numpy()[:, 0, 1:].astype(float) - 128
    assert noise.std() == pytest.approx(20, rel=0.05) and abs(noise.mean()) < 1
    assert abs(np.corrcoef(noise.reshape(8, -1)) - np.eye(8)).max() < 0.2


def test_contrast_and_brightness_by_their_formulas() -> None:
    images = random_pictures(3, 3, 28, 2)
    x = images.numpy().astype(float)
    mean = x.mean((2, 3), keepdims=True)
    assert np.abs(corrupted(images, "contrast", 70).numpy() - (mean + 0.3 * (x - mean))).max() <= 0.51
    assert np.array_equal(corrupted(images, "brightness", 64).numpy(), np.minimum(x + 64, 255))


def test_pixelation_makes_even_blocks() -> None:
    images = random_pictures(2, 1, 28, 3)
    found = corrupted(images, "pixelation", 4)
    blocks = images.float().reshape(2, 1, 7, 4, 7, 4).mean((3, 5)).round()
    assert torch.equal(found.reshape(2, 1, 7, 4, 7, 4).amin((3, 5)).float(), blocks)
    assert torch.equal(found.reshape(2, 1, 7, 4, 7, 4).amax((3, 5)).float(), blocks)


def test_strokes_grow_and_shrink_with_the_level(digits: Tensor) -> None:
    sets = [corrupted(digits, "thickness", level).int() for level in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 2, 3)]
    for thinner, thicker in itertools.pairwise(sets):
        assert (thinner <= thicker).all()
        assert (thinner.sum((1, 2, 3)) < thicker.sum((1, 2, 3))).all()


@pytest.mark.parametrize("change", [-1.0, -0.5, 0.5, 1.0, 2.0])
def test_a_bar_becomes_wider_by_the_level(change: float) -> None:
    bar = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    bar[..., 4:24, 12:16] = 255
    line = corrupted(bar, "thickness", change)[0, 0, 14].float()
    assert line.sum() / 255 == pytest.approx(4 + change, abs=0.01)
