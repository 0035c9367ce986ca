"""Several trials at once in the controller's process, alike ones as one stacked model."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from suite.execution.job import Job, Message, _release, awaits_verdict, events_of
from suite.hardware.device import cores
from suite.spec import Spec, Verdict


@dataclass(eq=False)
class _Member:
    """One of the trials that run together."""

    job: Job
    stream: Any
    console: TextIO
    verdict: Verdict | None = None
    asks: bool = False  # whether it stands still for an answer
    step: Any = None  # the optimiser's step that it stands at
    spoke: bool = False  # whether an event was the last that came of it, rather than a step
    failure: Exception | None = None  # of its last step


class Together:
    """Several trials at once in this process: those alike are trained as one stacked model, others one by one."""

    def __init__(self, slots: int, everywhere: bool) -> None:
        from suite.training.stacking import Population

        self.slots, self.threads = slots, cores()
        self._population = Population(everywhere)
        self._members: list[_Member] = []
        self._alone: _Member | None = None  # runs to its end by itself: nothing else may draw random numbers meanwhile

    def free(self) -> int:
        return self.slots - len(self._members)

    def submit(self, job: Job) -> None:
        directory = Path(job.directory)
        directory.mkdir(parents=True, exist_ok=True)
        console = open(directory / "console.log", "a", buffering=1, errors="replace")
        self._members.append(_Member(job, events_of(job, together=True), console))

    def poll(self, timeout: float) -> list[Message]:
        messages: list[Message] = []
        end = time.monotonic() + timeout
        while not messages and time.monotonic() < end:
            for member in [self._alone] if self._alone else list(self._members):
                if member.step is None and not member.asks and (message := self._advance(member)) is not None:
                    messages.append(message)
                if member.step is not None and self._population.kind(member.step) is None:
                    self._alone = member
                    break
            ready = [self._alone] if self._alone else self._members
            if not messages:
                self._take([member for member in ready if member.step is not None])
        return messages

    def _take(self, members: list[_Member]) -> None:
        failures = self._population.run_steps([member.step for member in members])
        for member in members:
            member.failure = failures.get(member.step.training)  # which each trial then says for itself
            member.step = None

    def _advance(self, member: _Member) -> Message | None:
        """On to the next event or step of one trial."""
        job = member.job
        with contextlib.redirect_stdout(member.console), contextlib.redirect_stderr(member.console):
            try:
                if member.failure is not None:
                    failure, member.failure = member.failure, None
                    found = member.stream.throw(failure)
                elif member.spoke:
                    verdict, member.verdict = member.verdict, None
                    found = member.stream.send(verdict)
                else:
                    found = next(member.stream)
            except StopIteration:
                self._members.remove(member)
                member.console.close()
                self._alone = None if self._alone is member else self._alone
                if not self._members:  # what the others hold must not be taken for what stays
                    _release()
                return Message(job.trial_id, job.attempt)
        member.spoke = isinstance(found, Spec)
        if not member.spoke:
            member.step = found
            return None
        member.asks = awaits_verdict(job.trial, found)
        return Message(job.trial_id, job.attempt, found)

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        for member in self._members:
            if member.job.trial_id == trial_id:
                if member.verdict != "prune":  # a rung's verdict would not be asked for again
                    member.verdict = verdict or member.verdict
                member.asks = False

    def close(self) -> None:
        for member in self._members:
            member.stream.close()
            member.console.close()
        self._members.clear()
