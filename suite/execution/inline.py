"""One trial at a time in the controller's process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from suite.execution.job import Job, Message, _release, console_to, events_of
from suite.hardware.device import cores
from suite.spec import Verdict


class Inline:
    """One trial at a time in this process, advanced by one event a poll."""

    slots = 1

    def __init__(self) -> None:
        self.threads = cores()
        self._job: Job | None = None
        self._stream: Any = None
        self._verdict: Verdict | None = None

    def free(self) -> int:
        return int(self._job is None)

    def submit(self, job: Job) -> None:
        self._job, self._stream, self._verdict = job, None, None

    def poll(self, timeout: float) -> list[Message]:
        job = self._job
        if job is None:
            time.sleep(timeout)
            return []
        directory = Path(job.directory)
        directory.mkdir(parents=True, exist_ok=True)
        with console_to(directory / "console.log"):
            try:
                if self._stream is None:
                    self._stream = events_of(job)
                    event = next(self._stream)
                else:
                    verdict, self._verdict = self._verdict, None
                    event = self._stream.send(verdict)
            except StopIteration:
                self._job = self._stream = None
                _release()
                return [Message(job.trial_id, job.attempt)]
        return [Message(job.trial_id, job.attempt, event)]

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if self._job is not None and self._job.trial_id == trial_id and self._verdict != "stop":
            self._verdict = verdict

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
