"""What the screens with charts share: zoom, pan and the kind of the axis."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from tui.draw.axes import WHOLE
from tui.keys import bindings
from tui.screens.base import LiveScreen


class ChartScreen(LiveScreen):
    """A live screen whose charts show a part of the x axis, accuracies linear or by the logarithm of the error."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        hidden=(
            ("zoom-in", "zoom(0.5)"),
            ("zoom-out", "zoom(2)"),
            ("pan-left", "pan(-0.25)"),
            ("pan-right", "pan(0.25)"),
            ("reset", "show_all", "Show all"),
            ("linear", "linear"),
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.window = WHOLE  # the part of the x axis that is shown
        self.linear = False  # accuracies, and not their errors on a logarithmic scale
        self._shown: tuple[object, ...] = ()  # what was drawn last

    def centre(self) -> float | None:
        """Where zooming aims at, as a share of the whole x axis: the point under the cursor; None: the middle."""

    def action_zoom(self, factor: float) -> None:
        self.window = self.window.zoomed(factor, self.centre())
        self.redraw()

    def action_pan(self, by: float) -> None:
        self.window = self.window.panned(by)
        self.redraw()

    def action_show_all(self) -> None:
        self.window = WHOLE
        self.redraw()

    def action_linear(self) -> None:
        self.linear = not self.linear
        self.redraw()
