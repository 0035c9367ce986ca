"""Connections of clients: how many there are, how long they may idle, and what is no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

from aiohttp import web

from suite.serving.limits import Limits
from suite.serving.service import Service

KEEP_ALIVE = 30.0  # seconds that a connection may idle, and that headers may take

LINGER = 1.0  # seconds in which the rest of a refused body is read, so that the client sees the answer

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: 43\r\n\r\n{"error": "There are too many connections."}'
)

_silent = logging.Logger("mnist-suite")  # of its own, without handlers: what clients do wrong is no event here
_silent.addHandler(logging.NullHandler())


class Connections(web.Server):
    """Makes a connection for each client, and refuses those beyond the limit."""

    def __init__(self, service: Service, limits: Limits) -> None:
        super().__init__(service.answer)
        self.service, self.limits = service, limits
        self._seconds = min(KEEP_ALIVE, limits.seconds)

    def __call__(self) -> Any:
        if len(self.connections) >= self.limits.connections:
            return _Full()
        return _Connection(
            self.service,
            self.limits,
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._seconds,
            lingering_time=LINGER,
            logger=_silent,
            access_log=None,
            auto_decompress=False,
        )


class _Connection(web.RequestHandler):
    __slots__ = ("limits", "service")

    def __init__(self, service: Service, limits: Limits, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.service, self.limits = service, limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the kernel close a connection whose client takes no bytes of its answer (Linux)."""
        one = transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self.limits.seconds))
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        return self.service.malformed(exc)


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(FULL)
        transport.close()
