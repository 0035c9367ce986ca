"""The page in a real browser: it shows the answers to a drawing and to a file, and loads nothing from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.serving.conftest import Served

aiohttp = pytest.importorskip("aiohttp")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

TOKEN = "a-token-of-some-length"

STATE = """({label: document.getElementById("label").textContent, rows: document.querySelectorAll(".row").length,
  seen: document.getElementById("seen").naturalWidth, said: document.getElementById("said").textContent,
  about: document.getElementById("about").textContent, secret: !document.getElementById("secret").hidden})"""

DROP = """(() => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob("CONTENT"), c => c.charCodeAt(0));
  data.items.add(new File([bytes], "digit.png", {type: "image/png"}));
  const dropped = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
  document.getElementById("drop").dispatchEvent(dropped);
})()"""


class Page:
    """A browser tab, over the DevTools protocol."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.count = connection, 0
        self.requested: list[str] = []  # addresses
        self.logged: list[str] = []  # errors, among them what the policy forbids

    async def call(self, method: str, **parameters: object) -> Any:
        self.count += 1
        await self.connection.send_json({"id": self.count, "method": method, "params": parameters})
        async for message in self.connection:
            data = message.json()
            if data.get("method") == "Network.requestWillBeSent":
                self.requested.append(data["params"]["request"]["url"])
            if data.get("method") == "Log.entryAdded" and data["params"]["entry"]["level"] == "error":
                self.logged.append(data["params"]["entry"]["text"])
            if data.get("id") == self.count:
                return data["result"]

    async def run(self, script: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")

    async def mouse(self, kind: str, x: float, y: float) -> None:
        await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    async def until(self, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(600):
            state = await self.run(STATE)
            if state and met(state):
                return state
            await asyncio.sleep(0.1)
        raise TimeoutError(state)


async def browse(folder: Path, url: str, script: Callable[[Page], Any]) -> Page:
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    browser = subprocess.Popen(
        [str(CHROMIUM), *words, f"--user-data-dir={folder}", "--window-size=1200,800", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        chosen = folder / "DevToolsActivePort"
        while not chosen.exists() or not chosen.read_text():
            assert browser.poll() is None
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{chosen.read_text().split()[0]}/json") as answer:
                tabs = await answer.json(content_type=None)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as connection:
                page = Page(connection)
                for domain in ("Network", "Page", "Log"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=url)
                await script(page)
        return page
    finally:
        browser.terminate()
        browser.wait(20)


@pytest.mark.slow
@pytest.mark.web
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_drawing_and_a_file_are_answered(serve: Callable[..., Served], digits: list[Path], tmp_path: Path) -> None:
    server = serve(MNIST_SUITE_TOKEN=TOKEN)
    url = server.facts["url"]

    async def script(page: Page) -> None:
        await page.until(lambda state: state["about"] != "")  # by the token in the address
        box = await page.run('(({x, y}) => ({x, y}))(document.getElementById("pad").getBoundingClientRect())')
        await page.mouse("mousePressed", box["x"] + 140, box["y"] + 60)
        for step in range(10):
            await page.mouse("mouseMoved", box["x"] + 140, box["y"] + 60 + 16 * step)
        await page.mouse("mouseReleased", box["x"] + 140, box["y"] + 220)
        drawn = await page.until(lambda state: state["label"] != "")
        assert drawn["rows"] == 3 and drawn["seen"] == 28 and not drawn["secret"]
        await page.run('document.getElementById("clear").click()')
        assert (await page.run(STATE))["label"] == ""
        await page.run(DROP.replace("CONTENT", base64.b64encode(digits[4].read_bytes()).decode()))
        dropped = await page.until(lambda state: state["label"] != "")
        answer = server.predict(digits[4].read_bytes(), Authorization=f"Bearer {TOKEN}")
        assert dropped["label"] == answer.json["label"]
        await page.run(DROP.replace("CONTENT", base64.b64encode(b"no picture").decode()))
        assert "cannot be read" in (await page.until(lambda state: state["said"] != ""))["said"]

    page = asyncio.run(browse(tmp_path / "profile", f"{url}#{TOKEN}", script))
    assert {address.split("#")[0] for address in page.requested if not address.startswith("data:")} == {
        url,
        f"{url}card",
        f"{url}predict?seen=1",
    }
    assert [text for text in page.logged if "status of 4" not in text] == []  # as of a picture that cannot be used
