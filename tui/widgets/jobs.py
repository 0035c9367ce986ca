"""The Jobs line: what is at work beside the trials that are shown, and commands that have failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from tui.draw.cells import GLYPHS
from tui.model.jobs import Job
from tui.widgets.static import Static

MOST = 3  # lines


class Jobs(Static):
    def __init__(self) -> None:
        super().__init__(id="jobs")
        self.display = False

    def show(self, jobs: list[Job]) -> None:
        self.display = bool(jobs)
        self.update(job_lines(jobs))


def job_lines(jobs: Sequence[Job]) -> Text:
    """'● mnist-2: pretraining 1 of 1, then 50 trials', and how to see the log of one that failed."""
    text = Text(no_wrap=True, overflow="ellipsis", end="")
    for i, job in enumerate(jobs[:MOST]):
        glyph, style = (GLYPHS["failed"], Style(bold=True)) if job.failed else (GLYPHS["running"], Style())
        more = f" (and {len(jobs) - MOST} more)" if i == MOST - 1 and len(jobs) > MOST else ""
        log = "O its log · " if job.failed and i == 0 else ""
        text.append("\n" if i else "")
        text.append(f"{glyph} {job.name}: {log}{job.text}{more}", style + Style(meta={"@click": "screen.jobs_log"}))
    return text
