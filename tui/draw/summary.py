"""The line above the board: what it shows, and what it leaves out."""

from __future__ import annotations

from tui.draw.cells import title
from tui.model.board import Board
from tui.model.view import View


def summary(board: Board, view: View, marked: int, replay: int | None) -> str:
    """One line on what the table shows and leaves out, the counts first. `replay` is in percent, None: live."""
    words = [f"replay {replay}% (esc ends it)"] if replay is not None else []
    all_of_them = f"{board.total} trial{'s' if board.total != 1 else ''}"
    words += [f"{board.matched} of {board.total}" if board.matched != board.total else all_of_them]
    if view.filter:
        words.append(f"filter {view.filter}")
    words.append(f"{'worst' if view.reverse else 'best'} {title(view.sort) or view.sort} first")
    words.append(f"★ Pareto by {title(view.cost)}")
    if view.study:
        words.append(f"study {view.study} (esc: all)")
    if view.top:
        words.append(f"top {view.top}")
    if view.grouped:
        words.append("seeds grouped: mean ± 95 %")
    if marked:
        words.append(f"{marked} marked")
    if board.archived:
        words.append(f"{board.archived} archived (filter is:archived)")
    if board.splits > 1:
        words.append(f"{board.splits} validation sets: compare within one (2 names its filter)")
    return " · ".join(words)
