"""A dashboard on synthetic studies that polls only when told to, with a fixed clock and no training."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("textual")

from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot

from tui.testing.bench import ManualDashboard
from tui.testing.synthetic import write_study


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "web: needs a headless Chromium")


class FakePredictor:
    """Takes the place of `Predictor`: records what it is asked and never answers."""

    def __init__(self, words, answer, status, environment) -> None:
        self.words, self.answer, self.status = words, answer, status
        self.asked: list[object] = []
        self.dataset = ""
        self.closed = False

    def start(self, before=None) -> None:
        self.before = before

    def ask(self, pixels) -> None:
        self.asked.append([list(line) for line in pixels])

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Every dashboard parses the same style sheets as it starts, a fifth of all its work there; here the first does."""
    parse, parsed = Stylesheet._parse_rules, {}

    def look_up(self: Stylesheet, *what, **more):
        key = (*what, *more.items(), *self._variables.items())
        if key not in parsed:
            parsed[key] = parse(self, *what, **more)
        return parsed[key]

    Stylesheet._parse_rules = look_up
    yield
    Stylesheet._parse_rules = parse


Script = Callable[[ManualDashboard, Pilot], Awaitable[None]]


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Saved views are kept in a folder of the test, times are in UTC, and no model is loaded."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tui.screens.pad.Predictor", FakePredictor)
    monkeypatch.delenv("NO_COLOR", raising=False)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One study with a trial in every state."""
    write_study(tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def drive() -> Callable[..., None]:
    """Run a script on a dashboard that has polled once."""

    def go(results: Path, script: Script, *, size: tuple[int, int] = (120, 40), readonly: bool = False) -> None:
        async def main() -> None:
            app = ManualDashboard(results, readonly=readonly)
            app.animation_level = "none"  # or a busy machine would show a state in the middle of an animation
            async with app.run_test(size=size) as pilot:
                app.poll()
                await pilot.pause()
                await script(app, pilot)

        asyncio.run(main())

    return go


@pytest.fixture
def screen_text() -> Callable[[ManualDashboard], str]:
    """The content of the screen as text."""

    def text(app: ManualDashboard) -> str:
        strips = app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips).rstrip() + "\n"

    return text
