"""Glyphs in pictures of any kind: MNIST's own stay as they are, and what people send comes out like MNIST."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw
from scipy import ndimage

from suite.data.datasets import search_splits
from suite.data.datasets import test_split as official_test
from suite.data.glyphs import Blank, place
from suite.models import backbones
from suite.models.preprocessing import preprocess
from suite.spec.default_recipes import FROM_SCRATCH
from suite.training.augment import training_preparer
from suite.training.evaluation import Examples
from suite.training.loop import fit
from suite.training.state import begin

Picture = Image.Image

# --- digits of MNIST, rendered as what people send ------------------------------------------------------------------


def enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """(side, side) from 0 to 1: the strokes with smooth, sharp edges."""
    smooth = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(smooth) / 255 - 0.5) * max(1, side / 60) + 0.5, 0, 1)


def on_sheet(digit: np.ndarray, rng: Generator, side: int = 800, share: float = 0.8) -> np.ndarray:
    """(side, side) from 0 to 1: ink somewhere on a sheet. The picture of 28 px takes the share of the side."""
    part = round(side * share)
    sheet = np.zeros((side, side))
    y, x = rng.integers(0, side - part + 1, 2)
    sheet[y : y + part, x : x + part] = enlarged(digit, part)
    return sheet


def coloured(ink: np.ndarray, pen: tuple[int, ...], paper: tuple[int, ...], light: np.ndarray | float = 1.0) -> Picture:
    """The ink (H, W) in one colour on paper of another, under light that multiplies both."""
    mixed = ink[..., None] * np.array(pen) + (1 - ink[..., None]) * np.array(paper)
    return Image.fromarray(np.clip(mixed * np.broadcast_to(light, ink.shape)[..., None], 0, 255).astype(np.uint8))


def grey(values: np.ndarray, rng: Generator | None = None, noise: float = 0.0) -> Picture:
    if rng is not None:
        values = values + rng.normal(0, noise, values.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def plain(digit: np.ndarray, rng: Generator) -> Picture:
    return grey(255 * (1 - on_sheet(digit, rng)))


def shadow(low: float) -> Callable[[np.ndarray, Generator], Picture]:
    def render(digit: np.ndarray, rng: Generator) -> Picture:
        """Light rises from `low` to 230 in any direction over the sheet."""
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1:1:800j, -1:1:800j]
        ramp = x * np.cos(angle) + y * np.sin(angle)
        light = low + (230 - low) * (ramp - ramp.min()) / np.ptp(ramp)
        return grey(light * (1 - 0.75 * on_sheet(digit, rng)), rng, 6)

    return render


def grey_paper(digit: np.ndarray, rng: Generator) -> Picture:
    paper = rng.uniform(90, 150)
    return grey(paper - (paper - 15) * on_sheet(digit, rng))


def red_paper(digit: np.ndarray, rng: Generator) -> Picture:
    return coloured(on_sheet(digit, rng), (10, 5, 5), (190, 35, 40))


def thinned(ink: np.ndarray) -> np.ndarray:
    """The skeleton of strokes, by Zhang and Suen (1984, https://doi.org/10.1145/357994.358023)."""
    ink = np.pad(ink, 1).astype(bool)
    while True:
        before = ink.sum()
        for first in (True, False):
            around = [np.roll(ink, shift, (0, 1)) for shift in
                      ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))]  # fmt: skip
            count = sum(a.astype(int) for a in around)
            rises = sum((~a & b).astype(int) for a, b in zip(around, around[1:] + around[:1], strict=True))
            n, _, e, _, s, _, w, _ = around
            open_ = ~(n & e & s) & ~(e & s & w) if first else ~(n & e & w) & ~(n & s & w)
            ink = ink & ~((count >= 2) & (count <= 6) & (rises == 1) & open_)
        if ink.sum() == before:
            return ink[1:-1, 1:-1]


def pen(width: int) -> Callable[[np.ndarray, Generator], Picture]:
    def render(digit: np.ndarray, rng: Generator) -> Picture:
        """The middle lines of the strokes, with a pen of so many pixels on 1000."""
        cells = 140
        line = thinned(ndimage.gaussian_filter(enlarged(digit, cells), 2) > 0.5)
        picture = Image.new("L", (1000, 1000), 255)
        drawing = ImageDraw.Draw(picture)
        scale, start = 800 / cells, rng.integers(0, 200, 2)
        for y, x in np.argwhere(line):
            for other in ((y, x), (y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)):
                if max(other) < cells and line[other]:
                    ends = [tuple(np.array(at)[::-1] * scale + start) for at in ((y, x), other)]
                    drawing.line(ends, fill=0, width=width)
        return picture

    return render


def corner28(digit: np.ndarray, rng: Generator) -> Picture:
    small = np.zeros((28, 28), np.uint8)
    y, x = rng.choice([0, 14], 2)
    small[y : y + 14, x : x + 14] = np.asarray(Image.fromarray(digit).resize((14, 14), Image.Resampling.BICUBIC))
    return Image.fromarray(small)


def greyground28(digit: np.ndarray, rng: Generator) -> Picture:
    return grey(rng.uniform(40, 80) + digit / 255 * 165)


def clear(digit: np.ndarray, rng: Generator) -> Picture:
    alpha = (255 * on_sheet(digit, rng)).astype(np.uint8)
    return Image.fromarray(np.dstack([np.zeros((*alpha.shape, 3), np.uint8), alpha]))


def lined(digit: np.ndarray, rng: Generator) -> Picture:
    """Pale blue lines, fainter than the pen, a little askew."""
    ink = on_sheet(digit, rng, share=0.6)
    y, x = np.mgrid[:800, :800]
    line = np.abs((y + 0.02 * x + rng.uniform(0, 80)) % 80 - 40) < 2
    sheet = np.asarray(coloured(line.astype(float), (170, 190, 230), (245, 245, 240)), float)
    return grey(sheet * (1 - ink[..., None]) + 30 * ink[..., None], rng, 4)


def checked(digit: np.ndarray, rng: Generator) -> Picture:
    ink = on_sheet(digit, rng, share=0.6)
    y, x = np.mgrid[:800, :800]
    line = (np.abs(y % 50 - 25) < 1.5) | (np.abs(x % 50 - 25) < 1.5)
    sheet = np.asarray(coloured(line.astype(float), (185, 195, 220), (245, 245, 240)), float)
    return grey(sheet * (1 - ink[..., None]) + 30 * ink[..., None], rng, 4)


def table(digit: np.ndarray, rng: Generator) -> Picture:
    """A white sheet, turned a little, on a dark table that shows on some sides."""
    ink = on_sheet(digit, rng, share=0.5)
    angle = np.radians(rng.uniform(-6, 6))
    y, x = np.mgrid[-1:1:800j, -1:1:800j]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    near = rng.uniform(0.75, 1.3, 4)
    sheet = (u > -near[0]) & (u < near[1]) & (v > -near[2]) & (v < near[3])
    sheet |= ndimage.binary_dilation(ink > 0.5, iterations=20)
    return grey(np.where(sheet, 225 * (1 - 0.8 * ink), 70), rng, 5)


def yellow_note(digit: np.ndarray, rng: Generator) -> Picture:
    light = np.linspace(0.6, 1, 800)[None] * np.linspace(1, 0.8, 800)[:, None]
    return coloured(on_sheet(digit, rng), (30, 60, 170), (245, 225, 90), light)


def chalk(digit: np.ndarray, rng: Generator) -> Picture:
    """White chalk, rough, on a green board that is darker towards the corners."""
    ink = on_sheet(digit, rng) * np.clip(rng.normal(0.8, 0.2, (800, 800)), 0, 1)
    y, x = np.mgrid[-1:1:800j, -1:1:800j]
    return coloured(ink, (235, 235, 225), (40, 95, 65), 1 - 0.3 * (x * x + y * y))


def at_border(digit: np.ndarray, rng: Generator) -> Picture:
    ink = enlarged(digit, 800)
    rows, columns = np.flatnonzero((ink > 0.5).any(1)), np.flatnonzero((ink > 0.5).any(0))
    edges = [rows[0], 800 - rows[-1], columns[0], columns[-1]]
    side = rng.integers(0, 4)
    cut = [(edges[0], 0, 0, 0), (0, edges[1], 0, 0), (0, 0, edges[2], 0), (0, 0, 0, 800 - edges[3])][side]
    return grey(255 * (1 - ink[cut[0] : 800 - cut[1], cut[2] : 800 - cut[3]]))


def cut_out(digit: np.ndarray, rng: Generator) -> Picture:
    """Cropped to the digit's own box, with 4 % of margin."""
    ink = enlarged(digit, 800)
    rows, columns = np.flatnonzero((ink > 0.5).any(1)), np.flatnonzero((ink > 0.5).any(0))
    return grey(255 * (1 - np.pad(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 24)))


def parted(digit: np.ndarray, rng: Generator) -> Picture:
    """The digit with a gap through it, as a 5 whose bar is set apart."""
    ink = on_sheet(digit, rng)
    rows = np.flatnonzero((ink > 0.5).any(1))
    gap = rows[0] + round(0.25 * len(rows))
    return grey(255 * (1 - np.concatenate([ink[:gap], np.zeros((20, 800)), ink[gap:-20]])))


def tiny(digit: np.ndarray, rng: Generator) -> Picture:
    return grey(230 * (1 - 0.8 * on_sheet(digit, rng, side=2400, share=0.06)), rng, 5)


def pencil(digit: np.ndarray, rng: Generator) -> Picture:
    return grey(235 * (1 - 0.12 * on_sheet(digit, rng)), rng, 4)


def jpeg(digit: np.ndarray, rng: Generator) -> Picture:
    buffer = io.BytesIO()
    coloured(on_sheet(digit, rng, side=300), (40, 40, 60), (230, 225, 215)).save(buffer, "JPEG", quality=10)
    return Image.open(buffer).convert("RGB")


def framed(digit: np.ndarray, rng: Generator) -> Picture:
    picture = plain(digit, rng)
    ImageDraw.Draw(picture).rectangle((0, 0, 799, 799), outline=0, width=int(rng.integers(2, 12)))
    return picture


def hard_shadow(digit: np.ndarray, rng: Generator) -> Picture:
    """The edge of a shadow runs through the picture, with a penumbra of some pixels."""
    y, x = np.mgrid[-1:1:800j, -1:1:800j]
    angle = rng.uniform(0, 2 * np.pi)
    edge = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.5, 0.5)
    light = 0.55 + 0.45 / (1 + np.exp(-edge * 80))
    return grey(230 * light * (1 - 0.8 * on_sheet(digit, rng)), rng, 4)


def marker(digit: np.ndarray, rng: Generator) -> Picture:
    """A pen that is wider by a fifth of a stroke of MNIST on each side."""
    return grey(255 * (1 - ndimage.grey_dilation(on_sheet(digit, rng), (15, 15))))


def rounded_corners(digit: np.ndarray, rng: Generator) -> Picture:
    """A screenshot with transparent corners."""
    picture = plain(digit, rng).convert("RGBA")
    alpha = Image.new("L", picture.size)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, 799, 799), 100, fill=255)
    picture.putalpha(alpha)
    return picture


def white28(digit: np.ndarray, rng: Generator) -> Picture:
    """Dark on light at the data set's size, shifted."""
    return Image.fromarray(255 - np.roll(digit, tuple(rng.integers(-3, 4, 2)), (0, 1)))


KINDS: dict[str, Callable[[np.ndarray, Generator], Picture]] = {
    "plain": plain,
    "shadow 150": shadow(150),
    "shadow 110": shadow(110),
    "shadow 70": shadow(70),
    "grey paper": grey_paper,
    "red paper": red_paper,
    "pen 20": pen(20),
    "pen 10": pen(10),
    "pen 5": pen(5),
    "pen 3": pen(3),
    "corner28": corner28,
    "greyground28": greyground28,
    "clear": clear,
}

FURTHER: dict[str, Callable[[np.ndarray, Generator], Picture]] = {
    "lined": lined,
    "checked": checked,
    "table": table,
    "yellow note": yellow_note,
    "chalk": chalk,
    "at border": at_border,
    "cut out": cut_out,
    "parted": parted,
    "tiny": tiny,
    "pencil": pencil,
    "jpeg": jpeg,
    "framed": framed,
    "hard shadow": hard_shadow,
    "marker": marker,
    "rounded corners": rounded_corners,
    "white28": white28,
}


def seen(picture: Picture, centred: bool = True) -> np.ndarray:
    return place(picture, 28, centred=centred)


# --- pictures that are in form ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "centred"), [("mnist", True), ("fashion-mnist", False)])
def test_the_data_sets_own_pictures_stay_as_they_are(name: str, centred: bool) -> None:
    for pixels in search_splits(name).train.images[::100, 0]:
        assert np.array_equal(seen(Image.fromarray(pixels), centred), pixels)
        assert np.array_equal(seen(Image.fromarray(255 - pixels), centred), pixels)


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA"])
def test_so_they_do_in_other_modes(mode: str) -> None:
    for pixels in search_splits("mnist").validation.images[:100, 0]:
        assert np.array_equal(seen(Image.fromarray(pixels).convert(mode)), pixels)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 30)])
def test_alpha_alone_holds_the_shape(colour: tuple[int, int, int]) -> None:
    """Whatever the colour of the ink is: even that of the ground beneath it."""
    for pixels in search_splits("mnist").validation.images[:50, 0]:
        picture = Image.new("RGBA", (28, 28), colour)
        picture.putalpha(Image.fromarray(pixels))
        assert np.array_equal(seen(picture), pixels)


def test_a_glyph_centred_by_its_box_or_filling_its_frame_is_in_form() -> None:
    """As EMNIST, KMNIST and USPS have them."""
    for pixels in search_splits("mnist").validation.images[:50, 0]:
        ink = pixels[np.ix_(pixels.any(1), pixels.any(0))]
        for size, side in ((28, 24), (28, 28), (16, 16)):
            scale = side / max(ink.shape)
            to = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
            form = Image.new("L", (size, size))
            form.paste(
                Image.fromarray(ink).resize(to, Image.Resampling.BICUBIC), ((size - to[0]) // 2, (size - to[1]) // 2)
            )
            assert np.array_equal(place(form, size, centred=True), np.asarray(form))


@pytest.mark.parametrize("kind", ["plain", "shadow 70", "pen 3", "corner28", "clear"])
def test_what_is_placed_is_in_form(kind: str) -> None:
    rng = default_rng(2)
    for digit in search_splits("mnist").validation.images[:10, 0]:
        once = seen(KINDS[kind](digit, rng))
        assert np.array_equal(seen(Image.fromarray(once)), once)


def test_a_thing_that_is_no_glyph_fills_the_square() -> None:
    """A dark shirt on a light ground in any corner; its greys stay apart."""
    picture = Image.new("L", (300, 200), 250)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((150, 20, 269, 139), fill=40)
    draw.rectangle((190, 60, 229, 99), fill=120)
    pixels = seen(picture, centred=False)
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8
    assert pixels.min() > 120 and 130 < pixels[13, 13] < 200 and pixels[3, 3] > 240


# --- what changes nothing --------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    index=st.integers(0, 99),
    ink=st.integers(0, 255),
    distance=st.integers(60, 255),
    y=st.integers(0, 150),
    x=st.integers(0, 150),
    side=st.integers(120, 350),
)
def test_polarity_contrast_position_and_scale_change_little(
    index: int, ink: int, distance: int, y: int, x: int, side: int
) -> None:
    digit = search_splits("mnist").validation.images[index, 0]
    paper = ink + distance if ink + distance <= 255 else max(0, ink - distance)
    if abs(paper - ink) < 60:
        paper = 255 if ink < 128 else 0
    shape = np.zeros((500, 500))
    shape[y : y + side, x : x + side] = enlarged(digit, side)
    found = seen(grey(paper + (ink - paper) * shape)).astype(float)
    shape = np.zeros((500, 500))
    shape[100:400, 100:400] = enlarged(digit, 300)
    usual = seen(grey(255 * (1 - shape))).astype(float)
    # The centre of mass is rounded to a pixel, which may shift the glyph by one; the blur forgives other roundings.
    shifts = [np.roll(found, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    blurred = [ndimage.gaussian_filter(pixels, 1) for pixels in (usual, *shifts)]
    assert min(np.abs(other - blurred[0]).sum() for other in blurred[1:]) < 0.4 * usual.sum()


@pytest.mark.parametrize("width", [3, 5, 10, 20])
def test_strokes_of_fine_pens_are_bright_and_as_wide_as_thin_ones_of_mnist(width: int) -> None:
    for digit in search_splits("mnist").validation.images[:5, 0]:
        pixels = seen(pen(width)(digit, default_rng(0)))
        assert pixels.max() == 255
        assert (pixels > 127).mean() > 0.03  # MNIST's thinnest per cent of digits


def test_colours_of_equal_brightness_are_told_apart() -> None:
    digit = search_splits("mnist").validation.images[0, 0]
    ink = on_sheet(digit, default_rng(0))
    picture = coloured(ink, (200, 60, 60), (60, 120, 140))
    assert np.ptp(np.asarray(picture.convert("L"))) < 10
    assert np.abs(seen(picture).astype(float) - seen(grey(255 * (1 - ink)))).mean() < 3


# --- nothing to see --------------------------------------------------------------------------------------------------


def blanks() -> dict[str, Callable[[Generator, int], Picture]]:
    def ramp(rng: Generator, side: int) -> np.ndarray:
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        a, b = rng.uniform(-45, 45, 2)
        return rng.uniform(100, 160) + a * x + b * y

    def round_light(rng: Generator, side: int) -> np.ndarray:
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
        return 200 * (1 - rng.uniform(0, 0.25) * (x * x + y * y))

    def half(rng: Generator, side: int) -> np.ndarray:
        light = np.full((side, side), 200.0)
        light[: round(side * rng.uniform(0.1, 0.9))] *= 0.6
        return light

    return {
        "black": lambda _, side: Image.new("L", (side, side)),
        "white": lambda _, side: Image.new("RGB", (side, side), "white"),
        "transparent": lambda _, side: Image.new("RGBA", (side, side)),
        "noise": lambda rng, side: grey(np.full((side, side), 128.0), rng, rng.uniform(1, 50)),
        "dark noise": lambda rng, side: grey(np.zeros((side, side)), rng, rng.uniform(1, 8)),
        "colour noise": lambda rng, side: Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)),
        "light from one side": lambda rng, side: grey(ramp(rng, side)),
        "the same with noise": lambda rng, side: grey(ramp(rng, side), rng, 5),
        "light in the middle": lambda rng, side: grey(round_light(rng, side)),
        "half in shadow": lambda rng, side: grey(half(rng, side), rng, 3),
    }


@pytest.mark.parametrize("kind", blanks())
@pytest.mark.parametrize("side", [28, 200, 600])
def test_a_picture_with_nothing_on_it_says_so(kind: str, side: int) -> None:
    rng = default_rng(side)
    for _ in range(8):
        picture = blanks()[kind](rng, side)
        with pytest.raises(Blank, match="Nothing stands out"):
            seen(picture)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 700), (900, 5)])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("centred", [True, False])
def test_any_shape_is_placed_or_blank(shape: tuple[int, int], mode: str, centred: bool) -> None:
    rng = default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 4), dtype=np.uint8)).convert(mode)
    try:
        pixels = seen(picture, centred)
    except Blank:
        return
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8


# --- a model that was trained on MNIST reads them ---------------------------------------------------------------------

DIGITS = 500 if "MNIST_SUITE_SOAK" in os.environ else 30  # rendered for each kind

Reader = Callable[[list[np.ndarray]], np.ndarray]


@pytest.fixture(scope="module")
def read() -> Reader:
    """The labels of placed pictures, from a network trained on MNIST's training images: two epochs on every second of
    them, or three on all."""
    splits, (every, epochs) = search_splits("mnist"), (1, 3) if DIGITS >= 500 else (2, 2)
    train, validation = (
        Examples(torch.from_numpy(part.images[::every]), torch.from_numpy(part.labels[::every]))
        for part in (splits.train, splits.validation)
    )
    cpu, recipe = torch.device("cpu"), FROM_SCRATCH.model_copy(update={"epochs": epochs})
    model = backbones.build("lean-s", classes=10, channels=1, size=28, seed=0)
    prepare = training_preparer(preprocess("lean-s", splits.info), recipe.augment, cpu)
    training = begin(model, recipe, cpu, torch.float32)
    for _ in fit(training, train, validation, recipe, prepare, seed=1):
        pass
    model.eval()

    @torch.inference_mode()
    def labels(pictures: list[np.ndarray]) -> np.ndarray:
        return model(prepare(torch.from_numpy(np.stack(pictures))[:, None], None)).argmax(1).numpy()

    return labels


def share_read(read: Reader, kind: Callable[[np.ndarray, Generator], Picture], count: int) -> float:
    """Of rendered test digits, spread over all writers, how many get their label; a blank one gets none."""
    test = official_test("mnist")
    step = len(test.labels) // count
    rng, right = default_rng(1), []
    placed, labels = [], []
    for digit, label in zip(test.images[::step, 0][:count], test.labels[::step][:count], strict=True):
        try:
            placed.append(seen(kind(digit, rng)))
            labels.append(label)
        except Blank:
            right.append(False)
    return float(np.mean([*right, *(read(placed) == labels)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_digits_as_people_send_them_are_read(read: Reader, kind: str) -> None:
    assert share_read(read, KINDS[kind], DIGITS) >= (0.97 if DIGITS >= 500 else 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FURTHER)
def test_so_are_digits_of_further_kinds(read: Reader, kind: str) -> None:
    assert share_read(read, FURTHER[kind], DIGITS // 2) >= 0.9
