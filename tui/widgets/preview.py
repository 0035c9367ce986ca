"""The run under the cursor, shown beside the table in wide terminals."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical

from suite.ranking.leaderboard import COLUMNS, text
from tui.draw.aligned import right, widest
from tui.draw.cells import title, value_text
from tui.draw.chart import Axis, Series
from tui.draw.figures import epochs, percent
from tui.model.board import BoardLine
from tui.model.detail import clean
from tui.widgets.chart import Chart
from tui.widgets.static import Static

KEYS = (
    "state",
    "accuracy",
    "low",
    "high",
    "epoch",
    "seconds",
    "speed",
    "flops",
    "params",
    "memory",
    "energy",
    "latency",
)


class Preview(Vertical):
    """Validation curve, main figures and hyperparameters of one line of the leaderboard."""

    def compose(self) -> ComposeResult:
        yield Static(id="preview-title", markup=False)
        yield Chart(id="preview-chart")
        yield Static(id="preview-text", markup=False)

    def show(self, line: BoardLine | None) -> None:
        if line is None:
            return
        run, row = line.runs[0], line.row
        self.query_one("#preview-title", Static).update(f"{row.study}/{row.trial}")
        curve = [(float(epoch), accuracy) for epoch, accuracy in epochs(run)]
        kind = "line" if len(curve) > 1 else "points"
        self.query_one(Chart).show(
            (Series("", curve, kind),), Axis("epoch", whole=True), Axis("validation accuracy", text=percent)
        )
        lines = [f"{row.arm}: {row.backbone}, {row.strategy}"]
        shown = [(COLUMNS[key].title, text(row, key)) for key in KEYS if getattr(row, key) is not None]
        shown += [(title(name), value_text(value)) for name, value in row.tuned.items()]
        width = widest([name for name, _ in shown])
        lines += [f"{right(name, width)}  {value}" for name, value in shown]
        if row.reason:
            lines.append(clean(row.reason))
        self.query_one("#preview-text", Static).update("\n".join(lines))
