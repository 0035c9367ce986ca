"""Snapshots of the screens as text, which a person can read and compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.store.study import StudyDir
from tui.testing.synthetic import NOW, write_status, write_study

NEXT = "right_square_bracket"
LOW, HIGH = (80, 24), (120, 40)


async def look(app, pilot) -> None:
    app.poll()
    await pilot.pause()


async def both_sizes(app, pilot, screen_text, snapshot) -> None:
    for width, height in (LOW, HIGH):
        await pilot.resize_terminal(width, height)
        await look(app, pilot)
        await look(app, pilot)
        assert screen_text(app) == snapshot(name=f"{width}x{height}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        "",
        "enter",
        f"enter {NEXT} {NEXT}",
        f"enter {NEXT} l l l",
        "space space c",
        "2",
        "2" + 6 * f" {NEXT}",
        "3",
        "question_mark",
        "x",
    ],
    ids=["board", "curves", "cost", "digits", "compare", "pareto", "importance", "studies", "help", "stop"],
)
def test_screens(tmp_path: Path, monkeypatch, drive, screen_text, snapshot, keys: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(Path("results"))

    async def script(app, pilot) -> None:
        await pilot.press(*keys.split())
        await both_sizes(app, pilot, screen_text, snapshot)

    drive(Path("results"), script, size=LOW)


def test_empty(tmp_path: Path, monkeypatch, drive, screen_text, snapshot) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(app, pilot) -> None:
        await both_sizes(app, pilot, screen_text, snapshot)

    drive(Path("results"), script, size=LOW)


def test_stale_and_damaged(tmp_path: Path, monkeypatch, drive, screen_text, snapshot) -> None:
    """The controller has not written for ten minutes, a log has damaged lines, and the last read failed."""
    monkeypatch.chdir(tmp_path)
    study = write_study(Path("results"), "mnist", ["finished", "stale", "failed"])
    write_status(StudyDir(Path("results"), "mnist"), ["finished", "stale", "failed"], heartbeat=NOW - 600)
    with open(sorted(study.trials_path.iterdir())[1] / "events.jsonl", "a") as file:
        file.write("not an event\n")

    async def script(app, pilot) -> None:
        for width, height in (LOW, HIGH):
            await pilot.resize_terminal(width, height)
            await look(app, pilot)
            app.problem = "Reading failed: OSError: stale file handle"
            app.refresh_screen()
            await pilot.pause()
            assert screen_text(app) == snapshot(name=f"{width}x{height}")

    drive(Path("results"), script, size=LOW)
