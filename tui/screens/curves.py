"""What the screens that draw learning curves share: the choice of axes and smoothing."""

from __future__ import annotations

from tui.draw.axes import WHOLE
from tui.draw.curves import EFFORTS, QUANTITIES, SMOOTHINGS
from tui.screens.charts import ChartScreen


class CurvesScreen(ChartScreen):
    """A live screen with curves; each action selects the next of the x axes, quantities or smoothings."""

    def __init__(self) -> None:
        super().__init__()
        self.effort, self.quantity, self.smoothing = EFFORTS[0], QUANTITIES[0], SMOOTHINGS[1]
        self.at: float | None = None  # the x value of the crosshair

    def action_close(self) -> None:
        self.dismiss()

    def action_effort(self) -> None:
        self.effort = EFFORTS[(EFFORTS.index(self.effort) + 1) % len(EFFORTS)]
        self.at, self.window = None, WHOLE  # both are of the former axis
        self.redraw()

    def action_quantity(self) -> None:
        self.quantity = QUANTITIES[(QUANTITIES.index(self.quantity) + 1) % len(QUANTITIES)]
        self.redraw()

    def action_smooth(self) -> None:
        self.smoothing = SMOOTHINGS[(SMOOTHINGS.index(self.smoothing) + 1) % len(SMOOTHINGS)]
        self.redraw()
