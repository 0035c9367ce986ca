"""Where trials run: in this process, one or several at a time, or in worker processes. One picklable job, one stream of
events back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from suite.spec import Evaluated, Event, Trial, Verdict
from suite.store.trial import TrialDir

PAUSE = 5.0  # seconds; a longer gap between two looks means that all of this stood still: Ctrl-Z, a suspended job step


@dataclass(frozen=True)
class Job:
    """All that a worker needs to run one attempt at one trial."""

    trial: Trial
    trial_id: str
    directory: str
    results: str
    attempt: str
    command: str


@dataclass(frozen=True)
class Message:
    """What became of a job: an event, its end, or the loss of its worker."""

    trial_id: str
    attempt: str
    event: Event | None = None
    lost: str | None = None  # why the worker is gone
    again: bool = True  # whether a lost job is worth another attempt


@dataclass(frozen=True)
class Limits:
    """What one attempt may take before it fails. Only processes of their own can be held to it."""

    seconds: float | None = None
    memory: int | None = None  # bytes


NO_LIMITS = Limits()


class Timed(Protocol):
    """What a job runs on."""

    job: Job | None
    spent: float  # seconds on this job


T = TypeVar("T", bound=Timed)


class TimeLimit:
    """Finds the jobs that take longer than they may, not counting the time in which we were suspended."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._looked = time.monotonic()

    def over(self, places: Sequence[T]) -> list[tuple[T, Message]]:
        """Count the time since the last look; the places whose job has had too much of it, with what to say of it."""
        found: list[tuple[T, Message]] = []
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, PAUSE), now
        for place in places:
            job, seconds = place.job, self.seconds
            place.spent += passed
            if job is not None and seconds is not None and place.spent > seconds:
                reason = f"time limit: not done after {seconds:g} s"
                found.append((place, Message(job.trial_id, job.attempt, lost=reason, again=False)))
        return found


class Executor(Protocol):
    slots: int
    threads: int  # for each trial

    def free(self) -> int: ...
    def submit(self, job: Job) -> None: ...
    def poll(self, timeout: float) -> list[Message]: ...
    def reply(self, trial_id: str, verdict: Verdict | None) -> None: ...
    def close(self) -> None: ...


def awaits_verdict(trial: Trial, event: Event) -> bool:
    """Whether the trial stands still after this event until it is told to go on: at rungs only."""
    return isinstance(event, Evaluated) and event.epoch in trial.rungs


@contextlib.contextmanager
def console_to(path: Path) -> Iterator[None]:
    """What the trial prints goes into its own file."""
    with (
        open(path, "a", buffering=1, errors="replace") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def events_of(job: Job, together: bool = False) -> Any:
    from suite.training.trial import run_trial

    directory = TrialDir(Path(job.directory))
    return run_trial(
        job.trial, directory, Path(job.results), attempt=job.attempt, command=job.command, together=together
    )


def _release() -> None:
    from suite.training.trial import release

    release()
