"""Trials in worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from suite.errors import WorkError
from suite.execution.job import NO_LIMITS, Job, Limits, Message
from suite.execution.slot import Slot, State, TimeLimit, free, slot_of
from suite.execution.worker import STOP_SIGNALS, Reply, work
from suite.hardware.device import cores
from suite.spec import Verdict

EXIT_SECONDS = 10.0  # that a worker has for ending by itself before it is killed


class Processes:
    """A pool of worker processes that live as long as the controller, each running trials one after another."""

    def __init__(self, workers: int, limits: Limits = NO_LIMITS) -> None:
        self.slots, self.limits = workers, limits
        self.threads = max(1, cores() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._time_limit = TimeLimit(limits.seconds)

    def free(self) -> int:
        return free(self._workers, self.slots)

    def submit(self, job: Job) -> None:
        idle = [worker for worker in self._workers if worker.state is State.IDLE]
        for worker in idle:
            if not worker.process.is_alive():
                self._workers.remove(worker)
                worker.end()
        worker = next((w for w in idle if w in self._workers), None)
        if worker is None:
            worker = _Worker(self._context, self.limits)
            self._workers.append(worker)
        worker.begin(job)
        worker.send(job)

    def poll(self, timeout: float) -> list[Message]:
        messages = self._stop_overdue()
        busy = {worker.pipe: worker for worker in self._workers if worker.state is not State.IDLE}
        if messages:
            timeout = 0.0
        if not busy:
            time.sleep(timeout)
            return messages
        for pipe in wait(list(busy), timeout):
            worker = busy[pipe]  # type: ignore[index]
            try:
                received = worker.pipe.recv()
            except (EOFError, OSError):
                self._workers.remove(worker)
                messages.append(worker.lose(worker.cause_of_death()))
                continue
            if isinstance(received, WorkError):
                raise received
            messages.append(worker.receive(received))
        return messages

    def _stop_overdue(self) -> list[Message]:
        """Kill the workers whose attempt has used up its time: a worker that hangs reacts to nothing else."""
        messages: list[Message] = []
        for worker in self._time_limit.exceeded(self._workers):
            self._workers.remove(worker)
            worker.kill()
            messages.append(worker.lose(self._time_limit.reason, again=False))
        return messages

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        worker = slot_of(self._workers, trial_id)
        if worker is None or worker.job is None:
            return
        reply = Reply(worker.job.attempt, verdict, answers=worker.state is State.AWAITING)
        if worker.reply(verdict):  # repeating it to a worker that hangs would fill its pipe, and block
            worker.send(reply)

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()


class _Worker(Slot):
    """A worker process, and the attempt that runs in it."""

    def __init__(self, context: Any, limits: Limits) -> None:
        super().__init__()
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, os.getpid(), limits), daemon=True)
        # The signals are blocked until the worker ignores them. The resource tracker is started before: its own start
        # would unblock them.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the worker's death closes the pipe

    def send(self, what: Job | Reply) -> None:
        with contextlib.suppress(OSError):  # a dead worker is noticed by `poll`
            self.pipe.send(what)

    def cause_of_death(self) -> str:
        self.process.join(EXIT_SECONDS)
        if self.process.is_alive():  # hangs as it exits
            self.kill()
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its worker was killed by {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    def end(self) -> None:
        self.pipe.close()
        self.process.join(EXIT_SECONDS)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join(EXIT_SECONDS)
