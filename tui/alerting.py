"""Runs the user's command at alerts: one at a time, without a shell, the event in environment variables.

MNIST_SUITE_EVENT is a kind of `tui.model.alerts`; _STUDY, _TRIAL (may be empty), _TEXT and _RESULTS go with it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from suite.spec import Status
from suite.store.files import scratch_dir
from tui.model.alerts import Alert, alerts, condensed
from tui.model.snapshot import Snapshot
from tui.settings import Alerts

WAITING = 20  # alerts that wait while the command runs; the oldest are dropped


class Hook:
    """The command; without one nothing ever runs."""

    def __init__(self, command: str, results: Path, environment: Mapping[str, str]) -> None:
        self._words = shlex.split(command)
        self._results, self._environment = results, environment
        self._waiting: deque[Alert] = deque(maxlen=WAITING)
        self._process: subprocess.Popen[bytes] | None = None

    def raised(self, alert: Alert) -> None:
        """Run the command for this alert, when those before it are done."""
        if self._words:
            self._waiting.append(alert)

    def tend(self) -> str | None:
        """Start the next one if none is running. To be called repeatedly; returns why one could not be started, or how
        the last one failed."""
        problem = None
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return None
            self._process = None
            problem = f"ended with code {code}; its output is in {log_path()}" if code else None
        if self._waiting:
            try:
                self._process = self._start(self._waiting.popleft())
            except (OSError, ValueError) as error:  # ValueError: a NUL in the command
                problem = getattr(error, "strerror", None) or str(error)
        return f"{self._words[0]}: {problem}" if problem else None

    def _start(self, alert: Alert) -> subprocess.Popen[bytes]:
        event = {"EVENT": alert.kind, "STUDY": alert.study, "TRIAL": alert.trial, "TEXT": alert.text}
        event["RESULTS"] = str(self._results)
        environment = {**self._environment, **{f"MNIST_SUITE_{name}": value for name, value in event.items()}}
        with open(log_path(), "ab", opener=_private) as log:
            return subprocess.Popen(
                self._words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it goes on when the dashboard ends
            )


class Alerting:
    """Finds the alerts in the snapshots that the feed delivers. What was before the first of them raises none."""

    def __init__(self, settings: Alerts, hook: Hook | None) -> None:
        """`hook` is None where nothing may be started."""
        self.bell = settings.bell
        self._hook = hook
        self._before: Snapshot | None = None  # the last one that was read to the end
        self._first: Mapping[str, Status | None] = {}

    def news(self, snapshot: Snapshot) -> list[Alert]:
        """The alerts since the last call, a few of each kind. The command is to be run for each of them."""
        before = self._before
        if snapshot.loading or snapshot is before:
            return []
        self._before = snapshot
        if before is None:
            self._first = {view.name: view.status for view in snapshot.studies}
            return []
        found = condensed(alerts(before, snapshot, self._first))
        for alert in found:
            if self._hook is not None:
                self._hook.raised(alert)
        return found

    def tend(self) -> str | None:
        """As `Hook.tend`."""
        return self._hook.tend() if self._hook is not None else None


def log_path() -> Path:
    """The output of the commands. Raises OSError."""
    return scratch_dir("logs") / "alerts.log"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
