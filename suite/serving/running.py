"""Running a server: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable

from suite.errors import InputError
from suite.serving.connections import Connections
from suite.serving.limits import Limits
from suite.serving.service import Service

GRACE = 0.5  # seconds for a request that is on its way when the server is asked to stop

BACKLOG = 1024  # connections that the kernel keeps until they are accepted


def is_local(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0: at any free one. Raises InputError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host!r} is no address of this machine; take 127.0.0.1 or 0.0.0.0.") from None
    one = socket.socket(family, kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(address)
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"Port {port} is in use: name another one with --port, or 0 for any free one.") from None
        raise InputError(f"The server cannot listen at {host}, port {port}: {error.strerror}.") from None
    one.setblocking(False)
    return one


def address_of(one: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = one.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def exit_code(number: signal.Signals) -> int:
    return 130 if number is signal.SIGINT else 143


async def serve(
    service: Service, limits: Limits, one: socket.socket, workers: int, on_ready: Callable[[], None]
) -> signal.Signals:
    """Serve at a socket until a signal arrives; answer what has been taken, and return the signal.

    A second signal ends the process at once. Raises InputError or WorkError where the model cannot be loaded.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if arrived.done():
            os._exit(exit_code(number))
        arrived.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP under nohup
            loop.add_signal_handler(number, on_signal, number)
    started = asyncio.ensure_future(service.start(workers))
    await asyncio.wait([started, arrived], return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        started.cancel()
        return arrived.result()
    started.result()
    connections = Connections(service, limits)
    server = await loop.create_server(connections, sock=one, backlog=BACKLOG)
    gc.freeze()  # what is loaded stays: the collector need not look at it again
    on_ready()
    try:
        return await arrived
    finally:
        await _stop(service, connections, server, one, limits)


async def _stop(
    service: Service, connections: Connections, server: asyncio.Server, one: socket.socket, limits: Limits
) -> None:
    """Accept no more connections, answer the requests of those that are there, and close them."""
    service.stopping = True  # every answer closes its connection from now on
    await _accept_waiting(connections, one)
    server.close()
    end = time.monotonic() + GRACE
    while connections.connections and time.monotonic() < end:
        await asyncio.sleep(0.02)
    connections.pre_shutdown()  # closes those that idle
    await connections.shutdown(limits.seconds)
    await service.close()


async def _accept_waiting(connections: Connections, one: socket.socket) -> None:
    """Accept the connections that the kernel has made already: closing the socket would reset them."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            waiting, _ = one.accept()
        except OSError:
            return
        waiting.setblocking(False)
        await loop.connect_accepted_socket(connections, waiting)
