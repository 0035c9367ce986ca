"""Commands that the dashboard has started. They run independently of it; here is known how they end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tui.model.jobs import Task, ending
from tui.model.logs import tail
from tui.work.commands import PROGRAM

KEPT = 20  # commands that have ended and are remembered
AT_ONCE = 60.0  # seconds within which a failure counts as one of the start


@dataclass
class Child:
    """A command that was started here. It is never ended here."""

    process: subprocess.Popen[bytes]
    task: Task
    done: str  # what is shown when it has succeeded
    began: float  # by the monotonic clock

    @property
    def young(self) -> bool:
        return time.monotonic() - self.began < AT_ONCE


class Children:
    """The commands in the order in which they were started, at work or ended."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    @property
    def tasks(self) -> list[Task]:
        return [child.task for child in self._children]

    def start(self, words: Sequence[str], task: Task, done: str, environment: Mapping[str, str]) -> Child:
        """Start `mnist-suite WORDS` detached. Raises OSError."""
        child = Child(start(words, task.log, environment), task, done, time.monotonic())
        self._children = [c for c in self._children if not c.task.failed or c.task.name != task.name]
        self._children.append(child)
        return child

    def ended(self) -> list[Child]:
        """The commands that have ended since the last call."""
        found: list[Child] = []
        for child in self._children:
            if child.task.ending is None and (code := child.process.poll()) is not None:
                said = next((line for line in reversed(tail(child.task.log)) if line.strip()), "no output")
                said = said.removeprefix("mnist-suite: ")
                child.task = replace(child.task, ending=ending(code), said=f"{said} (code {code})")
                found.append(child)
        over = [child for child in self._children if child.task.ending is not None]
        for child in over[:-KEPT]:
            self._children.remove(child)
        return found

    def newest(self, study: str | None = None) -> Task | None:
        """The command that was started last, in this study or at all; first those with a line among the jobs."""
        tasks = [task for task in reversed(self.tasks) if study in (None, task.study)]
        return next((task for task in tasks if task.ending is None or task.failed), tasks[0] if tasks else None)

    def seen(self, log: Path) -> None:
        """The user has looked at this log: its failure need not be shown any longer."""
        for child in self._children:
            if child.task.failed and child.task.log == log:
                child.task = replace(child.task, ending="done")


def start(words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `mnist-suite WORDS` in a session of its own, its output appended to `log`. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=dict(environment if environment is not None else os.environ),
        )
