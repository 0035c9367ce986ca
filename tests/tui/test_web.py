"""`--web` in a headless browser: the page shows the leaderboard, reacts to keys, and is read-only.

The page draws its terminal on a canvas, so its text is read from the WebSocket frames that it receives.
"""

from __future__ import annotations

import asyncio
import base64
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.web, pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")]

# serves the dashboard of this source tree, independently of the command line
SERVER = """
import sys, pathlib
from tui import app
from tui.work import commands
if sys.argv[1] == "tui":
    sys.exit(app.run(pathlib.Path(sys.argv[3]), "--readonly" in sys.argv, False))
commands.PROGRAM = (sys.executable, __file__)
sys.exit(app.serve(pathlib.Path(sys.argv[1]), True, int(sys.argv[2])))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


class Page:
    """A browser tab, over the DevTools protocol."""

    def __init__(self, connection) -> None:
        self.connection, self.count, self.text = connection, 0, ""

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


async def wait_for_server(url: str) -> None:
    for _ in range(200):
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert answer.status == 200
                return
        except aiohttp.ClientError:
            await asyncio.sleep(0.1)
    raise TimeoutError(url)


def test_the_page_shows_the_leaderboard_and_reacts_to_keys(results: Path, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(tmp_path / "server.py"), str(results), str(port)], stdout=subprocess.DEVNULL
    )

    async def script(page: Page) -> None:
        await page.until("finished")
        await page.click(600, 600)
        await page.key("x")  # read-only: no dialogue, no stop
        await page.key("2")
        await page.until("PARETO")
        assert "Stop study" not in page.text

    async def main() -> None:
        await wait_for_server(f"http://localhost:{port}")
        await browse(tmp_path, f"http://localhost:{port}", script)

    try:
        asyncio.run(main())
        assert not (results / "mnist" / "stop.request").exists()
    finally:
        server.terminate()
        server.wait(20)


def test_the_server_listens_on_this_machine_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import textual_serve.server

    from tui.app import run

    made = {}

    class Server:
        def __init__(self, command: str, **options: object) -> None:
            made.update(options, command=command)

        def serve(self) -> None:
            pass

    monkeypatch.setattr(textual_serve.server, "Server", Server)
    assert run(tmp_path, None, True) == 0
    assert made["host"] == "localhost" and "--readonly" in made["command"]
    assert run(tmp_path, False, True) == 0 and "--readonly" not in made["command"]
