"""A table of a few runs beside each other, as many as fit the width. Pure functions."""

from __future__ import annotations

from tui.draw.aligned import right, shortened, widest

LEAST = 12  # cells of a run's column, if its values need as many
GAP = "  "


def side_by_side(rows: list[tuple[str, list[str]]], begin: int, width: int) -> tuple[list[str], int]:
    """Lines of a name and the runs' values from the run `begin` on, and the number of runs that fit.

    Names and values that are too long are shortened in the middle.
    """
    count = len(rows[0][1]) if rows else 0
    first = min(widest([name for name, _ in rows]), max(LEAST, width // 3))
    room = width - first
    fitting = max(1, min(count, room // (LEAST + len(GAP))))
    most = max(LEAST, room // fitting - len(GAP))
    widths = [min(most, widest([values[i] for _, values in rows])) for i in range(count)]
    shown: list[int] = []
    for i in range(min(begin, count), count):
        room -= widths[i] + len(GAP)
        if shown and room < 0:
            break
        shown.append(i)
    lines = [
        GAP.join(
            (right(shortened(name, first), first), *(right(shortened(values[i], widths[i]), widths[i]) for i in shown))
        )
        for name, values in rows
    ]
    return lines, len(shown)
