"""Text that is drawn again only when it changes."""

from __future__ import annotations

from textual import widgets
from textual.visual import VisualType


class Static(widgets.Static):
    """As Textual's, which draws at every update: screens update twice a second, and a line may be slow or paid for."""

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        style = getattr(content, "style", ""), getattr(self.content, "style", "")  # rich does not compare it
        if content != self.content or style[0] != style[1]:
            super().update(content, layout=layout)
