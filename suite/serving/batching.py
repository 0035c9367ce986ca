"""Micro-batches: pictures of requests that arrive while the model is at work are predicted together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from suite.serving.limits import Refused

Answer = dict[str, Any]


class _Waiting(NamedTuple):
    picture: np.ndarray  # (C, stored, stored) uint8
    deadline: float  # of time.monotonic
    answer: asyncio.Future[Answer]


class Batcher:
    """Runs a model in a thread of its own, on all pictures that wait when it becomes free, and at once if it is.

    No picture waits for others to come, so that a single one is answered as fast as without batches.

    Args:
        work: from pictures (B, C, stored, stored) uint8 to their answers.
        most: pictures of a batch.
        on_batch: called with the number of pictures of each batch.
    """

    def __init__(self, work: Callable[[np.ndarray], list[Answer]], most: int, on_batch: Callable[[int], None]) -> None:
        self._work, self._most, self._on_batch = work, most, on_batch
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "model")
        self._busy = False

    def submit(self, picture: np.ndarray, deadline: float) -> asyncio.Future[Answer]:
        """The answer to one picture, to come; Refused where its turn comes after the deadline."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Waiting(picture, deadline, answer))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # after the other requests that have arrived at the same time
        return answer

    def _next(self) -> None:
        now = time.monotonic()
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._most:
            one = self._waiting.popleft()
            if one.answer.done():
                continue
            if now > one.deadline:
                one.answer.set_exception(Refused(504, "The model was not free in time."))
            else:
                batch.append(one)
        self._busy = bool(batch)
        if batch:
            self._on_batch(len(batch))
            loop = asyncio.get_running_loop()
            done = loop.run_in_executor(self._thread, self._work, np.stack([one.picture for one in batch]))
            done.add_done_callback(partial(self._answered, batch))

    def _answered(self, batch: list[_Waiting], done: asyncio.Future[list[Answer]]) -> None:
        error = done.exception()
        for i, one in enumerate(batch):
            if one.answer.done():
                continue
            if error is not None:
                one.answer.set_exception(error)
            else:
                one.answer.set_result(done.result()[i])
        self._next()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
