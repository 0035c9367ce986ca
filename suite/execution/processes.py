"""Trials in worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from suite.errors import WorkError
from suite.execution.job import (
    NO_LIMITS,
    Job,
    Limits,
    Message,
    TimeLimit,
    _release,
    awaits_verdict,
    console_to,
    events_of,
)
from suite.hardware.device import cores
from suite.spec import Verdict
from suite.store.files import disk_fault

POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # ask for a clean stop


class Processes:
    """A pool of worker processes that live as long as the controller, each running trials one after another."""

    def __init__(self, workers: int, limits: Limits = NO_LIMITS) -> None:
        self.slots, self.limits = workers, limits
        self.threads = max(1, cores() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._time = TimeLimit(limits.seconds)

    def free(self) -> int:
        return self.slots - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        for gone in [w for w in self._workers if w.job is None and not w.process.is_alive()]:
            self._workers.remove(gone)
            gone.end()
        worker = next((w for w in self._workers if w.job is None), None)
        if worker is None:
            worker = _Worker(self._context, self.limits)
            self._workers.append(worker)
        worker.give(job)

    def poll(self, timeout: float) -> list[Message]:
        messages = self._overdue()
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        if not busy:
            time.sleep(0 if messages else timeout)
            return messages
        for pipe in wait(list(busy), 0 if messages else timeout):
            worker = busy[pipe]  # type: ignore[index]
            job = worker.job
            assert job is not None
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                self._workers.remove(worker)
                messages.append(Message(job.trial_id, job.attempt, lost=worker.death()))
                continue
            if isinstance(event, WorkError):
                raise event
            if event is None:
                worker.job = None
            worker.asks = event is not None and awaits_verdict(job.trial, event)
            messages.append(Message(job.trial_id, job.attempt, event))
        return messages

    def _overdue(self) -> list[Message]:
        """Kill the workers that hang, or take longer than they may."""
        messages: list[Message] = []
        for worker, message in self._time.over(self._workers):
            self._workers.remove(worker)
            worker.kill()
            messages.append(message)
        return messages

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        for worker in self._workers:
            if worker.job is not None and worker.job.trial_id == trial_id:
                if worker.told and not worker.asks:
                    continue  # it knows; saying so again and again to one that hangs would fill its pipe, and block
                with contextlib.suppress(OSError):  # a dead worker is noticed by `poll`
                    worker.pipe.send((trial_id, verdict, worker.asks))
                worker.asks = False
                worker.told |= verdict == "stop"

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Worker:
    def __init__(self, context: Any, limits: Limits) -> None:
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, os.getpid(), limits), daemon=True)
        resource_tracker.ensure_running()  # its own start would lift the block
        before = signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)  # inherited: none may hit the worker as it starts
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the worker's death ends the pipe
        self.job: Job | None = None
        self.spent = 0.0  # seconds on this job, not counting those in which we were suspended
        self.asks = False  # whether its trial stands still for an answer
        self.told = False  # whether it was asked to stop

    def give(self, job: Job) -> None:
        self.job, self.spent, self.asks, self.told = job, 0.0, False, False
        with contextlib.suppress(OSError):  # noticed by `poll`
            self.pipe.send(job)

    def death(self) -> str:
        self.process.join(timeout=10)
        if self.process.is_alive():  # hangs on its way out, and would not heed anything else
            self.kill()
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its worker was killed by {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    def end(self) -> None:
        self.pipe.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join(timeout=10)


def _work(pipe: Connection, controller: int, limits: Limits) -> None:
    """A worker's life: take a job, send its events, heed the verdicts, until the controller is gone."""
    for number in POLITE:  # they reach the whole group or job step; the controller decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
    _die_with(controller)
    limit_memory(limits.memory)
    while True:
        try:
            job = pipe.recv()
            if not isinstance(job, Job):
                continue  # a verdict that came too late
        except (EOFError, OSError):
            return
        last: Any = None
        sound = False
        try:
            with console_to(Path(job.directory) / "console.log"):
                sound = _run_job(pipe, job)
        except (EOFError, BrokenPipeError, ConnectionError):  # the controller has gone
            return
        except WorkError as error:
            last = error
        except OSError as error:  # of the console
            last = WorkError(disk_fault(error))
        try:
            pipe.send(last)
        except OSError:
            return
        if last is not None or not sound:
            return  # the controller starts another worker where it needs one


def _run_job(pipe: Connection, job: Job) -> bool:
    """Says whether this process is fit for another job."""
    from suite.training.trial import healthy

    stream = events_of(job)
    verdict: Verdict | None = None
    stopping = False
    try:
        while True:
            try:
                event = stream.send(verdict)
            except StopIteration:
                break
            pipe.send(event)
            asked = awaits_verdict(job.trial, event)
            verdict = None
            while asked or pipe.poll(0):
                trial_id, word, answers = pipe.recv()
                if trial_id == job.trial_id:
                    stopping |= word == "stop"
                    verdict = word
                    asked = asked and not answers  # a call to stop that was under way is no answer to a rung
            if stopping and verdict != "prune":
                verdict = "stop"
    finally:
        stream.close()
    _release()
    return healthy()


def limit_memory(limit: int | None) -> None:
    """Let allocations beyond the limit fail in the trial that makes them, instead of the machine."""
    if limit is None:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _die_with(parent: int) -> None:
    """End with the controller, however that ends: Linux sees to it at once, elsewhere a look a second does."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
