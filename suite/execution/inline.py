"""One trial at a time in the controller's process."""

from __future__ import annotations

import time

from suite.errors import WorkError
from suite.execution.attempt import GPU_LOST, Attempt, release_memory
from suite.execution.job import Job, Message
from suite.execution.slot import Slot, State, free
from suite.hardware.device import cores
from suite.spec import Verdict


class Inline:
    """An executor with one slot; each `poll` runs the trial to its next event."""

    slots = 1

    def __init__(self) -> None:
        self.threads = cores()
        self._slot = Slot()
        self._attempt: Attempt | None = None
        self._usable = True  # False once the GPU no longer answers this process

    def free(self) -> int:
        return free([self._slot], self.slots)

    def submit(self, job: Job) -> None:
        if not self._usable:
            raise WorkError(GPU_LOST)
        self._slot.begin(job)

    def poll(self, timeout: float) -> list[Message]:
        slot = self._slot
        if slot.job is None or slot.state is not State.RUNNING:
            time.sleep(timeout)
            return []
        if self._attempt is None:
            self._attempt = Attempt(slot.job)
        event = self._attempt.advance(slot.verdict)
        if event is None:
            self._attempt = None
            self._usable = release_memory()
        return [slot.receive(event)]

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if self._slot.job is not None and self._slot.job.trial_id == trial_id:
            self._slot.reply(verdict)

    def close(self) -> None:
        if self._attempt is not None:
            self._attempt.close()
        self._attempt, self._slot = None, Slot()
