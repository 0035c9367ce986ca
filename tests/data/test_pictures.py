"""Decoding of image files: 16-bit and floating-point grey, transparency, orientation, placement, and refusals."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suite.data.pictures import MAX_PIXELS, load_as, load_square
from suite.errors import InputError

BLOCK = 16  # pixels: images are 64 x 64 and made of 4 x 4 blocks of one grey level
LEVELS = np.array([[0, 0, 0, 0], [0, 0, 90, 30], [0, 0, 240, 60], [0, 0, 0, 0]])


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
            Image.fromarray((pixels * 200).astype(np.uint16)).save(path)
        case "float":
            Image.fromarray(pixels.astype(np.float32) / 480).save(path)
        case "int":
            Image.fromarray((pixels * 200).astype(np.int32)).save(path)
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


# The grey levels of the 4 x 4 blocks, as the decoders of folders and of prediction had them before they shared code.
FOLDER = {
    "grey": [[0, 0, 0, 0], [0, 0, 90, 30], [0, 0, 240, 60], [0, 0, 0, 0]],
    "16-bit": [[0, 0, 0, 0], [0, 0, 70, 23], [0, 0, 187, 47], [0, 0, 0, 0]],
    "float": [[0, 0, 0, 0], [0, 0, 48, 16], [0, 0, 128, 32], [0, 0, 0, 0]],
    "int": [[0, 0, 0, 0], [0, 0, 70, 23], [0, 0, 187, 47], [0, 0, 0, 0]],
    "alpha": [[255, 255, 255, 255], [255, 255, 90, 30], [255, 255, 240, 60], [255, 255, 255, 255]],
    "palette": [[255, 255, 255, 255], [255, 255, 90, 30], [255, 255, 240, 60], [255, 255, 255, 255]],
    "upright by EXIF": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 240, 90, 0], [0, 60, 30, 0]],
    "colour": [[14, 14, 14, 14], [14, 14, 93, 40], [14, 14, 226, 67], [14, 14, 14, 14]],
}
PREDICTION = {
    "grey": [[0, 0, 0, 0], [0, 0, 90, 30], [0, 0, 240, 60], [0, 0, 0, 0]],
    "16-bit": [[0, 0, 0, 0], [0, 0, 95, 31], [0, 0, 255, 63], [0, 0, 0, 0]],
    "float": [[0, 0, 0, 0], [0, 0, 47, 15], [0, 0, 127, 31], [0, 0, 0, 0]],
    "int": [[0, 0, 0, 0], [0, 0, 95, 31], [0, 0, 255, 63], [0, 0, 0, 0]],
    "alpha": [[0, 0, 0, 0], [187, 189, 255, 0], [17, 23, 221, 0], [17, 23, 221, 0]],
    "palette": [[0, 0, 0, 0], [187, 189, 255, 0], [17, 23, 221, 0], [17, 23, 221, 0]],
    "upright by EXIF": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 240, 90, 0], [0, 60, 30, 0]],
    "colour": [[14, 14, 14, 14], [14, 14, 93, 40], [14, 14, 226, 67], [14, 14, 14, 14]],
}


@pytest.mark.parametrize("kind", FOLDER)
def test_images_of_a_folder_are_decoded_as_before(kind: str, tmp_path: Path) -> None:
    found = load_square(write(tmp_path, kind), "L")
    assert found.shape == (1, 64, 64) and found.dtype == np.uint8
    assert np.array_equal(found[0, 8::BLOCK, 8::BLOCK], FOLDER[kind])


@pytest.mark.parametrize("kind", PREDICTION)
def test_images_to_predict_are_decoded_as_before(kind: str, tmp_path: Path) -> None:
    """Without resampling where they already have the right size; else within what Pillow's resampling may vary."""
    found = load_as(write(tmp_path, kind), channels=1, size=64, centred=True)
    assert found.shape == (1, 64, 64) and found.dtype == np.uint8
    assert np.abs(found[0, 8::BLOCK, 8::BLOCK].astype(int) - PREDICTION[kind]).max() <= 2


@pytest.mark.parametrize("kind", ["grey", "alpha", "palette", "upright by EXIF", "colour"])
def test_both_decoders_see_the_same_colours(kind: str, tmp_path: Path) -> None:
    """For 8-bit images they share every step."""
    path = write(tmp_path, kind)
    assert np.array_equal(load_square(path, "RGB"), load_as(path, channels=3, size=64, centred=True))


def test_a_glyph_is_placed_by_its_centre_of_mass(tmp_path: Path) -> None:
    """As in MNIST: in a box of 20/28 of the side, its mass in the middle, light on dark."""
    page = np.full((300, 400), 255, np.uint8)
    page[20:220, 30:60] = 0
    page[190:220, 60:120] = 0  # an L, dark on light, off centre
    Image.fromarray(page).save(tmp_path / "page.png")
    glyph = load_as(tmp_path / "page.png", channels=1, size=28, centred=True)[0].astype(float)
    rows = np.nonzero(glyph > 64)[0]
    assert rows.max() - rows.min() + 1 == 20
    assert np.average(np.arange(28) + 0.5, weights=glyph.sum(1)) == pytest.approx(14, abs=0.6)
    assert np.average(np.arange(28) + 0.5, weights=glyph.sum(0)) == pytest.approx(14, abs=0.6)
    fills = load_as(tmp_path / "page.png", channels=1, size=28, centred=False)[0]
    assert np.ptp(np.nonzero(fills > 64)[0]) + 1 == 28


def test_an_image_without_contrast_is_black(tmp_path: Path) -> None:
    Image.new("L", (50, 40), 255).save(tmp_path / "white.png")
    assert not load_as(tmp_path / "white.png", channels=1, size=28, centred=True).any()


def test_deep_grey_keeps_its_shades_and_transparent_is_white(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    read = load_square(tmp_path / "deep.png", "L")[0]
    assert np.abs(read.astype(float) - ramp / 257).max() <= 1
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (load_square(tmp_path / "clear.png", "RGB") == 255).all()


def test_both_decoders_refuse_the_same_files_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    Image.new("L", (20, 20)).save(tmp_path / "script.png", "EPS")
    whole = write(tmp_path, "grey").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "empty.png", "bomb.png", "script.png", "cut.png", "missing.png"):
        for decode in (load_square, lambda path, _: load_as(path, channels=1, size=28, centred=True)):
            with pytest.raises(InputError, match=name):
                decode(tmp_path / name, "L")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no plain file"):
        load_as(tmp_path / "pipe.png", channels=1, size=28, centred=True)
