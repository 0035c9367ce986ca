"""What passes between a controller and the executor that runs its trials: jobs, messages, and the executor's contract.

The executors are `inline.Inline`, `stacked.Together`, `processes.Processes` and `ray_cluster.Cluster`. All of them keep
one `slot.Slot` for each trial that they can run at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from suite.spec import Evaluated, Event, Trial, Verdict


@dataclass(frozen=True)
class Job:
    """All that a worker needs to run one attempt at one trial. Picklable."""

    trial: Trial
    trial_id: str
    directory: str  # the trial's directory
    results: str  # the results directory; relative paths of weights start there
    attempt: str  # token that no other attempt has
    command: str  # for the record's provenance
    stage: int = 0  # how many of the trial's short trainings it has passed


@dataclass(frozen=True)
class Message:
    """What happened to a job: an event, its end (neither `event` nor `lost`), or the loss of its worker."""

    trial_id: str
    attempt: str
    event: Event | None = None
    lost: str | None = None  # why the worker is gone
    again: bool = True  # whether another attempt may succeed; False after a time limit


@dataclass(frozen=True)
class Limits:
    """What one attempt may use before it fails. Only executors with worker processes can enforce limits."""

    seconds: float | None = None
    memory: int | None = None  # bytes


NO_LIMITS = Limits()


class Executor(Protocol):
    """Runs up to `slots` trials at once, each with `threads` CPU threads, for one controller.

    All methods are called from the controller's thread, in any order but for what is said below. An attempt begins with
    `submit` and is over with the message of its end or of its loss. How it ended stands in the trial's result.json; an
    attempt that ended without one was stopped, and another attempt continues from its last checkpoint.

    Messages are pulled: nothing is reported but by `poll`, and the messages of one attempt come in the order of its
    events. At a rung (see `awaits_verdict`) the trial pauses until `reply` is called; between rungs it runs on, and may
    be several events ahead of what `poll` has returned.

    When a worker process dies, its attempt is reported as lost (while the trial pauses, after the reply at the latest);
    the trial's directory is as after a crash, and the executor starts another worker for the next job.

    A trial that leaves the GPU unusable for its process is recorded as failed like any other, and that process takes no
    further job. Worker processes are replaced; where the replacement finds that the GPU answers no process, the GPU's
    slots are withdrawn and its attempt is reported as lost. Executors in the controller's own process raise WorkError
    instead, before another trial fails for it.
    """

    slots: int
    threads: int

    def free(self) -> int:
        """Number of further jobs that can be submitted, from 0 to `slots`."""
        ...

    def submit(self, job: Job) -> None:
        """Begin an attempt. Only while `free()` is positive, and for a trial that has no attempt under way.

        Raises WorkError where this process can run no further trial.
        """
        ...

    def poll(self, timeout: float) -> list[Message]:
        """Messages that have arrived since the last call, after waiting up to `timeout` seconds for the first one.

        Executors in the controller's own process do the trials' work here, up to the next event.

        Raises WorkError where the place fails rather than a trial: a full disk, a cluster that is gone, a GPU that no
        longer answers. Unfinished attempts can be resumed.
        """
        ...

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        """Tell a trial to end ('prune'), to save its state and end ('stop'), or to go on (None).

        A trial that pauses at a rung goes on with this. Otherwise the verdict takes effect with the trial's next event.
        A verdict stays in force until the attempt is over. 'prune' takes precedence over 'stop', and 'stop' over None,
        in whichever order they come: a rung is judged once, so its verdict must not be lost. Repeating a verdict has no
        effect, and neither has a reply to a trial that is not running here.
        """
        ...

    def close(self) -> None:
        """End all workers and release what the executor holds. Unfinished attempts can be resumed. Idempotent."""
        ...


def awaits_verdict(trial: Trial, event: Event) -> bool:
    """Whether the trial pauses after this event until `Executor.reply`: at evaluations that are rungs, only there."""
    return isinstance(event, Evaluated) and event.epoch in trial.rungs
