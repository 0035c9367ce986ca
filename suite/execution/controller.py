"""The controller of a run: submits trials to an executor, answers their events, and keeps status.json.

There is one controller a study, and it alone writes the study's own files. A search and the repetition of given trials
run through the same loop; they differ in their `TrialSource`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from suite.errors import WorkError
from suite.execution.failures import MAX_ATTEMPTS, reason_to_give_up
from suite.execution.job import Executor, Job, Message, awaits_verdict
from suite.execution.ledger import Ledger
from suite.execution.status import HEARTBEAT_SECONDS, StatusWriter
from suite.execution.stop import Stop
from suite.spec import Evaluated, Line, Measuring, Paused, Record, Started, Status, Trial
from suite.store.study import StudyDir
from suite.store.trial import TrialState
from suite.training.checkpoint import clear, passed, paused_record

POLL_SECONDS = 0.2
REQUEST_SECONDS = 1.0  # between looks for requests to stop single trials


class TrialSource(Protocol):
    """Where a run's trials come from, and what their evaluations and results lead to."""

    planned: dict[str, int]  # trials by arm

    def next(self, ledger: Ledger) -> Trial | None:
        """A new trial, or None where there is none at present. Asked only while no trial waits."""
        ...

    def prunes(self, state: TrialState, event: Evaluated) -> bool:
        """Whether a trial ends at this evaluation."""
        ...

    def paused(self, state: TrialState, event: Paused) -> None:
        """Take note of the end of a short training."""
        ...

    def judged(self, ledger: Ledger, changed: TrialState | None) -> list[tuple[TrialState, str | None]]:
        """Paused trials on which there is a decision, each with why it is pruned, or None where it is promoted.

        `changed` has just been paused or has ended; None: look at all, as the run begins.
        """
        ...

    def ended(self, state: TrialState, record: Record) -> str | None:
        """Take note of a trial's record; returns a reason to end the run early, or None."""
        ...

    def lost(self, state: TrialState, attempt: str, reason: str) -> Record | None:
        """The record of a trial that is given up because it loses its workers; None: the run ends for it."""
        ...


@dataclass
class Controller:
    """Runs the trials of one study to their end; the caller holds the study's lock and closes the executor."""

    directory: StudyDir
    results: Path  # where the trials look up weights
    source: TrialSource
    ledger: Ledger
    executor: Executor
    status: StatusWriter
    stop: Stop
    command: str = ""  # for the trials' provenance
    failure: str = ""  # why the run ends early

    def run(self) -> Iterator[Status]:
        """Yield a status whenever a trial changed, and every `HEARTBEAT_SECONDS`; the last one tells how it ended.

        Raises WorkError where another controller took over the study or the place fails.
        """
        ended = False
        try:
            self._judge(None)
            yield self.status.write("running", self._message)
            beat = looked = time.monotonic()
            while True:
                if self.stop.reason is None and self.directory.stop_path.exists():
                    self.stop.reason = "stop.request"
                if self._stopping:
                    self._pass_on_stop()
                else:
                    self._fill_slots()
                if self.executor.free() == self.executor.slots:
                    break
                changed = False
                if time.monotonic() - looked > REQUEST_SECONDS:
                    looked = time.monotonic()
                    changed = self._stop_single_trials()
                for message in self.executor.poll(POLL_SECONDS):
                    changed |= self._handle(message)
                if changed or time.monotonic() - beat > HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    yield self.status.write("running", self._message)
            self.directory.stop_path.unlink(missing_ok=True)
            last = self.status.write(self._outcome(), self._message)
            ended = True
            yield last
        finally:
            if not ended:
                self._break_off()

    @property
    def _stopping(self) -> bool:
        """Whether no attempt may begin, and those under way are to stop."""
        return self.stop.reason is not None or bool(self.failure)

    @property
    def _message(self) -> str:
        return self.stop.reason or self.failure

    def _outcome(self) -> Literal["done", "stopped", "failed"]:
        complete = self.ledger.complete(sum(self.source.planned.values()))
        if self.stop.reason and not complete:  # a request that comes as the last trial ends has nothing to stop
            return "stopped"
        return "failed" if self.failure else "done"

    def _fill_slots(self) -> None:
        while self.executor.free():
            if not self.ledger.waits:
                trial = self.source.next(self.ledger)
                if trial is None:
                    return
                self.directory.trial(trial.id).create(trial)
                self.ledger.add(TrialState(trial.id, trial))
            state, token = self.ledger.begin()
            path = self.directory.trial(state.id).path
            stage = min(len(state.rungs), len(state.trial.stages))
            self.executor.submit(Job(state.trial, state.id, str(path), str(self.results), token, self.command, stage))

    def _pass_on_stop(self) -> None:
        """Tell the workers, which may be busy with a long step; a trial in this process is told at its next event."""
        if self.executor.slots > 1:
            for trial_id in self.ledger.running:
                self.executor.reply(trial_id, "stop")

    def _stop_single_trials(self) -> bool:
        """End the trials that a user asked to end: paused ones at once, running ones at their next evaluation.

        Returns whether one has ended.
        """
        for trial_id in self.ledger.running:
            if self.directory.trial(trial_id).stop_request() is not None:
                self.executor.reply(trial_id, "prune")
        ended = False
        for trial_id in self.ledger.paused:
            if (reason := self.directory.trial(trial_id).stop_request()) is not None:
                state = self.ledger.states[trial_id]
                if self._prune(state, f"stopped: {reason}"):
                    self._judge(state)
                    ended = True
        return ended

    def _handle(self, message: Message) -> bool:
        """Process one message; returns whether the status has to be written anew."""
        if not self.ledger.is_current(message.trial_id, message.attempt):
            return False  # from an attempt that was given up
        state, event = self.ledger.states[message.trial_id], message.event
        if message.lost is not None:
            self._lost(state, message)
            return True
        if event is None:
            self._ended(state)
            return True
        stopping = self._stopping
        if not isinstance(event, Started | Evaluated | Measuring | Paused):
            if stopping:
                self.executor.reply(state.id, "stop")
            return False
        state.update([Line(seq=0, time=time.time(), event=event)])
        if isinstance(event, Paused):
            self.source.paused(state, event)
            return True
        prune = isinstance(event, Evaluated) and self.source.prunes(state, event)
        if prune or stopping or awaits_verdict(state.trial, event):
            # prune takes precedence: the trial would not ask again at this rung after it was stopped and resumed
            self.executor.reply(state.id, "prune" if prune else "stop" if stopping else None)
        return True

    def _ended(self, state: TrialState) -> None:
        """The attempt is over: result.json says how; without it the trial was paused or stopped."""
        place = self.directory.trial(state.id)
        record = place.record()
        if record is None and state.state == "paused":
            self.ledger.pause(state)
            self._judge(state)
            return
        if record is None:
            self.ledger.requeue(state, "stopped")
            if not self._stopping and self.ledger.attempts(state.id) >= MAX_ATTEMPTS:
                self.failure = f"trial {state.id} ended {MAX_ATTEMPTS} times without a result"
            return
        self._conclude(state, record)
        self._judge(state)

    def _conclude(self, state: TrialState, record: Record) -> None:
        """Take note of a record that is written."""
        clear(self.directory.trial(state.id).path)
        self.ledger.end(state, record)
        self.failure = self.source.ended(state, record) or self.failure

    def _judge(self, changed: TrialState | None) -> None:
        """Promote or prune the paused trials on which there is a decision."""
        for state, reason in self.source.judged(self.ledger, changed):
            if reason is None:
                self.ledger.promote(state)
                continue
            self._prune(state, reason)

    def _prune(self, state: TrialState, reason: str) -> bool:
        """End a paused trial with the record of its last short training; returns whether there is one.

        Without one it goes on: the checkpoint is damaged, or is a later one and the log has lost the promotion.
        """
        place = self.directory.trial(state.id)
        record = paused_record(place.path)
        if record is None:
            state.rungs = passed(place.path)[: len(state.rungs)]
            self.ledger.promote(state)
            return False
        record = record.model_copy(update={"reason": reason, "ended": time.time()})
        place.conclude(record)
        self._conclude(state, record)
        return True

    def _lost(self, state: TrialState, message: Message) -> None:
        """The attempt's worker is gone: another attempt, or the end of the trial."""
        if state.state == "paused":  # it had nothing left to do
            self._ended(state)
            return
        place = self.directory.trial(state.id)
        reason = reason_to_give_up(message, self.ledger.attempts(state.id))
        if place.record() is None:  # else the worker died after it had written result.json
            record = self.source.lost(state, message.attempt, reason) if reason else None
            if record is None:
                self.ledger.requeue(state, "waiting")
                if reason:
                    self.failure = f"trial {state.id}: {reason}"
                return
            place.conclude(record)
        self._ended(state)

    def _break_off(self) -> None:
        """After an exception, or where the caller does not go on: end the workers, then say so where possible."""
        self.executor.close()
        self.ledger.abandon()
        self.failure = self.failure or "the controller broke off"
        with contextlib.suppress(OSError, WorkError):
            self.status.write("failed", self._message)
