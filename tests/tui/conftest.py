"""A dashboard on made-up studies, turned by hand: no thread, no clock, no training."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest.importorskip("textual")

from textual.pilot import Pilot

from tui.bench import HandTurned
from tui.synthetic import write_study

Script = Callable[[HandTurned, Pilot], Awaitable[None]]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved views and caches go to a folder of the test; times are in UTC."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One study with a trial in every state."""
    write_study(tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run a script against a dashboard that has looked once."""

    def go(results: Path, script: Script, *, size: tuple[int, int] = (120, 40), readonly: bool = False) -> None:
        async def main() -> None:
            app = HandTurned(results, readonly=readonly)
            async with app.run_test(size=size) as pilot:
                app.turn()
                await pilot.pause()
                await script(app, pilot)

        asyncio.run(main())

    return go


@pytest.fixture
def screen_text() -> Callable[[HandTurned], str]:
    """What is on the screen, as text."""

    def text(app: HandTurned) -> str:
        strips = app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips).rstrip() + "\n"

    return text
