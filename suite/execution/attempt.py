"""Running one attempt at a trial in this process, event by event: what a worker does with a job."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from suite.execution.job import Job
from suite.spec import Verdict
from suite.store.trial import TrialDir
from suite.training.trial import healthy, release, run_trial

GPU_LOST = (
    "The GPU no longer answers this process, and will not until the process ends. Nothing that was committed is lost: "
    "the trials that had not ended go on from their last checkpoints with the same command and --resume."
)


class Attempt:
    """The events of one attempt. What the trial prints is appended to its console.log.

    Raises OSError where that file cannot be written; `advance` also raises WorkError where the disk fails.
    """

    def __init__(self, job: Job, *, together: bool = False) -> None:
        """`together`: yield the optimiser's steps too, for the caller to carry out (see `training.trial.run_trial`)."""
        directory = TrialDir(Path(job.directory))
        directory.path.mkdir(parents=True, exist_ok=True)
        self._console = open(directory.console, "a", buffering=1, errors="replace")
        self._begun = False
        self._events = run_trial(
            job.trial,
            directory,
            Path(job.results),
            attempt=job.attempt,
            command=job.command,
            together=together,
            stage=job.stage,
        )

    def advance(self, verdict: Verdict | None, failure: Exception | None = None) -> Any:
        """Run to the next event (or step, with `together`) and return it; None when the attempt is over.

        `verdict` is the answer to the last event. `failure` is raised inside the trial, as why its last step failed.
        """
        with contextlib.redirect_stdout(self._console), contextlib.redirect_stderr(self._console):
            try:
                if failure is not None:
                    return self._events.throw(failure)
                answer = verdict if self._begun else None  # a generator takes no value before its first yield
                self._begun = True
                return self._events.send(answer)
            except StopIteration:
                self.close()
                return None

    def close(self) -> None:
        """Break off, leaving the trial's directory as a crash would: resumable."""
        self._events.close()
        with contextlib.suppress(OSError):  # a full disk: what the trial printed last is lost
            self._console.close()


def release_memory() -> bool:
    """Free what an attempt that is over held. Returns whether this process can run another one: after some errors a
    GPU does not answer the process any more, and then nothing can be freed either."""
    usable = healthy()
    if usable:
        release()
    return usable
