"""Trials in worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from suite.errors import WorkError
from suite.execution.job import NO_LIMITS, Job, Limits, Message
from suite.execution.slot import Slot, State, TimeLimit, free, slot_of
from suite.execution.worker import STOP_SIGNALS, GpuLost, Reply, work
from suite.hardware.device import cores, sees_only
from suite.hardware.openmp import bound_spinning
from suite.spec import Verdict

CPU = torch.device("cpu")

EXIT_SECONDS = 10.0  # that a worker has for ending by itself before it is killed


class Processes:
    """A pool of worker processes that live as long as the controller, each running trials one after another.

    The workers are spread evenly over the given devices. One on a CUDA device sees no other, so that nothing of it
    lands elsewhere. A device on which a new worker finds that it does not answer gets no further trial.
    """

    def __init__(self, workers: int, limits: Limits = NO_LIMITS, devices: Sequence[torch.device] = (CPU,)) -> None:
        self.slots, self.limits = workers, limits
        self._places = [devices[number % len(devices)] for number in range(workers)]  # the device of each slot
        self.threads = max(1, cores() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._time_limit = TimeLimit(limits.seconds)

    def free(self) -> int:
        return max(0, free(self._workers, self.slots))  # workers on a lost device may still be busy

    def submit(self, job: Job) -> None:
        idle = [worker for worker in self._workers if worker.state is State.IDLE]
        for worker in idle:
            if not worker.process.is_alive() or worker.place not in self._places:
                self._workers.remove(worker)
                worker.end()
        busy = Counter(worker.place for worker in self._workers if worker.state is not State.IDLE)
        worker = min((w for w in idle if w in self._workers), key=lambda w: busy[w.place], default=None)
        if worker is None:
            worker = _Worker(self._context, self.limits, self._free_place())
            self._workers.append(worker)
        if worker.place.type == "cuda":  # the only one that it sees
            job = replace(job, trial=job.trial.model_copy(update={"device": "cuda"}))
        worker.begin(job)
        worker.send(job)

    def _free_place(self) -> torch.device:
        """The device of the first slot that has no worker yet."""
        taken = Counter(worker.place for worker in self._workers)
        for place in self._places:
            if not taken[place]:
                return place
            taken[place] -= 1
        raise AssertionError("submitted without a free slot")

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
            messages.append(self._retire(worker) if isinstance(received, GpuLost) else worker.receive(received))
        return messages

    def _retire(self, worker: _Worker) -> Message:
        """Take the device of a worker out of service. Raises WorkError where it was the last one."""
        self._places = [place for place in self._places if place != worker.place]
        self.slots = len(self._places)
        if not self._places:
            raise WorkError(
                f"No GPU answers any more, the last was {worker.place}. Nothing that was committed is lost: once one "
                "does, the same command with --resume goes on."
            )
        self._workers.remove(worker)
        worker.end()
        return worker.lose(f"its GPU {worker.place} no longer answers")

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

    def __init__(self, context: Any, limits: Limits, place: torch.device) -> None:
        super().__init__()
        self.place = place
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, os.getpid(), limits), daemon=True)
        # The signals are blocked until the worker ignores them. The resource tracker is started before: its own start
        # would unblock them.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            with _environment(sees_only(place)):
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


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """The environment that a new worker process inherits."""
    before = dict(os.environ)
    bound_spinning()
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
