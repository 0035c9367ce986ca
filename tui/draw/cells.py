"""Cells of the leaderboard as text, and the formats of single values. Glyphs show every state without colour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from suite.ranking.leaderboard import COLUMNS, Row, text
from tui.draw.aligned import shortened
from tui.model.board import Board, BoardLine, row_value
from tui.model.detail import clean
from tui.model.snapshot import Key, Run
from tui.model.view import View

STATES = ("running", "stale", "waiting", "paused", "finished", "pruned", "failed", "stopped")  # of a run
GLYPHS = {
    "waiting": "○",
    "running": "●",
    "paused": "‖",
    "stale": "◌",
    "stopped": "■",
    "stopping": "■",
    "finished": "✓",
    "done": "✓",
    "pruned": "✂",
    "failed": "✗",
    "gone": "✗",
    "unknown": "?",
}
PARETO, MARKED, PINNED, TIED = "★", "●", "▲", "~"
TITLES = {
    "flag": "",
    "gap": "Δ best",
    "curve": "val curve",
    "power": "power",
    "dataset": "data set",
    "host": "host",
    "seeds": "seeds",
    "tuned": "tuned",
}
LEFT = frozenset(
    {"flag", "tuned", "dataset", "host", "curve", *(key for key, column in COLUMNS.items() if column.textual)}
)
NAMES = ("study", "arm", "backbone", "dataset")  # columns whose texts are shortened in the middle
NAME, NARROW_NAME = 20, 14  # cells of such a name, and on a narrow screen
BARS = "▁▂▃▄▅▆▇█"
SPARK = 12  # points of a sparkline


def title(key: str) -> str:
    """A column's heading; for a hyperparameter the last part of its path."""
    if key in TITLES:
        return TITLES[key]
    return COLUMNS[key].title if key in COLUMNS else key.rpartition(".")[2]


def cell(
    line: BoardLine,
    key: str,
    place: int,
    *,
    board: Board,
    view: View,
    marked: Collection[Key],
    pinned: Collection[Key],
    narrow: bool = False,
) -> str:
    """The text of a cell. `place` is the index of the line on the board; `narrow` is for screens of some 80 cells."""
    row, run = line.row, line.runs[0]
    if key == "flag":
        keys = [member.key for member in line.runs]
        return "".join(
            (
                PINNED if any(k in pinned for k in keys) else " ",
                MARKED if any(k in marked for k in keys) else " ",
                PARETO if line.key in board.front else " ",
            )
        )
    if key == "rank":
        if row.state != "finished":
            return "-"
        return f"{TIED if board.tied(row) else ''}{board.rank(place)}"
    if key == "state":
        return state(run, row.state, narrow)
    if key == "gap":
        gap = board.gap(row)
        return "-" if gap is None else "best" if gap == 0 and row.state == "finished" else f"{100 * gap:+.2f}"
    if key in NAMES:
        whole = clean(run.trial.dataset if key == "dataset" else text(row, key))
        return shortened(whole, NARROW_NAME if narrow else NAME)
    if key == "accuracy" and len(line.runs) > 1 and row.low is not None and row.high is not None:
        return text(row, key) + half_width(row.low, row.high)
    if key in ("test", "gain"):
        return measured(row, key)
    if key == "curve":
        return sparkline(row.curve)
    if key == "power":
        value = row_value(row, key)
        return "-" if value is None else f"{value:.3g} W"
    if key == "host":
        return run.host or "-"
    if key == "seeds":
        return str(len(line.runs))
    if key in COLUMNS:
        return clean(text(row, key))
    return clean(value_text(row_value(row, key)))


def measured(row: Row, key: str) -> str:
    """Test accuracy or gain with half the width of its interval; 'default' is the gain of the default recipe itself."""
    low, high = getattr(row, f"{key}_low"), getattr(row, f"{key}_high")
    if key == "gain" and row.gain == 0 and low is None and row.state == "finished":
        return "default"
    return text(row, key) + half_width(low, high)


def half_width(low: float | None, high: float | None) -> str:
    """' ±0.12', half the width of an interval in points; empty where it is unknown."""
    return "" if low is None or high is None else f" ±{50 * (high - low):.2f}"


def state(run: Run, name: str, narrow: bool) -> str:
    """The glyph of a state, its name where there is room, and of a running trial the part done and the time left."""
    glyph = GLYPHS.get(name, "?")
    words = [glyph] if narrow else [glyph, name]
    steps = run.started.steps if run.started is not None else 0
    if name == "running" and steps:
        words.append(f"{100 * min(run.step / steps, 1):.0f}%")
        if run.row.seconds and 0 < run.step < steps:
            words.append(f"{duration(run.row.seconds * (steps - run.step) / run.step)} left")
    return " ".join(words)


def counted(states: Mapping[str, int]) -> str:
    """'✂ 42 pruned  ‖ 3 paused'."""
    return "  ".join(f"{GLYPHS.get(name, '?')} {count} {name}" for name, count in states.items())


def value_text(value: Any) -> str:
    """The value of a hyperparameter or of a setting."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def sparkline(values: tuple[float, ...], width: int = SPARK) -> str:
    """The last `width` points of a curve, scaled between their minimum and maximum."""
    shown = values[-width:]
    if not shown:
        return "-"
    low, high = min(shown), max(shown)
    if high == low:
        return BARS[3] * len(shown)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in shown)


def duration(seconds: float | None) -> str:
    """'12 s', '4 min', '2.1 h', '3.5 d'."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    for size, unit in ((86_400.0, "d"), (3600.0, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def ago(seconds: float) -> str:
    """'just now', '4 min ago'. The seconds of a minute are not told: they would be drawn anew all the time."""
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


def joules(value: float | None) -> str:
    """'3.4kJ', or '-' if unknown."""
    return "-" if value is None else COLUMNS["energy"].text(value)
