"""What runs in a worker process on this machine: jobs come in through a pipe, events go out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from suite.errors import WorkError
from suite.execution.attempt import Attempt, release_memory
from suite.execution.job import Job, Limits
from suite.execution.slot import Slot, State
from suite.hardware import device
from suite.spec import Event, Verdict
from suite.store.files import disk_fault

# Signals that ask for a clean stop. They reach the whole process group or job step; workers ignore them, since the
# controller decides what is stopped.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class GpuLost:
    """Sent in place of the first event by a worker whose device did not answer before its first attempt."""


@dataclass(frozen=True)
class Reply:
    """A verdict on its way to a worker."""

    attempt: str
    verdict: Verdict | None
    answers: bool  # whether the controller had received the rung at which the trial pauses


def work(pipe: Connection, controller: int, limits: Limits) -> None:
    """Run jobs one after another until the controller, a process id, is gone.

    Sends each event, then None for the end of the attempt, or a WorkError where the disk failed. Returns early, ending
    the process, after a WorkError or where the GPU no longer answers; where it did not when the first job came, a
    GpuLost is all that is sent.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    _die_with(controller)
    limit_memory(limits.memory)
    usable, checked = True, False
    while usable:
        try:
            job = pipe.recv()
            if not isinstance(job, Job):
                continue  # a reply to an attempt that was over before it came
            if not checked and job.trial.device == "cuda" and not device.answers(torch.device("cuda")):
                pipe.send(GpuLost())
                return
            checked = True
            result: Event | WorkError | None
            try:
                usable = _run(pipe, job)
                result = None
            except WorkError as error:
                result, usable = error, False
            pipe.send(result)
        except (EOFError, OSError):  # the controller is gone
            return


def _run(pipe: Connection, job: Job) -> bool:
    """Run one attempt; returns whether this process can run another one. Raises WorkError where the disk fails."""
    slot = Slot()
    slot.begin(job)
    try:
        attempt = Attempt(job)
    except OSError as error:
        raise WorkError(disk_fault(error)) from None
    try:
        while (event := attempt.advance(slot.verdict)) is not None:
            slot.receive(event)
            pipe.send(event)
            while slot.state is State.AWAITING or pipe.poll(0):
                reply = pipe.recv()
                if reply.attempt == job.attempt:
                    slot.reply(reply.verdict, answers=reply.answers)
    finally:
        attempt.close()
    return release_memory()


def limit_memory(limit: int | None) -> None:
    """Make allocations above the limit (bytes of main memory) fail in this process, before the machine runs out."""
    if limit is None:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _die_with(parent: int) -> None:
    """End this process when its parent ends: at once on Linux, elsewhere within a second."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
