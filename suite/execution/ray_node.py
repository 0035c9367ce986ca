"""What runs on a Ray node: an actor that runs trials one after another, one event a call."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from suite.errors import WorkError
from suite.execution.attempt import Attempt, release_memory
from suite.execution.job import Job, Limits
from suite.execution.ray_files import Files, NodeDirectory
from suite.execution.worker import limit_memory
from suite.spec import Event, Verdict
from suite.store.files import disk_fault
from suite.store.provenance import version


@dataclass(frozen=True)
class Node:
    """Where an actor has been placed."""

    host: str
    version: str  # of this package there
    shares: bool  # whether it sees the results directory


@dataclass(frozen=True)
class Report:
    """One step of a trial: an event, or its end (None)."""

    event: Event | None
    files: Files  # what the controller has to write: nothing where the node sees the results directory
    fault: str | None = None  # of the disk, not of the trial
    usable: bool = True  # whether the process can run another trial


class Actor:
    """The class of the Ray actors. Its calls are made one at a time."""

    def __init__(self, limits: Limits) -> None:
        limit_memory(limits.memory)
        self._directory: NodeDirectory | None = None
        self._attempt: Attempt | None = None

    def look(self, probe: str, content: str) -> Node:
        """Describe this node. It shares the results directory if the file `probe` there has this content."""
        try:
            shares = Path(probe).read_text() == content
        except OSError:
            shares = False
        return Node(socket.gethostname(), version(), shares)

    def begin(self, job: Job, given: Files | None) -> Report:
        """Begin an attempt and run it to its first event.

        `given` are its files and weights where this node does not see the results directory, else None.
        """
        try:
            if given is not None:
                self._directory = self._directory or NodeDirectory()
                job = self._directory.place(job, given)
            self._attempt = Attempt(job)
        except OSError as error:
            return Report(None, {}, fault=disk_fault(error))
        return self.go_on(None)

    def go_on(self, verdict: Verdict | None) -> Report:
        """Run the attempt to its next event; `verdict` is the answer to the last one."""
        assert self._attempt is not None
        try:
            event = self._attempt.advance(verdict)
            files = self._directory.changes() if self._directory is not None else {}
        except WorkError as error:
            return Report(None, {}, fault=str(error))
        except OSError as error:
            return Report(None, {}, fault=disk_fault(error))
        return Report(event, files, usable=event is not None or release_memory())
