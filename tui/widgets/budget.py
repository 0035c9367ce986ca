"""The budget bars: progress, remaining time and energy of the studies that are not done."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from suite.spec import Status
from tui.draw.cells import GLYPHS, ago, duration, joules
from tui.model.snapshot import Snapshot, StudyView
from tui.widgets.static import Static

MOST = 3  # bars at a time
EIGHTHS = " ▏▎▍▌▋▊▉"


class Budget(Static):
    """Bars of the studies that are shown on the leaderboard."""

    def show(self, snapshot: Snapshot, study: str | None, now: float) -> None:
        """Show a bar for each study that is not done; if there is only one study, in any state."""
        views = [view for view in snapshot.studies if study in (None, view.name)]
        if len(views) > 1:
            views = [view for view in views if view.state not in ("done", "unknown")]
        lines = [budget_line(view, now, max(20, self.size.width or 80)) for view in views[:MOST]]
        if len(views) > MOST:
            lines.append(f"… and {len(views) - MOST} more; key 3 shows all studies")
        self.display = bool(lines)
        self.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"))


def budget_line(view: StudyView, now: float, width: int) -> str:
    """'mnist ████▌   31/50 · 4 running · eta 12 min · 3.4 kJ → 5.6 kJ' within `width` cells."""
    done, planned = view.done, max(view.planned, view.done, 1)
    words = [f"{done}/{planned}", f"{GLYPHS.get(view.state, '?')} {view.state}"]
    status = view.status
    if status is not None:
        if status.running:
            words.append(f"{len(status.running)} at work")
        if status.paused:
            words.append(f"{status.paused} paused")
        if status.state == "running" and status.eta_seconds is not None:
            words.append(f"eta {duration(status.eta_seconds)}")
        if view.stale:
            words.append(
                "its process has died: R resumes it" if view.died else f"last sign {ago(now - status.heartbeat)}"
            )
    energy = projected(view)
    if view.energy is not None:
        words.append(joules(view.energy) + (f" → ~{joules(energy)}" if energy is not None and done < planned else ""))
    if view.best is not None and view.best.row.accuracy is not None:
        words.append(f"best {100 * view.best.row.accuracy:.2f}%")
    if status is not None and status.message:
        words.append(said(status))
    text = " · ".join(words)
    room = max(4, min(30, width - cell_len(view.name) - cell_len(text) - 4))
    return f"{view.name} {bar(done / planned, room)} {text}"


def said(status: Status) -> str:
    """Why a study ends or has ended, in words: a controller names the file that asked it to stop."""
    return "stopped on request: R resumes it" if status.message == "stop.request" else status.message


def projected(view: StudyView) -> float | None:
    """Joules at the end, if each remaining trial takes the mean of the measured ones; None if none was measured."""
    known = [run.row.energy for run in view.runs if run.row.energy is not None]
    return sum(known) / len(known) * max(view.planned, len(known)) if known else None


def bar(part: float, width: int) -> str:
    """A bar of `width` cells that shows a part between 0 and 1, in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if full < width and rest else "")).ljust(width, "░")
