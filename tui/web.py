"""`tui --web`: the dashboard for browsers on this machine, one process of it for each tab.

Whoever can open the page can read the results, and with `--read-write` start commands as this user. So the server
listens on this machine only, and every request must hold the token of the printed address: other users of the machine
do not know it. Pages of other sites in the same browser are refused by their Origin, and names that somebody else lets
resolve to this machine (DNS rebinding) by the Host. The page loads nothing from other hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from suite.errors import InputError
from tui.ending import exit_code, sentence
from tui.work import commands

HOST = "127.0.0.1"  # not "localhost": another user could take the port at its other address, and be sent the token
NAMES = frozenset({"127.0.0.1", "localhost", "::1"})  # under which a browser may know this machine
PORT = 8000
GRACE = 3.0  # seconds for a tab's process to end itself
TEMPLATE = Path(__file__).with_name("web.html")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "font-src 'self'; img-src 'self' data:; connect-src 'self' ws://$host; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tab(AppService):
    """The dashboard's process of one tab."""

    def __init__(self, words: Sequence[str], **ways: Any) -> None:
        super().__init__("", **ways)
        self.words = words

    async def _open_app_process(self, width: int = 80, height: int = 24) -> Process:
        """Without a shell, and in a session of its own: Ctrl+C in the terminal of the server is for the server."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self.words,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._build_environment(width, height),
            start_new_session=True,
        )
        self._stdin = process.stdin
        return process

    async def run(self) -> None:
        await super().run()
        await self.remote_close()  # also where the process ended without a word

    async def stop(self) -> None:
        """End the process, by force if it does not end itself."""
        with contextlib.suppress(TimeoutError, OSError):
            await asyncio.wait_for(super().stop(), GRACE)
        if (process := self._process) is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Web(Server):
    """The server. `words` is the command of a tab's process, `token` what every request must hold."""

    def __init__(self, words: Sequence[str], token: str) -> None:
        super().__init__("", host=HOST)
        self.words, self.token = words, token
        self._open: set[web.WebSocketResponse] = set()

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self.handle_page),
                web.get("/ws", self.handle_websocket),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        app.on_shutdown.append(self.on_shutdown)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests for other hosts, from other sites, and without the token."""
        if not known_host(request.host):
            raise web.HTTPForbidden(text=f"This server is not {request.host}.\n")
        if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
            raise web.HTTPForbidden(text="Pages of other sites may not use this server.\n")
        given = request.query.get("token") or request.cookies.get(self._cookie(request)) or ""
        if not secrets.compare_digest(given.encode(errors="replace"), self.token.encode()):
            raise web.HTTPForbidden(text="Open the address that `mnist-suite tui --web` printed; it holds a token.\n")
        return await handler(request)

    @staticmethod
    def _cookie(request: web.Request) -> str:
        """The cookie's name. Servers at several ports of one host share their cookies."""
        return f"mnist-suite-{urlsplit(f'//{request.host}').port or 80}"

    async def handle_page(self, request: web.Request) -> web.Response:
        """The page, and the token as a cookie, for what the page loads."""
        host = request.host
        page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(host=host)
        response = web.Response(text=page, content_type="text/html")
        for name, value in HEADERS.items():
            response.headers[name] = Template(value).substitute(host=host)
        response.set_cookie(self._cookie(request), self.token, httponly=True, samesite="Strict")
        return response

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """A tab: what is typed goes to its process, what that draws to the browser."""
        browser = web.WebSocketResponse(heartbeat=15)
        await browser.prepare(request)
        tab = Tab(
            self.words,
            write_bytes=browser.send_bytes,
            write_str=browser.send_str,
            close=browser.close,
            download_manager=self.download_manager,
        )
        self._open.add(browser)
        try:
            width, height = (to_int(request.query.get(name, ""), 80) for name in ("width", "height"))
            await tab.start(min(max(width, 10), 1000), min(max(height, 5), 1000))
            await self._process_messages(browser, tab)
        except (ConnectionError, ValueError, LookupError, TypeError, AssertionError):
            pass  # the browser has gone, or what it sends is no message
        finally:
            self._open.discard(browser)
            await asyncio.shield(tab.stop())
            await browser.close()
        return browser

    async def on_shutdown(self, app: web.Application) -> None:
        await asyncio.gather(*(browser.close() for browser in list(self._open)))


def known_host(host: str) -> bool:
    """Whether a Host header names this machine by one of its own names, at any port: it may have been forwarded."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname in NAMES and (parts.port or 80) > 0 and parts.netloc == host and "@" not in host
    except ValueError:
        return False


def listen(port: int) -> socket.socket:
    """A socket that listens at a port of this machine; 0: at any free one. Raises InputError."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((HOST, port))
        one.listen(128)
    except OSError as error:
        one.close()
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise InputError(f"Port {port} {why}: name another one with --port, or 0 for any free one.") from None
    return one


def serve(results: Path, readonly: bool, port: int = PORT) -> int:
    """Serve the dashboard until a signal ends it; returns the exit code. Raises InputError where the port is taken."""
    mode = "--readonly" if readonly else "--read-write"
    words = [*commands.PROGRAM, "tui", "--results", str(results), mode, "--no-ascii"]
    token = secrets.token_urlsafe(24)
    with listen(port) as one:
        received = asyncio.run(_serve(Web(words, token), one, token))
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"mnist-suite: {sentence(received)}\n")
    return exit_code(received)


async def _serve(server: Web, one: socket.socket, token: str) -> signal.Signals:
    """Serve at a socket until a signal arrives, and end all tabs; returns the signal. A second one ends at once."""
    arrived: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()

    def on_signal(number: signal.Signals) -> None:
        if arrived.done():
            os._exit(exit_code(number))  # the tabs see that their parent has gone
        arrived.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP under nohup
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    runner = web.AppRunner(await server._make_app(), access_log=None, shutdown_timeout=2 * GRACE)
    await runner.setup()
    try:
        await web.SockSite(runner, one).start()
        address = f"http://{HOST}:{one.getsockname()[1]}/?token={token}"
        sys.stderr.write(f"The dashboard is at {address} (this machine only); Ctrl+C ends it.\n")
        sys.stderr.flush()
        return await arrived
    finally:
        await runner.cleanup()
