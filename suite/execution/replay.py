"""Runs trials that are already resolved, without search or pruning: for the final evaluation and for repeats.

The files are those of any study, so a run that was stopped or killed goes on with the next call.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from suite.errors import WorkError
from suite.execution.controller import HEARTBEAT_SECONDS, MAX_ATTEMPTS, Stop
from suite.execution.inline import Inline
from suite.execution.job import Executor, Job, Message, awaits_verdict
from suite.execution.processes import Processes
from suite.spec import Evaluated, Status, Trial
from suite.store.files import write_model
from suite.store.study import StudyDir
from suite.store.trial import TrialState


def content(trial: Trial) -> str:
    """The part of the id that stands for the training itself, whatever its number."""
    return trial.id.partition("-")[2]


def replay(
    trials: Sequence[Trial],
    directory: StudyDir,
    results: Path,
    *,
    stop: Stop,
    workers: int = 1,
    command: str = "",
    prune_after: float | None = None,
) -> Iterator[Status]:
    """Bring every one of `trials` to its end below `directory`, in order; yields a Status whenever one
    ends, and every other second.

    A trial found there with a record is not run again, an unfinished one goes on from its checkpoint. `results` is
    where weights are looked up. `prune_after` ends every trial at that epoch, as a search once did. Raises
    WorkError where a trial keeps losing its worker, InputError where another process is at it.
    """
    with directory.lock():
        directory.stop_path.unlink(missing_ok=True)
        run = _Replay(trials, directory, results, stop, workers, command, prune_after)
        try:
            stop.heeded = True
            yield from run.run()
        finally:
            stop.heeded = False
            run.executor.close()


def find(directory: StudyDir, trials: Sequence[Trial]) -> dict[str, TrialState]:
    """What the files say of these trials, by `content`."""
    wanted = {content(trial) for trial in trials}
    return {key: state for state in directory.states() if (key := content(state.trial)) in wanted}


class _Replay:
    def __init__(
        self,
        trials: Sequence[Trial],
        directory: StudyDir,
        results: Path,
        stop: Stop,
        workers: int,
        command: str,
        prune_after: float | None,
    ) -> None:
        self.directory, self.results, self.stop = directory, results, stop
        self.workers, self.command, self.prune_after = workers, command, prune_after
        self.executor: Executor = Inline() if workers == 1 else Processes(workers)
        self.started = time.time()
        self.states: dict[str, TrialState] = {}
        self.tokens: dict[str, str] = {}
        self.attempts: Counter[str] = Counter()
        there = find(directory, trials)
        number = max((s.trial.number for s in directory.states()), default=-1) + 1
        for trial in trials:
            state = there.get(content(trial))
            if state is None:
                trial = trial.model_copy(update={"number": number, "study": directory.name})
                number += 1
                directory.trial(trial.id).create(trial)
                state = TrialState(trial.id, trial)
            self.states[state.id] = state
        self.waiting = [s.id for s in self.states.values() if s.record is None]

    def run(self) -> Iterator[Status]:
        yield self._status("running")
        beat = time.monotonic()
        while True:
            if self.stop.reason is None and self.directory.stop_path.exists():
                self.stop.reason = "stop.request"
            if self.stop.reason is None:
                while self.waiting and self.executor.free():
                    self.executor.submit(self._job(self.waiting.pop(0)))
            elif self.executor.slots > 1:
                for trial_id in self.tokens:
                    self.executor.reply(trial_id, "stop")
            if self.executor.free() == self.executor.slots:
                break
            ended = [self._handle(message) for message in self.executor.poll(0.2)]
            if any(ended) or time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                yield self._status("running")
        self.directory.stop_path.unlink(missing_ok=True)
        yield self._status("stopped" if self.stop.reason else "done")

    def _job(self, trial_id: str) -> Job:
        token = self.tokens[trial_id] = secrets.token_hex(8)
        self.attempts[trial_id] += 1
        path = self.directory.trial(trial_id).path
        return Job(self.states[trial_id].trial, trial_id, str(path), str(self.results), token, self.command)

    def _handle(self, message: Message) -> bool:
        """Take in one message; says whether a trial ended by it."""
        state = self.states[message.trial_id]
        if message.attempt != self.tokens.get(state.id):
            return False
        event = message.event
        if message.lost is None and event is not None:
            over = isinstance(event, Evaluated) and event.epoch == self.prune_after
            if self.stop.reason:
                self.executor.reply(state.id, "stop")
            elif over or awaits_verdict(state.trial, event):
                self.executor.reply(state.id, "prune" if over else None)
            return False
        self.tokens.pop(state.id)
        state.settle(self.directory.trial(state.id).record())
        if state.record is None and message.lost is not None:
            if self.attempts[state.id] >= MAX_ATTEMPTS or not message.again:
                times = f", {self.attempts[state.id]} times" if self.attempts[state.id] > 1 else ""
                raise WorkError(f"Trial {state.id}: {message.lost}{times}; see {self.directory.path}.")
            self.waiting.append(state.id)
        return True

    def _status(self, state: str) -> Status:
        kinds = Counter(s.record.state for s in self.states.values() if s.record is not None)
        done = [s.record.cost.wall_seconds for s in self.states.values() if s.record and s.record.cost]
        left = len(self.states) - sum(kinds.values())
        status = Status(
            study=self.directory.name,
            state=state,  # type: ignore[arg-type]
            pid=os.getpid(),
            host=socket.gethostname(),
            started=self.started,
            heartbeat=time.time(),
            planned=len(self.states),
            finished=kinds["finished"],
            pruned=kinds["pruned"],
            failed=kinds["failed"],
            running=tuple(self.tokens),
            eta_seconds=left * sum(done) / len(done) / self.workers if done and left else None,
            workers=self.workers,
            message=self.stop.reason or "",
        )
        write_model(self.directory.status_path, status, durable=state != "running")
        return status
