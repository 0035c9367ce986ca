"""Lines of a log with their numbers, wrapped to a width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, chop_cells

from tui.model.logs import Numbered, matching

Section = tuple[str, Sequence[Numbered]]  # a title, which may be empty, and lines
Drawn = tuple[str, str]  # the number of a line, blank on the lines that continue one, and its text


def log_lines(sections: Iterable[Section], wanted: str, width: int) -> list[Drawn]:
    """The lines with this text, each as many lines of `width` cells as it needs; titles have no number."""
    found = [(title, matching(lines, wanted)) for title, lines in sections]
    digits = max((len(str(lines[-1][0])) for _, lines in found if lines), default=1)
    room, blank = max(8, width - digits - 2), " " * digits
    drawn: list[Drawn] = []
    for title, lines in found:
        if title:
            drawn.append(("", title))
        for number, text in lines:
            parts = [text] if cell_len(text) <= room else chop_cells(text, room)
            drawn += [(f"{number:>{digits}}" if not i else blank, part) for i, part in enumerate(parts or [""])]
    return drawn
