"""Digits drawn in the fonts of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from suite.data import glyphs, rendered
from suite.data.rendered import Font

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def fonts() -> tuple[Font, ...]:
    return rendered.rendered(DIGITS, 28)


def test_the_fonts_that_matplotlib_brings_are_there_by_name(fonts: tuple[Font, ...]) -> None:
    names = [font.name for font in fonts]
    assert names == sorted(set(names))
    assert {"DejaVu Sans Book", "DejaVu Serif Bold", "STIXGeneral Italic", "cmr10 Regular", "cmtt10 Regular"} <= {
        *names
    }
    assert not any(word in name for name in names for word in ("Last", "cmsy", "cmex", "Size", "Display", "NonUnicode"))


def test_every_character_is_drawn_once_in_the_form_of_mnist(fonts: tuple[Font, ...]) -> None:
    for font in fonts:
        assert (font.pictures.shape, font.pictures.dtype) == ((10, 1, 28, 28), np.uint8)
        ink = font.pictures[:, 0]
        assert (ink.max((1, 2)) > 200).all()
        rows, columns = np.indices((28, 28))
        for one in ink:
            ys, xs = np.nonzero(one > 127)
            assert max(np.ptp(ys), np.ptp(xs)) < 20
            mass = one / one.sum()
            assert abs((mass * rows).sum() - 13.5) < 1 and abs((mass * columns).sum() - 13.5) < 1


def test_no_two_fonts_look_alike(fonts: tuple[Font, ...]) -> None:
    pictures = np.stack([font.pictures for font in fonts]).astype(int)
    for i, one in enumerate(pictures[1:], 1):
        assert np.abs(pictures[:i] - one).mean((1, 2, 3, 4)).min() >= rendered.ALIKE


def test_it_is_what_predict_sees_of_a_picture_of_the_character(fonts: tuple[Font, ...]) -> None:
    file = Path(get_data_path(), "fonts/ttf/DejaVuSerif.ttf")
    known = next(font for font in fonts if font.name == "DejaVu Serif Book")
    for digit in range(10):
        page = Image.new("L", (400, 400))
        ImageDraw.Draw(page).text((200, 200), str(digit), fill=255, font=ImageFont.truetype(file, 128), anchor="mm")
        seen = glyphs.place(page, 28, centred=True)
        moved = [np.roll(seen, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]  # rounding, also of strokes
        assert max(np.corrcoef(one.ravel(), known.pictures[digit, 0].ravel())[0, 1] for one in moved) > 0.9


def test_files_that_are_no_fonts_are_left_out_and_few_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(get_data_path(), "fonts/ttf")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes((own / "cmr10.ttf").read_bytes()[:900])
    copy = tmp_path / "copy.ttf"
    copy.write_bytes((own / "cmr10.ttf").read_bytes())
    names = ("cmr10", "cmsy10", "LastResortHE-Regular", "cmtt10", "cmss10")
    files = [broken, *(own / f"{name}.ttf" for name in names), copy, tmp_path / "missing.ttf"]
    monkeypatch.setattr(rendered, "_paths", lambda: iter(map(str, files)))
    assert [font.name for font in rendered.rendered(DIGITS, 17)] == [
        "cmr10 Regular",
        "cmss10 Regular",
        "cmtt10 Regular",
    ]
    assert len(rendered.rendered(DIGITS, 17, most=2)) == 2
