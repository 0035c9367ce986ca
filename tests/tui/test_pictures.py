"""Pictures of screens, and the page that shows them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from textual.strip import Strip

import tui
from tui.draw.chart import GLYPHS
from tui.testing.docs import with_keys
from tui.testing.pictures import BLOCKS, CELL, MISSING, SHADES, boxes, glyph, picture, pictures, png

ROOT = Path(tui.__file__).parents[1]
SOURCES = sorted(ROOT.glob("tui/**/*.py"))


def cell(char: str) -> Image.Image:
    strip = Strip([Segment(char, Style.parse("#ffffff on #000000"))])
    return picture([strip], DIMMED_MONOKAI)


def test_every_glyph_has_a_picture() -> None:
    used = {char for path in SOURCES for char in path.read_text() if not char.isascii()}
    used |= {*GLYPHS, *BLOCKS, *SHADES, *(chr(0x2801 + n) for n in range(255)), *"←→↑↓⏎─│┌┐└┘├┤┬┴┼╭╮╰╯━┃┏┓┗┛╸╺▏▎"}
    assert len(used) > 300
    lacking = [
        char for char in used if boxes(char) is None and char not in SHADES and glyph(char, False, False) is None
    ]
    assert not lacking
    missing = cell(MISSING).tobytes()
    assert not [char for char in used if cell(char).tobytes() in (missing, cell(" ").tobytes())]
    assert len({cell(char).tobytes() for char in GLYPHS}) == len(GLYPHS)


@pytest.mark.parametrize(
    ("char", "share"), [("█", 1), ("▄", 0.5), ("▌", 0.5), ("▚", 0.5), ("▒", 0.5), ("⣿", 0.16), ("│", 0.2), ("━", 0.2)]
)
def test_blocks_and_lines_are_geometry(char: str, share: float) -> None:
    image = cell(char).convert("L")
    assert sum(image.get_flattened_data()) / 255 / (CELL[0] * CELL[1]) == pytest.approx(share, abs=0.05)


def test_a_box_is_closed() -> None:
    image = picture([Strip([Segment("┌─┐")]), Strip([Segment("└─┘")])], DIMMED_MONOKAI)
    middle = [image.getpixel((x, CELL[1] // 2)) for x in range(CELL[0] // 2, 2 * CELL[0] + CELL[0] // 2)]
    assert len(set(middle)) == 1 and middle[0] != image.getpixel((0, 0))


def test_a_screen_has_the_size_of_its_cells(results) -> None:
    found = asyncio.run(pictures(results, "2", (60, 20), ["suite", "suite-light"]))
    dark, light = found["suite"], found["suite-light"]
    assert dark.size == light.size == (60 * CELL[0], 20 * CELL[1])
    assert dark.getpixel((5, 150)) != light.getpixel((5, 150))
    assert png(dark).startswith(b"\x89PNG")


def test_the_page_has_the_present_keys_and_its_pictures_exist() -> None:
    path = ROOT / "docs" / "dashboard.md"
    page = path.read_text(encoding="utf-8")
    assert with_keys(page) == page, "make pictures writes the keys anew"
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert shown and all((path.parent / name).is_file() for name in shown)
    assert all((path.parent / name).stat().st_size < 150 * 1024 for name in shown)
