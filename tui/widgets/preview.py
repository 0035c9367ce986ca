"""The run under the cursor, shown beside the table in wide terminals and below it in tall ones."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container

from suite.ranking.leaderboard import COLUMNS, text
from tui.draw.aligned import left, widest
from tui.draw.cells import GLYPHS, title, value_text
from tui.draw.chart import Axis, Series
from tui.draw.figures import epochs, percent
from tui.model.board import BoardLine
from tui.model.detail import clean
from tui.widgets.chart import Chart
from tui.widgets.static import Static

COSTS = ("flops", "params", "train_flops", "seconds", "speed", "memory", "energy", "latency")


class Preview(Container):
    """Validation curve, costs and settings of one line of the leaderboard."""

    def compose(self) -> ComposeResult:
        yield Static(id="preview-title", markup=False)
        yield Chart(id="preview-chart")
        yield Static(id="preview-costs", markup=False)
        yield Static(id="preview-settings", markup=False)

    def show(self, line: BoardLine | None) -> None:
        if line is None:
            for part in self.query(Static):
                part.update("")
            self.query_one(Chart).show((), Axis(), Axis())
            return
        run, row = line.runs[0], line.row
        self.query_one("#preview-title", Static).update(f"{row.study}/{row.trial}")
        curve = [(float(epoch), accuracy) for epoch, accuracy in epochs(run)]
        kind = "line" if len(curve) > 1 else "points"
        self.query_one(Chart).show(
            (Series("", curve, kind),), Axis("epoch", whole=True), Axis("validation accuracy", text=percent)
        )
        facts = [(COLUMNS[key].title, text(row, key)) for key in ("accuracy", "epoch") if getattr(row, key) is not None]
        if row.low is not None and row.high is not None:
            facts.insert(1, ("95% interval", f"{100 * row.low:.2f} to {100 * row.high:.2f}%"))
        facts += [(COLUMNS[key].title, text(row, key)) for key in COSTS if getattr(row, key) is not None]
        reason = f"\n{clean(row.reason)}" if row.reason else ""
        self.query_one("#preview-costs", Static).update(
            section(f"{GLYPHS.get(row.state, '?')} {row.state}", facts).append(reason)
        )
        settings = [("arm", row.arm), ("backbone", row.backbone), ("strategy", row.strategy)]
        settings += [(title(name), value_text(value)) for name, value in row.tuned.items()]
        self.query_one("#preview-settings", Static).update(section("settings", settings))


def section(heading: str, facts: list[tuple[str, str]]) -> Text:
    """Names and values below a heading."""
    width = widest([name for name, _ in facts])
    found = Text(heading, style="", no_wrap=True, overflow="ellipsis")
    found.stylize("bold")
    for name, value in facts:
        found.append(f"\n{left(name, width)}  ", "dim").append(clean(value))
    return found
