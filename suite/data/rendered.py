"""Characters drawn in the fonts of this machine, laid out like the pictures of a data set of glyphs.

Matplotlib brings fonts along (DejaVu, STIX and Computer Modern), so some are there on every machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from suite.data import glyphs

MOST_FONTS = 100  # fonts that are drawn; matplotlib's own come first

DRAWN = 128  # size of the font in pixels, before a character is made small

ALIKE = 3.0  # grey levels: fonts whose pictures differ by less on average count as one

NAMELESS = re.compile(r"(glyph|gid|cid|index|g)?\d*")  # names of glyphs that do not say what they show

ANOTHER = 10.0  # grey levels by which two characters differ on average; a font of which none do has boxes for them


class Font(NamedTuple):
    """A font with pictures of some characters."""

    name: str  # family and style, for example "DejaVu Sans Bold"
    pictures: np.ndarray  # (characters, 1, size, size) uint8, light on dark


def rendered(characters: Sequence[str], size: int, *, most: int = MOST_FONTS) -> list[Font]:
    """The characters in each font that has all of them and looks different from those before it, by name.

    Args:
        characters: of one letter or digit each.
        size: side of the pictures in pixels.
        most: number of fonts, at most.
    """
    found: list[Font] = []
    for path in _paths():
        if len(found) == most:
            break
        font = _drawn(path, characters, size)
        if font is not None and all(_difference(font.pictures, other.pictures) >= ALIKE for other in found):
            found.append(font)
    return sorted(found, key=lambda font: font.name)


def _paths() -> Iterator[str]:
    """Font files: matplotlib's own, then those of this machine."""
    from matplotlib import font_manager, get_data_path

    own = os.path.join(get_data_path(), "fonts")
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    yield from sorted(path for path in listed if path.startswith(own))
    yield from sorted({*font_manager.findSystemFonts(), *(path for path in listed if not path.startswith(own))})


def _drawn(path: str, characters: Sequence[str], size: int) -> Font | None:
    """The characters in the font of a file; None where it lacks one, or cannot be read."""
    from PIL import Image, ImageDraw, ImageFont

    if not _has(path, characters):
        return None
    try:
        font = ImageFont.truetype(path, DRAWN)
        name = " ".join(filter(None, font.getname()))
        pictures: list[np.ndarray] = []
        for character in characters:
            page = Image.new("L", (4 * DRAWN, 4 * DRAWN))
            ImageDraw.Draw(page).text((2 * DRAWN, 2 * DRAWN), character, fill=255, font=font, anchor="mm")
            ink = page.getbbox()
            if ink is None:
                return None
            strength = np.asarray(page.crop(ink), dtype=np.float32) / 255
            pictures.append(glyphs.arranged(strength, size, centred=True)[None])
    except (OSError, ValueError):  # of FreeType: a damaged file, or one without outlines
        return None
    drawn = np.stack(pictures)
    boxes = all(_difference(drawn[0], other) < ANOTHER for other in drawn[1:])
    return None if boxes else Font(name, drawn)


def _has(path: str, characters: Sequence[str]) -> bool:
    """Whether a font has these characters by their names: fonts of symbols put others in their places."""
    from fontTools import agl
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        indices = [font.get_char_index(ord(character)) for character in characters]
        names = [font.get_glyph_name(index) for index in indices]
    except (RuntimeError, OSError, ValueError):
        return False
    fits = (agl.toUnicode(name) == c or NAMELESS.fullmatch(name) for name, c in zip(names, characters, strict=True))
    return all(indices) and all(fits)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two pictures in grey levels."""
    return float(np.abs(a.astype(np.int16) - b).mean())
