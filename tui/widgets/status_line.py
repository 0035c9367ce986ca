"""The top line of a screen: the main screens with their keys, the number of studies and runs, and problems."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text

from suite.ranking.leaderboard import text
from tui.draw.cells import GLYPHS, STATES
from tui.model.snapshot import Snapshot
from tui.widgets.static import Static

ROOM = 132  # cells; in wider terminals states are named beside their glyphs
SCREENS = ("Board", "Plots", "Studies", "System", "Pad")  # a mode of the application each, and their keys 1 to 5


class StatusLine(Static):
    """One line with the most important items first, since a narrow terminal cuts off its end."""

    def show(self, screen: str, snapshot: Snapshot, problem: str | None, readonly: bool) -> None:
        """`screen` is one of `SCREENS`, or the name of one that lies above them."""
        counts = snapshot.counts
        line = Text(no_wrap=True, overflow="ellipsis")
        if screen not in SCREENS:
            line.append(f" {screen} ", style="reverse bold")
        for key, name in enumerate(SCREENS, 1):
            style = Style(reverse=name == screen, bold=name == screen)
            line.append(f" {key} {name} ", style + Style(meta={"@click": f"app.mode('{name.lower()}')"}))
        if problem := problem or (snapshot.problem if snapshot.studies else None):
            line.append(f"  {problem}", style="bold")
        if readonly:
            line.append("  read-only", style="italic")
        line.append(f"  {len(snapshot.studies)} stud{'y' if len(snapshot.studies) == 1 else 'ies'}")
        best = max(
            (view.best for view in snapshot.studies if view.best), key=lambda run: run.row.accuracy or 0.0, default=None
        )
        if best is not None:
            line.append(f"  best {text(best.row, 'accuracy')}", style="bold")
        for state in STATES:
            if counts[state]:
                words = f" {state}" if self.app.size.width >= ROOM else ""
                line.append(f"  {GLYPHS[state]} {counts[state]}{words}")
        if snapshot.loading:
            line.append(f"  reading {snapshot.loading} more …", style="italic")
        bad = snapshot.bad_lines
        if bad:
            line.append(f"  {bad} unreadable line{'s' if bad > 1 else ''}")
        self.update(line)
