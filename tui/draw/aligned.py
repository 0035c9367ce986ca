"""Text in a given number of terminal cells: a character takes none, one or two, so their count says too little."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

left = set_cell_size  # left(text, width): padded on the right, or cut, to exactly `width` cells


def right(text: str, width: int) -> str:
    """`text` padded on the left, or cut at its end, to exactly `width` cells."""
    blanks = width - cell_len(text)
    return " " * blanks + text if blanks >= 0 else set_cell_size(text, width)


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; it ends in an ellipsis if it was longer."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"[:width]


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` cells; an ellipsis takes the place of its middle, since names differ at both ends."""
    if cell_len(text) <= width or width < 3:
        return cut(text, width)
    end = text[-((width - 1) // 2) :]
    return set_cell_size(text, max(0, width - 1 - cell_len(end))).rstrip() + "…" + end


def widest(texts: list[str]) -> int:
    """The cells that the widest of these texts takes; 0 if there are none."""
    return max(map(cell_len, texts), default=0)
