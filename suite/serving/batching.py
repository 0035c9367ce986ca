"""Micro-batches: pictures that arrive while the model is at work are predicted together."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from suite.errors import InputError, WorkError
from suite.serving.limits import Refused, busy
from suite.serving.worker import LENGTH, Answered, Asked, answers_of, framed

STARTS_AGAIN = 1.0  # seconds after which a worker that cannot be started is tried again


class _Waiting(NamedTuple):
    asked: Asked
    deadline: float  # of time.monotonic
    answer: asyncio.Future[Answered]


class Batcher:
    """Lets worker processes predict. A worker that is free takes all pictures that wait, and at once if it is idle.

    No picture waits for others to come, so that a single one is answered as fast as without batches. A worker that
    dies, or that takes too long, is started again; its pictures are refused.

    Args:
        command: starts a worker.
        most: pictures of a batch.
        seconds: that a batch may take.
        on_batch: called with the number of pictures of each batch.
    """

    def __init__(self, command: Sequence[str], most: int, seconds: float, on_batch: Callable[[int], None]) -> None:
        self._command, self._most, self._seconds, self._on_batch = command, most, seconds, on_batch
        self._waiting: deque[_Waiting] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()  # of workers without work
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = 0  # workers that have loaded the model

    async def start(self, count: int) -> str:
        """Start workers; returns the format of the model's file. Raises InputError or WorkError where one fails."""
        begun = await asyncio.gather(*(self._begin() for _ in range(count)), return_exceptions=True)
        failed = next((one for one in begun if isinstance(one, BaseException)), None)
        workers = [one for one in begun if not isinstance(one, BaseException)]
        if failed is not None:
            for process, _ in workers:
                await _end(process)
            raise failed
        self._tasks = [asyncio.create_task(self._work(process)) for process, _ in workers]
        return workers[0][1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, asked: Asked, deadline: float) -> asyncio.Future[Answered]:
        """The answer to one picture, to come; Refused where its turn comes after the deadline."""
        if not self.ready:
            raise busy("The model is being loaded.")
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(asked, deadline, answer))
        if self._idle:
            self._idle.popleft().set_result(None)  # it runs after the other requests that have arrived by now
        return answer

    async def _begin(self) -> tuple[Process, str]:
        """A worker that has loaded the model, and the format that it runs."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, limit=1 << 20, start_new_session=True
        )
        try:
            (first,) = answers_of(await _reply(process))
        except (asyncio.IncompleteReadError, ValueError):
            await _end(process)
            raise WorkError("The process that runs the model has ended before it was ready.") from None
        if first.status != 200:
            await _end(process)
            raise (InputError if first.status == 400 else WorkError)(first.body.decode())
        return process, first.body.decode()

    async def _work(self, process: Process) -> None:
        """Give batches to a worker, and start another one in its place where it fails."""
        while True:
            try:
                await self._serve(process)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                sys.stderr.write("mnist-suite: a process that runs the model has failed; it is started again.\n")
            finally:
                await _end(process)
            process = await self._again()

    async def _again(self) -> Process:
        while True:
            try:
                return (await self._begin())[0]
            except (InputError, WorkError, OSError) as error:
                sys.stderr.write(f"mnist-suite: {error}\n")
                await asyncio.sleep(STARTS_AGAIN)

    async def _serve(self, process: Process) -> None:
        assert process.stdin is not None
        self.ready += 1
        batch: list[_Waiting] = []
        try:
            while True:
                while not (batch := self._next()):
                    idle = asyncio.get_running_loop().create_future()
                    self._idle.append(idle)
                    await idle
                self._on_batch(len(batch))
                process.stdin.write(framed(pickle.dumps([one.asked for one in batch], pickle.HIGHEST_PROTOCOL)))
                async with asyncio.timeout(self._seconds):
                    reply = await _reply(process)
                for one, answer in zip(batch, answers_of(reply), strict=True):
                    if not one.answer.done():
                        one.answer.set_result(answer)
        finally:
            self.ready -= 1
            left = batch if self.ready else [*batch, *self._waiting]
            if not self.ready:
                self._waiting.clear()
            for one in left:
                if not one.answer.done():
                    one.answer.set_exception(Refused(500, "The model has failed to answer."))

    def _next(self) -> list[_Waiting]:
        """The pictures of the next batch. Those whose deadline has passed are refused."""
        now = time.monotonic()
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._most:
            one = self._waiting.popleft()
            if now > one.deadline:
                one.answer.set_exception(Refused(504, "The model was not free in time."))
            else:
                batch.append(one)
        return batch


async def _reply(process: Process) -> bytes:
    assert process.stdout is not None
    length = await process.stdout.readexactly(LENGTH.size)
    return await process.stdout.readexactly(LENGTH.unpack(length)[0])


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # it holds nothing that could be lost
    await process.wait()
