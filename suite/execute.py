"""Where trials run: in this process, or in worker processes. One picklable job, one stream of events back."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from suite.spec import Evaluated, Event, Trial, Verdict
from suite.store import TrialDir


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


class Executor(Protocol):
    slots: int

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


def _events(job: Job) -> Any:
    from suite.runner import run_trial

    return run_trial(
        job.trial, TrialDir(Path(job.directory)), Path(job.results), attempt=job.attempt, command=job.command
    )


class Inline:
    """One trial at a time in this process, advanced by one event a poll."""

    slots = 1

    def __init__(self) -> None:
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
                    self._stream = _events(job)
                    event = next(self._stream)
                else:
                    verdict, self._verdict = self._verdict, None
                    event = self._stream.send(verdict)
            except StopIteration:
                self._job = None
                return [Message(job.trial_id, job.attempt)]
        return [Message(job.trial_id, job.attempt, event)]

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if self._job is not None and self._job.trial_id == trial_id and self._verdict != "stop":
            self._verdict = verdict

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


class Processes:
    """A pool of worker processes that live as long as the controller, each running trials one after another."""

    def __init__(self, workers: int) -> None:
        self.slots = workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def free(self) -> int:
        return self.slots - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        worker = next((w for w in self._workers if w.job is None), None)
        if worker is None:
            worker = _Worker(self._context)
            self._workers.append(worker)
        worker.give(job)

    def poll(self, timeout: float) -> list[Message]:
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        if not busy:
            time.sleep(timeout)
            return []
        messages: list[Message] = []
        for pipe in wait(list(busy), timeout):
            worker = busy[pipe]  # type: ignore[index]
            job = worker.job
            assert job is not None
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                self._workers.remove(worker)
                messages.append(Message(job.trial_id, job.attempt, lost=worker.death()))
                continue
            if event is None:
                worker.job = None
            messages.append(Message(job.trial_id, job.attempt, event))
        return messages

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.job.trial_id == trial_id:
                with contextlib.suppress(OSError):  # a dead worker is noticed by `poll`
                    worker.pipe.send((trial_id, verdict))

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Worker:
    def __init__(self, context: Any) -> None:
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the worker's death ends the pipe
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # noticed by `poll`
            self.pipe.send(job)

    def death(self) -> str:
        self.process.join(timeout=10)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its worker was killed by {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    def end(self) -> None:
        self.pipe.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(timeout=10)


def _work(pipe: Connection, controller: int) -> None:
    """A worker's life: take a job, send its events, heed the verdicts, until the controller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the controller decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with(controller)
    while True:
        try:
            job = pipe.recv()
            if not isinstance(job, Job):
                continue  # a verdict that came too late
            with console_to(Path(job.directory) / "console.log"):
                _run_job(pipe, job)
            pipe.send(None)
        except (EOFError, OSError):
            return


def _run_job(pipe: Connection, job: Job) -> None:
    stream = _events(job)
    verdict: Verdict | None = None
    try:
        while True:
            try:
                event = stream.send(verdict)
            except StopIteration:
                return
            pipe.send(event)
            verdict = None
            while pipe.poll(None if awaits_verdict(job.trial, event) and verdict is None else 0):
                trial_id, answer = pipe.recv()
                if trial_id == job.trial_id:
                    verdict = answer
                    break
    finally:
        stream.close()


def _die_with(parent: int) -> None:
    """Ask Linux to end this process with its controller; elsewhere the closed pipe does, at the next event."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
