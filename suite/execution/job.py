"""Where trials run: in this process, one or several at a time, or in worker processes. One picklable job, one stream of
events back."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from suite.device import cores
from suite.errors import WorkError
from suite.spec import Evaluated, Event, Spec, Trial, Verdict
from suite.store import TrialDir, disk_fault

POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)  # ask for a clean stop
PAUSE = 5.0  # seconds; a longer gap between two looks means that all of this stood still: Ctrl-Z, a suspended job step


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
    again: bool = True  # whether a lost job is worth another attempt


@dataclass(frozen=True)
class Limits:
    """What one attempt may take before it fails. Only processes of their own can be held to it."""

    seconds: float | None = None
    memory: int | None = None  # bytes


class Timed(Protocol):
    """What a job runs on."""

    job: Job | None
    spent: float  # seconds on this job


T = TypeVar("T", bound=Timed)


class TimeLimit:
    """Finds the jobs that take longer than they may, not counting the time in which we were suspended."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._looked = time.monotonic()

    def over(self, places: Sequence[T]) -> list[tuple[T, Message]]:
        """Count the time since the last look; the places whose job has had too much of it, with what to say of it."""
        found: list[tuple[T, Message]] = []
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, PAUSE), now
        for place in places:
            job, seconds = place.job, self.seconds
            place.spent += passed
            if job is not None and seconds is not None and place.spent > seconds:
                reason = f"time limit: not done after {seconds:g} s"
                found.append((place, Message(job.trial_id, job.attempt, lost=reason, again=False)))
        return found


class Executor(Protocol):
    slots: int
    threads: int  # for each trial

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


def events_of(job: Job, together: bool = False) -> Any:
    from suite.runner import run_trial

    directory = TrialDir(Path(job.directory))
    return run_trial(
        job.trial, directory, Path(job.results), attempt=job.attempt, command=job.command, together=together
    )


class Inline:
    """One trial at a time in this process, advanced by one event a poll."""

    slots = 1

    def __init__(self) -> None:
        self.threads = cores()
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
                    self._stream = events_of(job)
                    event = next(self._stream)
                else:
                    verdict, self._verdict = self._verdict, None
                    event = self._stream.send(verdict)
            except StopIteration:
                self._job = self._stream = None
                _release()
                return [Message(job.trial_id, job.attempt)]
        return [Message(job.trial_id, job.attempt, event)]

    def reply(self, trial_id: str, verdict: Verdict | None) -> None:
        if self._job is not None and self._job.trial_id == trial_id and self._verdict != "stop":
            self._verdict = verdict

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


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
        from suite.population import Population

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
        failures = self._population.take([member.step for member in members])
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


class Processes:
    """A pool of worker processes that live as long as the controller, each running trials one after another."""

    def __init__(self, workers: int, limits: Limits = Limits()) -> None:
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
    from suite.runner import healthy

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


def _release() -> None:
    from suite.runner import release

    release()


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
