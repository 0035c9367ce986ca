"""Augmentation: every image has its own draw, values stay in range, and older recipes see the same images."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from suite.data.datasets import search_splits
from suite.models.preprocessing import normalizer, resize
from suite.spec import Augment, Preprocess, Recipe
from suite.training.augment import training_preparer
from suite.training.resample import ASPECT, random_boxes, resampled
from suite.training.trivial_augment import OPERATIONS, Draws, apply

CPU = torch.device("cpu")
GREY = Preprocess(channels=1, size=28, stored=28, mean=(0.1307,), std=(0.3081,))
PHOTO = Preprocess(channels=3, size=48, stored=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """(32, 1, 28, 28) uint8."""
    return torch.from_numpy(search_splits("mnist", limit=100).train.images[:32])


@pytest.fixture(scope="module")
def photos(digits: Tensor) -> Tensor:
    """(32, 3, 64, 64) uint8: coloured digits on coloured noise."""
    generator = torch.Generator().manual_seed(0)
    noise = F.interpolate(torch.rand(32, 3, 9, 9, generator=generator), size=64, mode="bicubic").clamp(0, 1)
    digit = F.interpolate(digits.float() / 255, size=64, mode="bilinear")
    color = torch.rand(32, 3, 1, 1, generator=generator)
    return (255 * torch.lerp(noise, color, digit)).round().byte()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(x: Tensor, expects: Preprocess) -> Tensor:
    """Prepared inputs as values in 0..255."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (expects.mean, expects.std))
    return 255 * (x * std + mean)


ALL = Augment(shift=2.0, rotate=10.0, scale=0.1, erase=0.5, flip=True, crop=0.2, color=0.4, trivial=True)


@pytest.mark.parametrize(
    "augment",
    [Augment(crop=0.3), Augment(color=0.5), Augment(trivial=True), ALL],
    ids=["crop", "color", "trivial", "all"],
)
def test_each_image_has_its_own_draw_from_the_given_generator(photos: Tensor, augment: Augment) -> None:
    prepare = training_preparer(PHOTO, augment, CPU)
    same = photos[:1].expand(16, -1, -1, -1)
    before = torch.get_rng_state()
    made = prepare(same, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)  # the global generator has no part in it
    assert made.shape == (16, 3, 48, 48) and made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, prepare(same, seeded(3)))
    assert not torch.equal(made, prepare(same, seeded(4)))
    assert len({tuple(image.flatten().tolist()) for image in made}) > 8
    values = pixels(made, PHOTO)
    assert values.min() > -1e-2 and values.max() < 255.01


@pytest.mark.parametrize(
    "expects",
    [PHOTO, Preprocess(channels=3, size=64, stored=64, mean=(0.5,) * 3, std=(0.25,) * 3)],
    ids=["larger", "equal"],
)
def test_without_augmentation_images_are_those_of_evaluation(photos: Tensor, expects: Preprocess) -> None:
    prepare = training_preparer(expects, Augment(), CPU)
    assert torch.equal(prepare(photos, seeded(0)), prepare(photos))


def as_version_0_1(images: Tensor, expects: Preprocess, augment: Augment, generator: torch.Generator) -> Tensor:
    """The augmentation of version 0.1, written out."""
    if augment.shift or augment.rotate or augment.scale:
        draw = torch.rand(4, len(images), generator=generator) * 2 - 1
        angle, zoom = draw[0] * math.radians(augment.rotate), 1 + draw[1] * augment.scale
        shift = draw[2:] * (2 * augment.shift / images.shape[-2])
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        rows = torch.stack((torch.stack((cos, -sin, shift[0]), 1), torch.stack((sin, cos, shift[1]), 1)), 1)
        grid = F.affine_grid(rows, [*images.shape[:2], expects.size, expects.size], align_corners=False)
        x = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    else:
        x = resize(images, expects)
    if augment.flip:
        x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
    if augment.erase:
        draw = torch.rand(5, len(x), 1, generator=generator)
        side = draw[:2] * 0.375 + 0.125
        start, at = draw[2:4] * (1 - side), torch.arange(expects.size) / expects.size
        down, across = ((at >= start[i]) & (at < start[i] + side[i]) for i in range(2))
        hit = (draw[4] < augment.erase)[:, :, None]
        x = x.masked_fill((down[:, :, None] & across[:, None, :] & hit)[:, None], 0)
    return normalizer(expects, CPU)(x)


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(flip=True),
        Augment(erase=0.5),
        Augment(shift=2.0, rotate=10.0, scale=0.1),
        Augment(shift=3.0, rotate=5.0, scale=0.2, erase=0.5, flip=True),
    ],
    ids=["none", "flip", "erase", "moves", "all"],
)
def test_older_recipes_see_the_same_images_bit_for_bit(digits: Tensor, augment: Augment, size: int) -> None:
    expects = Preprocess(channels=1, size=size, stored=28, interpolation="bilinear", mean=(0.1307,), std=(0.3081,))
    made = training_preparer(expects, augment, CPU)(digits, seeded(7))
    assert torch.equal(made, as_version_0_1(digits, expects, augment, seeded(7)))


def test_new_fields_change_no_hash_while_they_have_their_defaults() -> None:
    assert Recipe().unhashed() == {
        "augment": {"crop": True, "color": True, "trivial": True, "mixup": True, "cutmix": True},
        "layer_decay": True,
        "balance": True,
        "distill": True,
    }
    assert not Augment()
    assert Augment(crop=0.5) and Augment(trivial=True) and Augment(mixup=0.2)


# --- cropping ---


@pytest.mark.parametrize(("cubic", "mode"), [(False, "bilinear"), (True, "bicubic")])
@pytest.mark.parametrize("size", [16, 20, 48, 63])
def test_a_box_of_the_whole_image_gives_what_an_antialiased_resize_gives(
    photos: Tensor, cubic: bool, mode: str, size: int
) -> None:
    x = photos[:4].float()
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None].expand(4, len(x))
    expected = F.interpolate(x, size=(size, size), mode=mode, align_corners=False, antialias=True)
    torch.testing.assert_close(resampled(x, boxes, size, cubic=cubic), expected, atol=0.02, rtol=0)


def test_each_box_is_the_part_of_its_own_image(photos: Tensor) -> None:
    """Boxes on whole pixels, enlarged: the inner pixels are those of a crop that is then resized."""
    x = photos[:2].float()
    boxes = torch.tensor([[0.25, 0.5], [0.0, 0.25], [0.5, 0.25], [0.5, 0.75]])  # top, left, height, width
    made = resampled(x, boxes, 32, cubic=False)
    torch.testing.assert_close(made[0], x[0, :, 16:48, 0:32], atol=1e-3, rtol=0)
    part = F.interpolate(x[1:, :, 32:48, 16:64], size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(made[1, :, 2:-2, 2:-2], part[0, :, 2:-2, 2:-2], atol=1e-2, rtol=0)


def test_a_fine_texture_that_is_shrunk_becomes_grey_and_no_false_pattern() -> None:
    board = 255 * ((torch.arange(256)[:, None] + torch.arange(256)) % 2).byte().expand(8, 3, 256, 256)
    for augment in (Augment(crop=0.8), Augment()):
        values = pixels(training_preparer(PHOTO, augment, CPU)(board, seeded(0)), PHOTO)[..., 8:-8, 8:-8]
        assert (values - 127.5).abs().max() < 8, augment


@settings(max_examples=50)
@given(smallest=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_random_boxes_lie_in_the_image_and_keep_their_limits(smallest: float, seed: int) -> None:
    top, left, height, width = random_boxes(64, smallest, CPU, seeded(seed))
    for start, length in ((top, height), (left, width)):
        assert (start >= 0).all() and (start + length <= 1 + 1e-6).all()
    area, ratio = height * width, width / height
    assert (area >= smallest - 1e-5).all() and (area <= 1 + 1e-5).all()
    assert (ratio >= 1 / ASPECT - 1e-4).all() and (ratio <= ASPECT + 1e-4).all()


# --- TrivialAugment ---


def strongest(name: str, count: int, strength: float, sign: float) -> Draws:
    return Draws(
        torch.full((count,), OPERATIONS.index(name)), torch.full((count,), strength), torch.full((count,), sign)
    )


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["brightness", "color", "contrast", "sharpness", "posterize", "solarize"])
def test_operations_give_what_torchvision_gives(photos: Tensor, name: str, strength: float, sign: float) -> None:
    factor = 1 + sign * strength * 0.99
    expected = {
        "brightness": lambda x: tv.adjust_brightness(x, factor),
        "color": lambda x: tv.adjust_saturation(x, factor),
        "contrast": lambda x: tv.adjust_contrast(x, factor),
        "sharpness": lambda x: tv.adjust_sharpness(x, factor),
        "posterize": lambda x: tv.posterize(x, 8 - round(strength * 6)),
        "solarize": lambda x: tv.solarize(x, 255 * (1 - strength)),
    }[name]
    made = apply(photos.float(), strongest(name, len(photos), strength, sign), torch.zeros(1, 3, 1, 1))
    assert (made - expected(photos).float()).abs().max() <= 2.01  # torchvision rounds in between


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_operations_on_the_range_of_values_give_what_torchvision_gives(photos: Tensor, name: str) -> None:
    x = photos // 2 + 40
    made = apply(x.float(), strongest(name, len(x), 0.5, 1.0), torch.zeros(1, 3, 1, 1))
    expected = {"autocontrast": tv.autocontrast, "equalize": tv.equalize}[name](x).float()
    assert (made - expected).abs().max() <= 1.01


@pytest.mark.parametrize("name", ["shear-x", "shear-y", "translate-x", "translate-y", "rotate"])
def test_outside_of_a_moved_image_is_the_fill_color(name: str) -> None:
    white, fill = torch.full((2, 3, 64, 64), 255.0), torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    made = apply(white, strongest(name, 2, 1.0, 1.0), fill)
    outside = (made - fill).abs().amax(1) < 1e-3
    assert 0.05 < outside.float().mean() < 0.6
    assert ((made - 255).abs().amax(1) < 1e-3).any()


def test_an_image_with_identity_or_no_strength_is_unchanged(photos: Tensor) -> None:
    x = photos.float() + 0.25  # stored images that were resized have no whole values
    x = x.clamp(max=255)
    for name in ("identity", "shear-x", "rotate", "brightness", "sharpness"):
        made = apply(x, strongest(name, len(x), 0.0, 1.0), torch.zeros(1, 3, 1, 1))
        torch.testing.assert_close(made, x, atol=5e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_augmentation_on_a_gpu_repeats_itself(photos: Tensor) -> None:
    where = torch.device("cuda")
    prepare = training_preparer(PHOTO, ALL, where)
    first, second = (prepare(photos.to(where), torch.Generator(where).manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second) and first.isfinite().all()
