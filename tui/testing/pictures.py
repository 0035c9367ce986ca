"""Pictures of the dashboard as PNG, drawn cell by cell, so that they look the same on every machine.

python -m tui.testing.pictures results pictures --screens board plots --sizes 120x40 --themes suite

Letters come from DejaVu Sans Mono, which Matplotlib brings along. Lines, blocks and braille dots are drawn as geometry,
since fonts leave gaps between them.
"""

from __future__ import annotations

import argparse
import asyncio
import unicodedata
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len, chop_cells
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.strip import Strip

from suite.store.files import write_atomic
from tui.app import Dashboard
from tui.themes import THEMES

CELL = (10, 20)  # pixels of a cell
FONT_SIZE = 16
MISSING = "\uffff"  # no font has it: drawn as the picture for what is missing
PAUSE = 0.3  # seconds, enough for the feed to read and the screen to be drawn
SIZES = ("80x24", "120x40", "200x60")
SCREENS = {  # keys that lead there from the board
    "board": "",
    "trial": "enter",
    "cost": "enter right_square_bracket l l",
    "mistakes": "enter right_square_bracket",
    "explained": "enter left_square_bracket",
    "compare": "space space c",
    "plots": "2",
    "importance": "2 l l l l",
    "studies": "3",
    "system": "4",
    "pad": "5",
    "help": "question_mark",
    "launch": "n",
}

Box = tuple[float, float, float, float]  # left, top, right, bottom, in parts of a cell
Colour = tuple[int, int, int]

HALF, EIGHTH = 1 / 2, 1 / 8
QUADRANTS = {"▖": "c", "▗": "d", "▘": "a", "▙": "acd", "▚": "ad", "▛": "abc", "▜": "abd", "▝": "b", "▞": "bc"}
QUADRANTS |= {"▟": "bcd"}
CORNERS = {"a": (0, 0), "b": (HALF, 0), "c": (0, HALF), "d": (HALF, HALF)}
BLOCKS: dict[str, list[Box]] = {
    "▀": [(0, 0, 1, HALF)],
    "▐": [(HALF, 0, 1, 1)],
    "▔": [(0, 0, 1, EIGHTH)],
    "▕": [(1 - EIGHTH, 0, 1, 1)],
    **{chr(0x2580 + n): [(0, 1 - n / 8, 1, 1)] for n in range(1, 9)},
    **{chr(0x2590 - n): [(0, 0, n / 8, 1)] for n in range(1, 8)},
    **{
        char: [(*CORNERS[corner], CORNERS[corner][0] + HALF, CORNERS[corner][1] + HALF) for corner in corners]
        for char, corners in QUADRANTS.items()
    },
}
SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}  # how much of the foreground


def boxes(char: str) -> list[Box] | None:
    """The rectangles that a block, a braille pattern or a straight box line consists of; None for other characters."""
    if char in BLOCKS:
        return BLOCKS[char]
    if 0x2800 <= ord(char) <= 0x28FF:
        bits = ((0, 1, 2, 6), (3, 4, 5, 7))  # of the dots, by column and row
        on = [(x, y) for x in range(2) for y in range(4) if ord(char) >> bits[x][y] & 1]
        return [(x / 2 + 0.15, y / 4 + 0.05, x / 2 + 0.35, y / 4 + 0.15) for x, y in on]
    return box_lines(char)


@cache
def box_lines(char: str) -> list[Box] | None:
    """The lines of a box drawing character, read from its name in Unicode, such as 'LIGHT DOWN AND RIGHT'."""
    words = unicodedata.name(char, "").removeprefix("BOX DRAWINGS ").replace(" ARC ", " ")
    known = {"LIGHT", "HEAVY", "UP", "DOWN", "LEFT", "RIGHT", "HORIZONTAL", "VERTICAL", "AND"}
    if not 0x2500 <= ord(char) <= 0x257F or set(words.split()) - known:
        return None
    weights: dict[str, float] = {}
    thick = 0.1
    for part in words.split(" AND "):
        named = part.split()
        thick = 0.2 if "HEAVY" in named else 0.1 if "LIGHT" in named else thick
        for side in part.replace("HORIZONTAL", "LEFT RIGHT").replace("VERTICAL", "UP DOWN").split():
            weights |= {side: thick} if side not in ("HEAVY", "LIGHT") else {}
    found: list[Box] = []
    for side, w in weights.items():
        x, y = w, w * CELL[0] / CELL[1]  # half a line across, in parts of the width and of the height
        found.append(
            {
                "UP": (HALF - x, 0, HALF + x, HALF + y),
                "DOWN": (HALF - x, HALF - y, HALF + x, 1),
                "LEFT": (0, HALF - y, HALF + x, HALF + y),
                "RIGHT": (HALF - x, HALF - y, 1, HALF + y),
            }[side]
        )
    return found


@cache
def font(name: str) -> ImageFont.FreeTypeFont:
    path = files("matplotlib") / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(BytesIO(path.read_bytes()), FONT_SIZE)


@cache
def glyph(text: str, bold: bool, italic: bool) -> Image.Image | None:
    """The letter as a mask, one or two cells wide; None if no font has it."""
    kind = {(True, False): "-Bold", (False, True): "-Oblique", (True, True): "-BoldOblique"}.get((bold, italic), "")
    for name in (f"DejaVuSansMono{kind}", "DejaVuSansMono", "DejaVuSans"):
        face = font(name)
        if text == MISSING or drawn(face, text, 1).tobytes() != drawn(face, MISSING, 1).tobytes():
            return drawn(face, text, cell_len(text))
    return None


def drawn(face: ImageFont.FreeTypeFont, text: str, cells: int) -> Image.Image:
    width = CELL[0] * max(1, cells)
    mask = Image.new("L", (width, CELL[1]))
    left = (width - face.getlength(text)) / 2
    ImageDraw.Draw(mask).text((left, 15), text, fill=255, font=face, anchor="ls")
    return mask


def picture(strips: list[Strip], theme: TerminalTheme) -> Image.Image:
    """The lines of a screen as a picture; a cell has `CELL` pixels."""
    width = max(strip.cell_length for strip in strips)
    image = Image.new("RGB", (width * CELL[0], len(strips) * CELL[1]), tuple(theme.background_color))
    for row, strip in enumerate(strips):
        column = 0
        for segment in strip:
            front, back = colours(segment.style or Style.null(), theme)
            cells = cell_len(segment.text)
            image.paste(back, area(column, row, (0, 0, cells, 1)))
            for char in chop_cells(segment.text, 1) if cells != len(segment.text) else segment.text:
                put(image, column, row, char, front, back, segment.style or Style.null())
                column += cell_len(char)
    return image


def area(column: int, row: int, box: Box) -> tuple[int, int, int, int]:
    """A box within a cell in pixels, at least one wide and high."""
    left, top = round((column + box[0]) * CELL[0]), round((row + box[1]) * CELL[1])
    right, bottom = round((column + box[2]) * CELL[0]), round((row + box[3]) * CELL[1])
    return left, top, max(left + 1, right), max(top + 1, bottom)


def put(image: Image.Image, column: int, row: int, char: str, front: Colour, back: Colour, style: Style) -> None:
    if style.underline:
        image.paste(front, area(column, row, (0, 0.9, cell_len(char), 0.95)))
    if char.isspace() or not char:
        return
    if char in SHADES:
        image.paste(blend(front, back, SHADES[char]), area(column, row, (0, 0, 1, 1)))
    elif (parts := boxes(char)) is not None:
        for box in parts:
            image.paste(front, area(column, row, box))
    elif (mask := glyph(char, bool(style.bold), bool(style.italic)) or glyph(MISSING, False, False)) is not None:
        image.paste(front, area(column, row, (0, 0, 0, 0))[:2], mask)


def colours(style: Style, theme: TerminalTheme) -> tuple[Colour, Colour]:
    """Foreground and background as they are seen."""
    front = tuple(style.color.get_truecolor(theme)) if style.color else theme.foreground_color
    back = tuple(style.bgcolor.get_truecolor(theme, False)) if style.bgcolor else theme.background_color
    if style.reverse:
        front, back = back, front
    if style.dim:
        front = blend(front, back, 0.6)
    return (front[0], front[1], front[2]), (back[0], back[1], back[2])


def blend(front: tuple[int, ...], back: tuple[int, ...], part: float) -> Colour:
    red, green, blue = (round(part * a + (1 - part) * b) for a, b in zip(front, back))
    return red, green, blue


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.quantize(96, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def present(app: Dashboard) -> Image.Image:
    """The visible screen."""
    return picture(app.screen._compositor.render_strips(), app.ansi_theme)


async def pictures(results: Path, keys: str, size: tuple[int, int], themes: list[str]) -> dict[str, Image.Image]:
    """The screen after the given keys in each theme. `size` is (width, height) in cells."""
    app = Dashboard(results, interval=0.1)
    app.animation_level = "none"
    found = {}
    async with app.run_test(size=size) as pilot:
        await pilot.pause(PAUSE)
        while app.snapshot.loading or not app.snapshot.version:
            await pilot.pause(PAUSE)
        for key in keys.split():
            await pilot.press(key)
            await pilot.pause(PAUSE)
        for theme in themes:
            app.theme = theme
            await pilot.pause(PAUSE)
            found[theme] = present(app)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw screens of the dashboard as PNG.")
    parser.add_argument("results", type=Path)
    parser.add_argument("to", type=Path, help="a directory; it gets SCREEN-SIZE-THEME.png")
    parser.add_argument("--screens", nargs="+", choices=SCREENS, default=list(SCREENS))
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="cells, WIDTHxHEIGHT")
    names = [theme.name for theme in THEMES]
    parser.add_argument("--themes", nargs="+", choices=names, default=["suite", "suite-light"])
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for screen in given.screens:
        for size in given.sizes:
            width, height = (int(part) for part in size.split("x"))
            drawn_here = pictures(given.results.absolute(), SCREENS[screen], (width, height), given.themes)
            for theme, image in asyncio.run(drawn_here).items():
                write_atomic(given.to / f"{screen}-{size}-{theme}.png", png(image))


if __name__ == "__main__":
    main()
