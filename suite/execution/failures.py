"""What a failure leads to: another attempt, a failed trial, or the end of the run.

* A worker that dies takes its attempt with it, not its trial: the trial runs again from its last checkpoint, up to
  `MAX_ATTEMPTS` times in a run. Then it fails, with a record that the controller writes. Where another attempt would
  end in the same way (a time limit), the trial fails at once.
* An error inside a training is recorded by the worker itself, and the trial is not run again: it would fail again.
* `MAX_SAME_FAILURES` failed trials in a row, all of one cause, end a search: the remaining trials would most likely
  fail too.
* An attempt that ends without a record although nothing asked it to stop is repeated, up to `MAX_ATTEMPTS` times;
  then the run ends.
"""

from __future__ import annotations

import re
import time

from suite.execution.job import Message
from suite.execution.options import Options
from suite.hardware import device
from suite.spec import Provenance, Record
from suite.store.trial import TrialState
from suite.training.record import provenance

MAX_ATTEMPTS = 3

MAX_SAME_FAILURES = 5


def reason_to_give_up(lost: Message, attempts: int) -> str | None:
    """Why a trial whose worker is lost is not run again after so many attempts; None where it is run again."""
    if not lost.again:
        return lost.lost
    return f"{lost.lost}, {MAX_ATTEMPTS} times" if attempts >= MAX_ATTEMPTS else None


def cause(reason: str | None) -> str:
    """What equal causes have in common: "tried to allocate 812 MiB" is one cause, whatever the number."""
    return re.sub(r"\d+", "0", reason or "")


class FailureStreak:
    """Counts failed trials in a row that have one cause."""

    def __init__(self) -> None:
        self._cause, self._length = "", 0

    def add(self, record: Record) -> str | None:
        """Count one record; returns why the search should end, or None."""
        if record.state != "failed":
            self._cause, self._length = "", 0
            return None
        reason = record.reason or ""
        self._length = self._length + 1 if cause(reason) == self._cause else 1
        self._cause = cause(reason)
        return (
            f"{MAX_SAME_FAILURES} trials in a row failed with: {reason}" if self._length >= MAX_SAME_FAILURES else None
        )


def lost_record(state: TrialState, attempt: str, reason: str, options: Options) -> Record:
    """The record of a trial that lost its worker, and so could not write one."""
    return Record(
        trial=state.id,
        arm=state.trial.arm,
        state="failed",
        attempt=attempt,
        reason=reason,
        ended=time.time(),
        curve=tuple(state.curve),
        rungs=tuple(state.rungs),
        provenance=_provenance(state, options),
    )


def _provenance(state: TrialState, options: Options) -> Provenance:
    """As far as the controller knows it: of a worker on a cluster, no more than the host that it reported."""
    local = options.engine == "local"
    place = device.pick(options.first_device if local else "cpu")
    found = provenance(state.trial, options.command, place, state.trial.recipe.precision)
    if local:
        return found
    host = state.started.host if state.started else "unknown"
    return found.model_copy(update={"host": host, "hardware": "unknown"})
