"""status.json: the controller's heartbeat, by which controllers on several hosts keep out of each other's way.

A lock keeps a second controller out on one host (`StudyDir.lock`). On some network disks locks do not reach other
hosts; there, a controller that begins waits for a heartbeat of the other one (`wait_for_other_host`), and one that
finds status.json written by another ends itself (`StatusWriter.write`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Literal

from suite.errors import InputError, WorkError, printable
from suite.execution.ledger import Ledger
from suite.spec import Status
from suite.store.files import write_model
from suite.store.liveness import SIGN_SECONDS, STALE_SECONDS, process_id
from suite.store.study import StudyDir

HEARTBEAT_SECONDS = 2.0


class StatusWriter:
    """Writes status.json for one run: counts, best trial, estimated time to the end, heartbeat."""

    def __init__(
        self, directory: StudyDir, ledger: Ledger, planned: Mapping[str, int], *, workers: int, note: str = ""
    ) -> None:
        """`planned`: trials by arm. `workers`: trials at once, for the estimate. `note`: the default message."""
        self.directory, self.ledger, self.planned = directory, ledger, planned
        self.workers, self.note = workers, note
        self._identity = (os.getpid(), socket.gethostname(), time.time())
        self._process = process_id(os.getpid())
        self._written = False

    def write(self, state: Literal["running", "done", "stopped", "failed"], message: str = "") -> Status:
        """Replace status.json; returns what was written. Raises WorkError where another controller took over."""
        pid, host, started = self._identity
        there = self.directory.status()
        if self._written and there is not None and (there.pid, there.host, there.started) != self._identity:
            raise WorkError(
                f"Study '{self.directory.name}' was taken over by pid {there.pid} on {there.host}, so this controller "
                "gives way. Nothing is lost."
            )
        self._written = True
        outcomes, best = self.ledger.outcomes, self.ledger.best
        status = Status(
            study=self.directory.name,
            state=state,
            pid=pid,
            host=host,
            process=self._process,
            started=started,
            heartbeat=time.time(),
            planned=sum(self.planned.values()),
            finished=outcomes["finished"],
            pruned=outcomes["pruned"],
            failed=outcomes["failed"],
            paused=len(self.ledger.paused),
            running=self.ledger.running,
            best_trial=best.id if best else None,
            best_accuracy=best.best if best else None,
            eta_seconds=self._eta() if state == "running" else None,
            workers=self.workers,
            message=printable(message or self.note),  # a path in it need not be text
        )
        write_model(self.directory.status_path, status, durable=state != "running")
        return status

    def _eta(self) -> float | None:
        """Seconds to go: the mean wall time of each arm's trials times what the arm has left, over the workers.

        An arm without a finished trial counts with the mean of all. None before the first trial has ended.
        """
        seconds, timed, done = self.ledger.wall_seconds, self.ledger.timed, self.ledger.done
        if not timed:
            return None
        overall = sum(seconds.values()) / timed.total()
        total = 0.0
        for arm, planned in self.planned.items():
            mean = seconds[arm] / timed[arm] if timed[arm] else overall
            total += (planned - done[arm]) * mean
        return total / self.workers


def wait_for_other_host(directory: StudyDir) -> Iterator[Status]:
    """Wait until a controller on another host has been silent for `STALE_SECONDS`; the caller holds the lock.

    Yields the other's status once, with a message that says what is waited for; nothing where there is no other.
    Raises InputError if it gives a sign of life.
    """
    there = directory.live_elsewhere()
    if there is None:
        return
    rest = min(STALE_SECONDS, max(SIGN_SECONDS, STALE_SECONDS - _age_of_status(directory)))
    found = f"pid {there.pid} on {there.host} was at work on it just now: waiting {rest:.0f} s for a sign of life"
    yield there.model_copy(update={"message": found})
    end = time.monotonic() + rest
    while time.monotonic() < end:
        time.sleep(0.2)
        now = directory.status()
        if now is None or now == there:
            continue
        if now.state != "running":
            return
        advice = f", stop it with `mnist-suite stop {directory.name}`, or give this run another name with --study NAME"
        raise InputError(
            f"Study '{directory.name}' already has a controller: pid {now.pid} on {now.host}. Wait for it"
            + (advice if directory.exists() else " or end that process")  # no study.json: a final evaluation
            + "."
        )


def _age_of_status(directory: StudyDir) -> float:
    """Seconds since status.json was written, by the clock that stamps files: that of the file server on a network disk.

    The lock file has just been written by this process. Some network disks take the time from their clients, whose
    clocks may differ; therefore no age makes the wait shorter than `SIGN_SECONDS`.
    """
    with contextlib.suppress(OSError):
        return (directory.path / "controller.lock").stat().st_mtime - directory.status_path.stat().st_mtime
    return 0.0
