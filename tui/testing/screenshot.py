"""Screenshots of the dashboard as SVG, without a terminal, for the documentation.

python -m tui.testing.screenshot results board.svg --keys "2 l l" --size 120x36
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

from suite.store.files import write_atomic
from tui.app import Dashboard

FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}\s*")  # would fetch a font from the network
PAUSE = 0.4  # seconds, enough for the feed to read and the screen to be drawn


async def screenshot(results: Path, keys: list[str], size: tuple[int, int], theme: str) -> str:
    """The screen after the given keys, as SVG. `size` is (width, height) in cells."""
    app = Dashboard(results, readonly=True, interval=0.1)
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await pilot.pause(PAUSE)
        while app.snapshot.loading or not app.snapshot.version:
            await pilot.pause(PAUSE)
        for key in keys:
            await pilot.press(key)
            await pilot.pause(PAUSE)
        svg = FONT_FACE.sub("", app.export_screenshot(title="mnist-suite"))
    return svg.replace("Fira Code, monospace", "monospace").replace("font-family: Fira Code", "font-family: monospace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a screenshot of the dashboard as SVG.")
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keys", default="", help="keys to press first, separated by spaces")
    parser.add_argument("--size", default="120x36", help="cells, WIDTHxHEIGHT")
    parser.add_argument("--theme", default="suite")
    given = parser.parse_args()
    width, height = (int(part) for part in given.size.split("x"))
    svg = asyncio.run(screenshot(given.results.absolute(), given.keys.split(), (width, height), given.theme))
    write_atomic(given.out, svg)


if __name__ == "__main__":
    main()
