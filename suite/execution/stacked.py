"""Several trials at once in the controller's process, those of one architecture as one stacked model."""

from __future__ import annotations

import time

from suite.errors import WorkError
from suite.execution.attempt import GPU_LOST, Attempt, release_memory
from suite.execution.job import Job, Message
from suite.execution.slot import Slot, State, free, slot_of
from suite.hardware.device import cores
from suite.spec import Failed, Verdict
from suite.training.stacking import Population
from suite.training.state import Step
from suite.training.trial import healthy


class _Member(Slot):
    """One of the trials that run together."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self.attempt = attempt
        self.step: Step | None = None  # the optimiser's step that it waits for
        self.failure: Exception | None = None  # of its last step


class Together:
    """An executor that carries out one optimiser step of all its trials at a time.

    Trials that `training.stacking.Population` can stack are trained as one model. A trial that it cannot stack runs to
    its end while the others pause, since it draws from the one global random generator.
    """

    def __init__(self, slots: int, everywhere: bool) -> None:
        """`everywhere`: stack also where that is no faster, as with convolutions on a CPU."""
        self.slots, self.threads = slots, cores()
        self._population = Population(everywhere)
        self._members: list[_Member] = []
        self._alone: _Member | None = None  # while it runs, the others pause
        self._usable = True  # False once the GPU no longer answers this process

    def free(self) -> int:
        return free(self._members, self.slots)

    def submit(self, job: Job) -> None:
        if not self._usable:
            raise WorkError(GPU_LOST)
        member = _Member(Attempt(job, together=True))
        member.begin(job)
        self._members.append(member)

    def poll(self, timeout: float) -> list[Message]:
        if self._members and not self._usable:
            raise WorkError(GPU_LOST)
        messages: list[Message] = []
        end = time.monotonic() + timeout
        while not messages and time.monotonic() < end:
            messages = self._advance_all()
            if not messages and any(member.step is not None for member in self._active()):
                messages = self._train()
            elif not messages:  # all of them wait for a verdict
                time.sleep(max(0.0, end - time.monotonic()))
        return messages

    def _advance_all(self) -> list[Message]:
        """Run the trials that can go on to their next event or step, until one has to go on alone."""
        messages: list[Message] = []
        for member in self._active():
            if member.step is None and member.state is State.RUNNING:
                messages += self._advance(member)
            if member.step is not None and self._population.kind(member.step) is None:
                self._alone = member
            if self._alone is not None or not self._usable:
                break
        return messages

    def _active(self) -> list[_Member]:
        return [self._alone] if self._alone else list(self._members)

    def _train(self) -> list[Message]:
        """Carry out the steps that are due. Raises WorkError where the GPU is lost and no single trial is to blame."""
        steps = {member: member.step for member in self._active() if member.step is not None}
        failures = self._population.run_steps(list(steps.values()))
        for member, step in steps.items():
            member.failure = failures.get(step.training)  # raised inside the trial as it advances
            member.step = None
        failed = [member for member in steps if member.failure is not None]
        if not failed or healthy():
            return []
        if len(failed) > 1:  # before any of them is recorded as failed
            raise WorkError(GPU_LOST)
        return self._advance(failed[0])  # before another trial touches the GPU and fails for it

    def _advance(self, member: _Member) -> list[Message]:
        """Run one trial to its next event or step."""
        failure, member.failure = member.failure, None
        found = member.attempt.advance(member.verdict, failure)
        if isinstance(found, Step):
            member.step = found
            return []
        messages = [member.receive(found)]
        if isinstance(found, Failed) and not healthy():
            self._usable = False
            member.attempt.advance(None)  # to its end: its result is written, and no event follows
            messages.append(member.receive(None))
        if member.state is State.IDLE:
            self._remove(member)
        return messages

    def _remove(self, member: _Member) -> None:
        self._members.remove(member)
        self._alone = None if self._alone is member else self._alone
        if self._usable and not self._members:  # with others at work, their memory would be frozen as permanent
            self._usable = release_memory()

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if (member := slot_of(self._members, trial_id)) is not None:
            member.reply(verdict)

    def close(self) -> None:
        for member in self._members:
            member.attempt.close()
        self._members.clear()
        self._alone = None
