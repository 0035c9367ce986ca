"""The state of one of an executor's slots, and the time limit of the attempts in them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from suite.execution.job import Job, Message, awaits_verdict
from suite.spec import Event, Verdict

MAX_GAP = 5.0  # seconds between two checks of the time limit; a longer gap means that the whole process was suspended

PRECEDENCE: dict[Verdict | None, int] = {None: 0, "stop": 1, "prune": 2}


class State(Enum):
    IDLE = "idle"  # no attempt
    RUNNING = "running"  # an attempt on its way to its next event
    AWAITING = "awaiting"  # its last event is a rung: it waits until there is a reply


@dataclass(eq=False)
class Slot:
    """Room for one trial at a time: its attempt's state, the verdict in force, the time it has used.

    ========  =============  ==========  ==============  ==========================  ==================
    state     `begin`        `receive`   `receive` at a  `receive(None)`, `lose`     `reply`
                             an event    rung
    ========  =============  ==========  ==============  ==========================  ==================
    idle      to running     -           -               -                           no effect
    running   -              running     to awaiting     to idle                     running
    awaiting  -              -           -               to idle                     to running
    ========  =============  ==========  ==============  ==========================  ==================

    `verdict` is what the trial is told at its events. It only ever rises, from None over 'stop' to 'prune', and falls
    back to None with the next attempt.
    """

    job: Job | None = None  # None while idle
    state: State = State.IDLE
    verdict: Verdict | None = None
    spent: float = 0.0  # seconds used by this attempt, not counting those in which we were suspended

    def begin(self, job: Job) -> None:
        assert self.state is State.IDLE
        self.job, self.state, self.verdict, self.spent = job, State.RUNNING, None, 0.0

    def receive(self, event: Event | None) -> Message:
        """Take the attempt's next event, or its end (None); returns the message for the controller."""
        assert self.job is not None
        message = Message(self.job.trial_id, self.job.attempt, event)
        if event is None:
            self.job, self.state = None, State.IDLE
        elif awaits_verdict(self.job.trial, event):
            self.state = State.AWAITING
        return message

    def lose(self, reason: str, *, again: bool = True) -> Message:
        """Give the attempt up; returns the message for the controller."""
        assert self.job is not None
        message = Message(self.job.trial_id, self.job.attempt, lost=reason, again=again)
        self.job, self.state = None, State.IDLE
        return message

    def reply(self, verdict: Verdict | None, *, answers: bool = True) -> bool:
        """Take the controller's verdict; returns whether that changes anything for the trial.

        `answers` is False where the verdict was given before the latest event was known: it then ends no pause.
        """
        if self.state is State.IDLE:
            return False
        before = (self.state, self.verdict)
        if PRECEDENCE[verdict] > PRECEDENCE[self.verdict]:
            self.verdict = verdict
        if answers:
            self.state = State.RUNNING
        return (self.state, self.verdict) != before


S = TypeVar("S", bound=Slot)


def free(slots: Sequence[Slot], total: int) -> int:
    """How many of `total` slots are free, where `slots` are those that were needed so far."""
    return total - sum(slot.state is not State.IDLE for slot in slots)


def slot_of(slots: Iterable[S], trial_id: str) -> S | None:
    """The slot in which the trial runs."""
    return next((slot for slot in slots if slot.job is not None and slot.job.trial_id == trial_id), None)


class TimeLimit:
    """Finds attempts that have used more time than allowed, not counting time in which this process was suspended."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._checked = time.monotonic()

    def exceeded(self, slots: Iterable[S]) -> list[S]:
        """Add the time since the last call to the busy slots; returns those above the limit."""
        now = time.monotonic()
        passed, self._checked = min(now - self._checked, MAX_GAP), now
        busy = [slot for slot in slots if slot.state is not State.IDLE]
        for slot in busy:
            slot.spent += passed
        return [slot for slot in busy if self.seconds is not None and slot.spent > self.seconds]

    @property
    def reason(self) -> str:
        return f"time limit: not done after {self.seconds:g} s"
