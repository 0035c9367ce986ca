"""`--web`: who is served; and in a headless browser, that the page shows the leaderboard, reacts to keys, is read-only.

The page draws its terminal on a canvas, so its text is read from the WebSocket frames that it receives.
"""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from typer.testing import CliRunner

from suite.cli.main import app
from tui.ending import sentence

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


class Page:
    """A browser tab, over the DevTools protocol."""

    def __init__(self, connection) -> None:
        self.connection, self.count, self.text = connection, 0, ""
        self.requested: list[str] = []  # addresses
        self.logged: list[str] = []  # errors in the page, among them resources that it may not load

    async def call(self, method: str, **parameters: object) -> None:
        self.count += 1
        await self.connection.send_json({"id": self.count, "method": method, "params": parameters})

    async def key(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, text=key if kind == "keyDown" else "", key=key)

    async def click(self, x: int, y: int) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def until(self, wanted: str, seconds: float = 40) -> None:
        self.text = ""

        async def read() -> None:
            async for message in self.connection:
                data = message.json()
                if data.get("method") in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                    self.requested.append(data["params"].get("url") or data["params"]["request"]["url"])
                if data.get("method") == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                    self.logged.append(data["params"]["entry"]["text"])
                if data.get("method") == "Network.webSocketFrameReceived":
                    frame = data["params"]["response"]
                    if frame["opcode"] == 2:  # binary: what the terminal draws
                        self.text += base64.b64decode(frame["payloadData"]).decode("utf-8", "ignore")
                    if wanted in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text):
                        return

        await asyncio.wait_for(read(), seconds)


async def browse(folder: Path, url: str, script: Callable[[Page], Awaitable[None]]) -> None:
    port = free_port()
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--remote-debugging-port={port}"]
    browser = subprocess.Popen(
        [str(CHROMIUM), *words, f"--user-data-dir={folder / 'profile'}", "--window-size=1200,800", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            tabs = await get_json(session, f"http://localhost:{port}/json")
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as connection:
                page = Page(connection)
                await page.call("Network.enable")
                await page.call("Page.enable")
                await page.call("Log.enable")
                await page.call("Page.navigate", url=url)
                await script(page)
    finally:
        browser.terminate()
        browser.wait(20)


async def get_json(session, url: str):
    """The JSON at an address, as soon as it answers."""
    for _ in range(200):
        try:
            async with session.get(url) as answer:
                return await answer.json(content_type=None)
        except (aiohttp.ClientError, ValueError):
            await asyncio.sleep(0.1)
    raise TimeoutError(url)


@dataclass
class Served:
    process: Any
    address: str  # as printed

    def end(self, number: signal.Signals) -> tuple[int, list[str]]:
        """Its exit code, and what it says."""
        self.process.signal(number)
        return self.process.wait(60), self.process.errors.splitlines()[1:]


@pytest.fixture
def server(results: Path, start: Callable[..., Any]) -> Iterator[Served]:
    """`mnist-suite tui --web` at a free port."""
    process = start("tui", "--web", "--port", 0, "--results", results)
    deadline = time.monotonic() + 200
    while not (found := re.search(r"http://\S+", process.errors)):
        assert process.poll() is None and time.monotonic() < deadline, process.errors
        time.sleep(0.02)
    yield Served(process, found[0])
    if process.poll() is None:
        process.signal(signal.SIGKILL)


@needs_browser
@pytest.mark.web
def test_the_page_shows_the_leaderboard_and_reacts_to_keys(results: Path, tmp_path: Path, server: Served) -> None:
    """A tab's process ends with the server, which loads nothing from elsewhere and says one sentence at its end."""
    tabs: list[psutil.Process] = []
    seen: list[Page] = []
    ended: list[tuple[int, list[str]]] = []

    async def script(page: Page) -> None:
        await page.until("finished")
        await page.click(600, 600)
        await page.key("x")  # read-only: no dialogue, no stop
        await page.key("2")
        await page.until("PARETO")
        assert "Stop study" not in page.text
        tabs.extend(psutil.Process(server.process.pid).children())
        seen.append(page)
        ended.append(server.end(signal.SIGTERM))

    asyncio.run(browse(tmp_path, server.address, script))
    assert not (results / "mnist" / "stop.request").exists()
    (page,) = seen
    own = urlsplit(server.address).netloc
    assert len(page.requested) >= 4 and not page.logged
    assert {urlsplit(url).netloc for url in page.requested if not url.startswith("data:")} == {own}
    assert tabs and not psutil.wait_procs(tabs, 20)[1]
    assert ended == [(143, [f"mnist-suite: {sentence(signal.SIGTERM)}"])]


REFUSED = {
    "no token": ("", {}),
    "another token": ("?token=none", {}),
    "a token that is no text": ("?token=%C3%A9", {}),
    "a foreign page": ("TOKEN", {"Origin": "http://example.org"}),
    "another port": ("TOKEN", {"Origin": "http://127.0.0.1:1"}),
    "a page without an origin": ("TOKEN", {"Origin": "null"}),
    "another name of this machine": ("TOKEN", {"Host": "rebound.example.org"}),
    "a name that begins as ours": ("TOKEN", {"Host": "localhost.example.org"}),
}


def test_only_the_printed_address_opens_it(server: Served) -> None:
    """Page, WebSocket and files; the token may come as the cookie that the page sets, and the port be forwarded."""
    address = urlsplit(server.address)
    base, token = f"http://{address.netloc}", f"?{address.query}"

    async def code(path: str, query: str, headers: dict[str, str]) -> int:
        extra = (
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"} if path == "/ws" else {}
        )
        extra |= {"Sec-WebSocket-Key": base64.b64encode(b"k" * 16).decode()} if extra else {}
        jar = aiohttp.DummyCookieJar()
        async with (
            aiohttp.ClientSession(cookie_jar=jar) as session,
            session.get(base + path + query, headers=headers | extra) as answer,
        ):
            return answer.status

    async def main() -> None:
        for why, (query, headers) in REFUSED.items():
            for path in ("/", "/ws", "/static/js/textual.js", "/download/x"):
                assert await code(path, query.replace("TOKEN", token), headers) == 403, (why, path)
        assert await code("/", token, {}) == await code("/static/js/textual.js", token, {}) == 200
        assert await code("/", token, {"Host": "localhost:9"}) == 200
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(server.address) as answer:
                text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
                assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=Strict" in answer.headers["Set-Cookie"]
                assert address.query not in text
            async with session.ws_connect(f"{base}/ws", headers={"Origin": base}) as tab:
                assert (await tab.receive(30)).type == aiohttp.WSMsgType.BINARY
                await tab.send_str("no message")  # ends this tab, and nothing else
                while not (await tab.receive(30)).type.name.startswith("CLOS"):
                    pass
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert set(re.findall(r"//([\w.-]+)", text)) == {address.hostname}
        assert await code("/", token, {}) == 200

    asyncio.run(main())
    assert server.end(signal.SIGINT) == (130, [f"mnist-suite: {sentence(signal.SIGINT)}"])


def test_a_tab_ends_with_a_server_that_is_killed(server: Served) -> None:
    async def main() -> list[psutil.Process]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(server.address.replace("/?", "/ws?")) as tab,
        ):
            await tab.receive(60)
            tabs = psutil.Process(server.process.pid).children()
            server.process.signal(signal.SIGKILL)
        return tabs

    tabs = asyncio.run(main())
    assert tabs and not psutil.wait_procs(tabs, 60)[1]


def test_a_port_in_use_is_named(suite: Callable[..., Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = suite("tui", "--web", "--port", port, "--results", tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(
        f"mnist-suite: Port {port} is in use: name another one with --port"
    )


@pytest.mark.parametrize("given", [(), ("--read-write",), ("--readonly",)])
def test_only_read_write_may_start_commands(
    given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tui.web

    asked: list[bool] = []
    monkeypatch.setattr(tui.web, "serve", lambda results, readonly, port: asked.append(readonly) or 0)
    done = CliRunner().invoke(app, ["tui", "--web", "--results", str(tmp_path), *given])
    assert done.exit_code == 0 and asked == [given != ("--read-write",)]
