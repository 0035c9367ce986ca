"""Decoding of image files: depth, transparency, orientation, how they become square, placement, and refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

from suite.data.pictures import MAX_PIXELS, MAX_PIXELS_VARIABLE, stored_picture, viewed
from suite.errors import InputError
from suite.spec import Preprocess, View

BLOCK = 16  # pixels: images are 64 x 64 and made of 4 x 4 blocks of one grey level
LEVELS = np.array([[0, 0, 0, 0], [0, 0, 90, 30], [0, 0, 240, 60], [0, 0, 0, 0]])

GREY = View(64, 1, "crop", 1.0, "bicubic", (0,), None)
DIGITS = Preprocess(channels=1, size=28, stored=28, mean=(0.1,), std=(0.3,), placement="centred")


def view(**changes: object) -> View:
    return GREY._replace(**changes)


def blocks(levels: np.ndarray) -> np.ndarray:
    return levels.repeat(BLOCK, 0).repeat(BLOCK, 1)


def write(folder: Path, kind: str) -> Path:
    """The image of LEVELS in one of several forms."""
    pixels = blocks(LEVELS)
    grey = Image.fromarray(pixels.astype(np.uint8))
    path = folder / f"{kind}.{'tiff' if kind in ('float', 'int') else 'png'}"
    match kind:
        case "grey":
            grey.save(path)
        case "16-bit":
            Image.fromarray((pixels * 17).astype(np.uint16)).save(path)
        case "float":
            Image.fromarray(pixels.astype(np.float32) / 255).save(path)
        case "int":
            Image.fromarray((pixels * 17).astype(np.int32)).save(path)
        case "alpha":  # what is transparent is white
            Image.merge("LA", (grey, Image.fromarray((pixels > 0).astype(np.uint8) * 255))).save(path)
        case "palette":
            grey.convert("P").save(path, transparency=0)
        case "upright by EXIF":
            exif = Image.Exif()
            exif[0x112] = 6  # to be turned clockwise by a quarter
            grey.save(path, exif=exif)
        case "colour":
            Image.merge("RGB", (grey, grey, Image.new("L", grey.size, 120))).save(path)
    return path


ON_WHITE = [[255, 255, 255, 255], [255, 255, 90, 30], [255, 255, 240, 60], [255, 255, 255, 255]]

SEEN = {  # the grey levels of the 4 x 4 blocks
    "grey": LEVELS,
    "16-bit": LEVELS,  # values of 12 bits
    "float": LEVELS,
    "int": LEVELS,
    "alpha": ON_WHITE,
    "palette": ON_WHITE,
    "upright by EXIF": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 240, 90, 0], [0, 60, 30, 0]],
    "colour": [[14, 14, 14, 14], [14, 14, 93, 40], [14, 14, 226, 67], [14, 14, 14, 14]],
}


@pytest.mark.parametrize("kind", SEEN)
def test_every_kind_of_file_becomes_8_bit_grey(kind: str, tmp_path: Path) -> None:
    white = {"16-bit": 4095.0 * 240 * 17 / 4080, "int": 255.0 * 17, "float": 1.0}.get(kind)
    found = viewed(write(tmp_path, kind), view(white=white))
    assert found.shape == (1, 64, 64) and found.dtype == np.uint8
    assert np.abs(found[0, 8::BLOCK, 8::BLOCK].astype(int) - SEEN[kind]).max() <= 1 + 15 * (kind == "16-bit")


def test_deep_grey_keeps_its_shades(tmp_path: Path) -> None:
    """Without a white level of the data set, the largest value of the type is white."""
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.abs(viewed(tmp_path / "deep.png", GREY)[0].astype(float) - ramp / 257).max() <= 1
    Image.fromarray(ramp // 16).save(tmp_path / "12.png")
    twelve = viewed(tmp_path / "12.png", view(white=4095.0))[0]
    assert len(np.unique(twelve)) == 256


def test_transparent_pictures_keep_light_and_dark_shapes(tmp_path: Path) -> None:
    """The ground is white, and black for a light shape, which would vanish otherwise."""
    shape = np.zeros((64, 64), np.uint8)
    shape[16:48, 16:48] = 255
    for level, ground in ((0, 255), (255, 0)):
        flat = Image.fromarray(np.full((64, 64), level, np.uint8))
        Image.merge("LA", (flat, Image.fromarray(shape))).save(tmp_path / "clear.png")
        found = viewed(tmp_path / "clear.png", GREY)[0]
        assert found[0, 0] == ground and found[32, 32] == level
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "nothing.png")
    assert (viewed(tmp_path / "nothing.png", GREY) == 255).all()


MODES = {"crop": "center", "pad": "border", "squeeze": "squash"}


@settings(max_examples=25)
@given(
    width=st.integers(8, 300),
    height=st.integers(8, 300),
    fit=st.sampled_from(["crop", "pad", "squeeze"]),
    share=st.sampled_from([1.0, 0.95, 0.875]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    side=st.sampled_from([28, 64, 96]),
    suffix=st.sampled_from(["png", "jpg"]),
)
def test_pictures_become_square_as_by_timm(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    fit: str,
    share: float,
    interpolation: str,
    side: int,
    suffix: str,
) -> None:
    """The same pixels as timm's evaluation transform on Pillow's image, but for rounding: one level, seldom more."""
    rng = np.random.default_rng(width)
    path = tmp_path_factory.mktemp("timm") / f"picture.{suffix}"
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    mean = (0.5, 0.4, 0.3)
    expects = Preprocess(
        channels=3,
        size=side,
        stored=side,
        fit=fit,  # type: ignore[arg-type]
        crop_share=share,
        interpolation=interpolation,  # type: ignore[arg-type]
        mean=mean,
        std=(1.0, 1.0, 1.0),
    )
    transform = transforms_imagenet_eval(
        side, crop_pct=share, crop_mode=MODES[fit], interpolation=interpolation, mean=mean, normalize=False
    )
    with Image.open(path) as image:
        theirs = transform(image.convert("RGB"))
    apart = np.abs(stored_picture(path, expects).astype(int) - theirs.numpy().astype(int))
    assert apart.max() <= 3 and apart.mean() < 0.3


def test_random_crops_are_taken_from_the_whole_square(tmp_path: Path) -> None:
    expects = Preprocess(channels=3, size=224, stored=224, crop_share=0.875, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (expects.view().side, expects.view().scaled) == (224, 256)
    assert (expects.training_view().side, expects.training_view().scaled) == (256, 256)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fast_decoder_of_jpeg_files_gives_pillows_pixels(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (90, 120, 3) if mode == "RGB" else (90, 120)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / "a.jpg", quality=85)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.png")
        exif = Image.Exif()
        exif[0x112] = 3  # upside down
        image.rotate(180).save(tmp_path / "turned.png")
        image.rotate(180).save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif)
    seen = view(channels=len(mode), side=60)
    assert np.array_equal(viewed(tmp_path / "a.jpg", seen), viewed(tmp_path / "a.png", seen))
    turned = viewed(tmp_path / "turned.jpg", seen).astype(int)
    assert np.abs(turned - viewed(tmp_path / "a.png", seen)).mean() < 2


def test_a_phone_picture_of_108_megapixels_is_read(tmp_path: Path) -> None:
    """JPEG files are decoded at a fraction of their size; other files of that size are refused, or allowed."""
    ramp = Image.linear_gradient("L").resize((12000, 9000), Image.Resampling.NEAREST)
    ramp.save(tmp_path / "phone.jpg", quality=30)
    found = viewed(tmp_path / "phone.jpg", GREY)[0].astype(float)
    assert np.abs(found.mean(1) - np.linspace(2, 253, 64)).max() < 4


def test_the_limit_of_pixels_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=rf"large\.png.*{MAX_PIXELS_VARIABLE}"):
        viewed(tmp_path / "large.png", GREY)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "60_000_000")
    assert viewed(tmp_path / "large.png", GREY).shape == (1, 64, 64)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(InputError, match="'many'"):
        viewed(tmp_path / "large.png", GREY)


def test_glyphs_are_placed_and_others_are_not(tmp_path: Path) -> None:
    page = np.full((300, 400), 255, np.uint8)
    page[20:220, 30:60] = 0
    page[190:220, 60:120] = 0  # an L, dark on light, off centre
    Image.fromarray(page).save(tmp_path / "page.png")
    glyph = stored_picture(tmp_path / "page.png", DIGITS)[0].astype(float)
    rows = np.nonzero(glyph > 64)[0]
    assert rows.max() - rows.min() + 1 in (20, 21)
    assert np.average(np.arange(28) + 0.5, weights=glyph.sum(1)) == pytest.approx(14, abs=0.6)
    assert np.average(np.arange(28) + 0.5, weights=glyph.sum(0)) == pytest.approx(14, abs=0.6)
    plain = stored_picture(tmp_path / "page.png", DIGITS.model_copy(update={"placement": None}))[0]
    assert plain[0, -1] == 255  # the paper stays light where pictures are no glyphs


def test_a_picture_with_nothing_on_it_is_named(tmp_path: Path) -> None:
    Image.new("L", (50, 40), 255).save(tmp_path / "white.png")
    with pytest.raises(InputError, match=r"white\.png"):
        stored_picture(tmp_path / "white.png", DIGITS)


@pytest.mark.parametrize("placement", ["centred", None])
def test_unreadable_files_are_refused_by_name(placement: str | None, tmp_path: Path) -> None:
    expects = DIGITS.model_copy(update={"placement": placement})
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    Image.new("L", (20, 20)).save(tmp_path / "script.png", "EPS")
    whole = write(tmp_path, "grey").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (80, 80), "red").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-60])
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("text.png", "empty.png", "script.png", "cut.png", "cut.jpg", "missing.png", "pipe.png"):
        with pytest.raises(InputError, match=name):
            stored_picture(tmp_path / name, expects)
