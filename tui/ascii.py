"""The dashboard in ASCII, for terminals whose font or encoding lacks its glyphs.

Text is replaced in one place, on its way to the terminal, so that no code that draws knows of it. Each cell keeps its
place. States become letters: v finished, @ running, o waiting, p paused, z stale, s stopped, x pruned, X failed.
"""

from __future__ import annotations

import locale
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

WITHOUT_GLYPHS = ("linux", "dumb", "vt100", "vt220")  # values of TERM; the Linux console has no braille patterns
CHARACTERS = {
    # states, marks and the glyphs of series
    **dict(zip("✓●○‖◌■✂✗★▲◆▼✚◇", "v@opzsxX*ADV+O")),
    **dict(zip("▴▾▸▶◂◀→←↑↓⏎↵⇥", "^v>><<><^v<<>")),
    # text
    **dict(zip("…·±Δ°µ×–—‘’“”•≤≥−□", "~|~doux--''\"\"*<>-#")),
    # bars, by how much of the cell is filled
    **dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#")),
    **dict(zip("▏▎▍▌▋▊▉▐▕░▒▓▔▀", "||==###||.:%-^")),
    # lines
    **dict.fromkeys("─━╌╍┄┅╸╺╴╶", "-"),
    **dict.fromkeys("│┃╎┆┇", "|"),
}
GREYS = " .:-=+*#%@"  # of pictures in half-blocks, from dark to light


def needed(environment: Mapping[str, str]) -> bool:
    """Whether the terminal cannot show the glyphs, by its kind or by the encoding of its locale."""
    if environment.get("TERM", "") in WITHOUT_GLYPHS:
        return True
    name = next((environment[key] for key in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(key)), "")
    if not name:
        return False  # not set, as in many containers: says nothing about the terminal
    charset = locale.normalize(name).partition(".")[2].partition("@")[0]
    return charset.casefold().replace("-", "") != "utf8"


@lru_cache(8192)
def ascii_text(text: str) -> str:
    """The text in ASCII, of the same width in cells."""
    if text.isascii():
        return text
    return set_cell_size("".join(map(_replacement, text)), cell_len(text))


def _replacement(char: str) -> str:
    if char.isascii():
        return char
    if char in CHARACTERS:
        return CHARACTERS[char]
    if 0x2500 <= ord(char) <= 0x259F:  # what is left of the box lines, and quadrants
        return "+" if ord(char) < 0x2580 else "#"
    if 0x2800 <= ord(char) <= 0x28FF:
        return braille(ord(char) - 0x2800)
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()  # é is e
    return plain if len(plain) == cell_len(char) else "?" * cell_len(char)


def braille(bits: int) -> str:
    """The character that is most like a braille pattern with these dots."""
    left = [row for row, bit in enumerate((0, 1, 2, 6)) if bits >> bit & 1]
    right = [row for row, bit in enumerate((3, 4, 5, 7)) if bits >> bit & 1]
    rows = left + right
    if not rows:
        return " "
    if left and right:
        slope = sum(right) / len(right) - sum(left) / len(left)
        if abs(slope) >= 1:
            return "\\" if slope > 0 else "/"
        if len(rows) >= 6:
            return "#"
    elif len(rows) > 2:
        return "|"
    height = sum(rows) / len(rows)
    return "'" if height < 1 else "-" if height < 2.1 else "."


class Ascii(LineFilter):
    """Replaces what is not ASCII in the lines of every widget."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.text.isascii() else Segment(_shown(segment.text, segment.style), segment.style)
            for segment in segments
        ]


def _shown(text: str, style: Style | None) -> str:
    """A picture in half-blocks by its brightness, everything else by its characters."""
    if style is not None and text == "▀" * len(text) and style.color and style.bgcolor and not style.bgcolor.is_default:
        colours = (*style.color.get_truecolor(), *style.bgcolor.get_truecolor())
        return GREYS[round(sum(colours) / len(colours) / 255 * (len(GREYS) - 1))] * len(text)
    return ascii_text(text)
