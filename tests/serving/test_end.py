"""The end of a worker, and of a server."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Served


@pytest.fixture(scope="module")
def server(serve: Callable[..., Served]) -> Served:
    return serve()


def test_a_worker_that_dies_is_replaced(server: Served, digits: list[Path]) -> None:
    (worker,) = psutil.Process(server.process.pid).children()
    worker.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while (answer := server.predict(digits[0].read_bytes())).code != 200:
        assert answer.code in (500, 503) and time.monotonic() < end
        time.sleep(0.05)


def test_every_request_that_is_taken_is_answered_at_the_end(server: Served, digits: list[Path]) -> None:
    """SIGTERM under load: clients that keep their connections get whole answers, or find the port closed."""
    picture = digits[0].read_bytes()
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: image/png", f"Content-Length: {len(picture)}")
    head = "\r\n".join([*lines, "", ""])
    answered = 0

    async def client() -> str:
        """Why it has stopped."""
        nonlocal answered
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except ConnectionError:
                return "refused"
            keeps = True
            while keeps:
                writer.write(head.encode() + picture)
                try:
                    headers = await reader.readuntil(b"\r\n\r\n")
                    length = int(re.search(rb"Content-Length: (\d+)", headers)[1])  # type: ignore[index]
                    await reader.readexactly(length)
                except (ConnectionError, asyncio.IncompleteReadError):
                    return "lost"
                assert headers.startswith(b"HTTP/1.1 200")
                answered += 1
                keeps = b"Connection: close" not in headers
            writer.close()

    async def main() -> list[str]:
        clients = [asyncio.ensure_future(client()) for _ in range(24)]
        while answered < 200:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*clients)

    workers = psutil.Process(server.process.pid).children()
    assert set(asyncio.run(main())) == {"refused"}
    assert server.process.wait(30) == 143 and answered >= 200
    assert workers and not psutil.wait_procs(workers, 30)[1]
