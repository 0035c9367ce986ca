"""The leaderboard, operated by keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from textual.widgets import Input

from suite.ranking.leaderboard import COSTS, text
from suite.store.study import StudyDir
from tui.draw.cells import title
from tui.model.board import arrange
from tui.model.view import DEFAULT_COLUMNS, View
from tui.saved_views import load_views
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ChooseScreen, PromptScreen, StopScreen
from tui.screens.help import HelpScreen
from tui.screens.launch import LaunchScreen
from tui.screens.leaderboard import LeaderboardScreen
from tui.screens.pad import PadScreen
from tui.screens.plots import PlotsScreen
from tui.screens.run import RunScreen
from tui.screens.studies import StudiesScreen
from tui.screens.system import SystemScreen
from tui.testing.synthetic import write_status, write_study, write_trial
from tui.widgets.preview import Preview
from tui.widgets.run_table import RunTable


def table(app) -> RunTable:
    return app.screen.query_one(RunTable)


def test_moving(results, drive) -> None:
    async def script(app, pilot) -> None:
        places = []
        for key in ("j", "down", "k", "up", "G", "g", "end", "home", "ctrl+d", "ctrl+u", "pagedown", "pageup"):
            await pilot.press(key)
            places.append(table(app).cursor)
        first, last = table(app).board.active, len(table(app).board.lines) - 1  # it starts on the best
        assert places == [first + 1, first + 2, first + 1, first, last, 0, last, 0, last, 0, last, 0]

    drive(results, script)


def test_the_cursor_stays_on_its_trial_while_rows_move(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("j", "j")
        held = table(app).current_key
        place = table(app).cursor
        study = StudyDir(results, "mnist")
        for number in range(20, 40):
            write_trial(study, number, "finished")
        app.poll()
        await pilot.pause()
        assert table(app).current_key == held and table(app).cursor != place
        await pilot.press("r")
        assert table(app).current_key == held
        row = next(line for line in screen_text(app).splitlines() if f" {held[1][:4]} " in line)
        assert row  # and it is visible
        shutil.rmtree(study.trial(held[1]).path)
        app.poll()
        await pilot.pause()
        assert table(app).current_key is not None

    drive(results, script, size=(80, 16))


def test_the_cursor_waits_on_the_best_until_all_trials_are_read(results, drive) -> None:
    async def script(app, pilot) -> None:
        new = RunTable()
        await app.screen.mount(new)
        runs = app.snapshot.runs
        best = max((run for run in runs if run.row.state == "finished"), key=lambda run: run.row.accuracy)
        some = [run for run in runs if run is not best]
        new.show(arrange(some, View()), View(), loading=True)
        assert new.current_key not in (None, best.key)
        new.show(arrange(runs, View()), View())
        assert new.current_key == best.key
        new.action_move(1)
        held = new.current_key
        new.show(arrange(some, View()), View(), loading=True)  # as when another study is read
        new.show(arrange(runs, View()), View())
        assert new.current_key == held != best.key

    drive(results, script)


@pytest.mark.parametrize("hide", ["filter", "replay"])
def test_what_hides_a_trial_for_a_while_does_not_move_the_selection(results, drive, hide: str) -> None:
    async def script(app, pilot) -> None:
        chosen = next(key for key in reversed(app.board.keys) if app.snapshot.find(key).row.state == "finished")
        table(app)._go(app.board.place(chosen))
        if hide == "replay":
            await pilot.press("w", "[")  # as it was at the first start
        else:
            await pilot.press("slash", *"state:failed", "enter")
        assert chosen not in app.board.keys and table(app).current_key in (None, *app.board.keys)
        await pilot.press("w" if hide == "replay" else "escape")
        await pilot.press("e")
        assert app.focus_key == chosen and "/".join(chosen) in app.screen.question

    drive(results, script)


def test_columns_scroll_by_whole_ones_and_no_number_is_cut(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        for _ in range(20):
            lines = screen_text(app).splitlines()
            heading = lines[2]
            shown = [key for key in table(app).view.columns if key in COSTS and title(key) in heading]
            for line, row in zip(lines[3:], table(app).board.lines):
                for key in shown:
                    assert f" {text(row.row, key)} " in f"{line} ", (key, line)
            await pilot.press("l")
        assert "tuned" in heading
        await pilot.press(*["h"] * 20)
        assert table(app).scroll_offset.x == 0

    drive(results, script, size=(80, 20))


def test_the_line_of_screens_is_shown_and_can_be_clicked(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        top = screen_text(app).splitlines()[0]
        for key, name in enumerate(("Board", "Plots", "Studies", "System", "Pad"), 1):
            assert f" {key} {name} " in top
        await pilot.click("#status", offset=(top.index("Studies") + 1, 0))
        assert isinstance(app.screen, StudiesScreen)

    drive(results, script, size=(80, 24))


@pytest.mark.slow
def test_filter_as_you_type(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("slash", *"acc>.98")
        assert "2 of 10" in screen_text(app)
        await pilot.press("enter")
        assert app.focused is table(app) and len(table(app).board.lines) == 2
        await pilot.press("slash", "x", *" state:")
        assert "what?" in screen_text(app) or "not a unit" in screen_text(app)
        assert len(table(app).board.lines) == 2  # those of the last valid filter
        await pilot.press("escape")
        assert len(table(app).board.lines) == 8 and app.view.filter == ""
        assert "✂ 1 pruned  ‖ 1 paused: z shows them" in screen_text(app)
        await pilot.press("z")
        assert len(table(app).board.lines) == 10 and "z shows them" not in screen_text(app)

    drive(results, script)


@pytest.mark.slow
def test_sorting(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("s")
        assert isinstance(app.screen, ChooseScreen)
        await pilot.press(*"energy", "enter")
        assert app.view.sort == "energy"
        await pilot.press("greater_than_sign")
        assert app.view.sort == "curve"
        await pilot.press("less_than_sign", "less_than_sign")
        assert app.view.sort == "train_flops"  # in the order in which they are drawn
        await pilot.press("r")
        assert app.view.reverse
        await pilot.press("s", "escape")
        assert app.view.sort == "train_flops"
        await pilot.press("s", *"batch", "enter")
        assert app.view.sort == "batch_size"
        await pilot.click(RunTable, offset=(9, 0))
        assert app.view.sort == "number"

    drive(results, script)


@pytest.mark.slow
def test_columns(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("C", "j", "space", "J", "enter")
        assert "rank" not in app.view.columns
        await pilot.press("C", "j", "J", "enter")  # move the second column down by one
        assert app.view.columns[1:3] == (DEFAULT_COLUMNS[3], DEFAULT_COLUMNS[2])
        await pilot.press("C", "k", "K", "0", "enter")
        assert app.view.columns == DEFAULT_COLUMNS
        await pilot.press("C", "end", "space", "enter")
        assert app.view.columns[-1] == "lr" and "lr" in screen_text(app)
        await pilot.press("C", "escape")

    drive(results, script, size=(200, 40))


@pytest.mark.slow
def test_marks_pins_top_and_groups(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("space", "space")
        assert len(app.marked) == 2 and table(app).cursor == table(app).board.active + 2
        await pilot.press("p")
        assert table(app).board.lines[0].key in app.pinned
        await pilot.press("p", "U")
        assert not app.pinned and not app.marked
        await pilot.press("t")
        assert app.view.top == 10
        await pilot.press("u")
        assert app.view.grouped and "seeds" in app.view.columns
        await pilot.press("u")
        assert not app.view.grouped and app.view.columns == DEFAULT_COLUMNS
        for _ in COSTS:
            await pilot.press("f")
        assert app.view.cost == "flops"
        await pilot.press("f")
        assert "Pareto by params" in screen_text(app)

    drive(results, script)


@pytest.mark.slow
def test_one_study_or_all(results, drive, screen_text) -> None:
    write_study(results, "other", ["finished"])

    async def script(app, pilot) -> None:
        assert " study " in screen_text(app)  # the column is shown, since there are two studies
        await pilot.press("a", *"oth", "enter")
        assert app.view.study == "other" and len(table(app).board.lines) == 1
        await pilot.press("a", "up", "up", "enter")
        assert app.view.study is None

    drive(results, script)


@pytest.mark.slow
def test_to_every_screen_and_back(results, drive) -> None:
    async def script(app, pilot) -> None:
        for key, kind in (("2", PlotsScreen), ("3", StudiesScreen), ("4", SystemScreen), ("5", PadScreen)):
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, kind)
            await pilot.press("question_mark")
            assert isinstance(app.screen, HelpScreen)
            await pilot.press("escape", "escape")
            await pilot.pause()
            assert isinstance(app.screen, LeaderboardScreen)
        await pilot.press("enter")
        assert isinstance(app.screen, RunScreen)
        await pilot.press("escape", "c")
        assert isinstance(app.screen, CompareScreen)
        await pilot.press("1")
        assert isinstance(app.screen, LeaderboardScreen)
        await pilot.press("n")
        assert isinstance(app.screen, LaunchScreen)
        await pilot.press("escape", "N")
        assert isinstance(app.screen, LaunchScreen) and app.screen.form.study == "mnist-2"
        await pilot.press("escape", "d")
        await pilot.pause()
        assert isinstance(app.screen, PadScreen)

    drive(results, script)


def test_preview(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        pane = app.screen.query_one(Preview)
        assert pane.display
        await pilot.press("j")
        assert table(app).current_key[1] in screen_text(app)
        await pilot.press("o")
        assert not pane.display
        await pilot.press("o")
        assert pane.display

    drive(results, script, size=(150, 40))


@pytest.mark.slow
def test_saved_views(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("v")  # there are none: a notification, no dialogue
        await pilot.press("f", "r", "V", *"mine", "enter")
        assert load_views()["mine"].reverse
        await pilot.press("r", "v", "enter")
        assert app.view == load_views()["mine"]

    drive(results, script)


@pytest.mark.slow
def test_stop_and_resume_ask_first(results, drive, monkeypatch) -> None:
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a))
        await pilot.press("x")
        assert isinstance(app.screen, StopScreen) and "mnist-suite stop mnist" in app.screen.command
        await pilot.press("n")
        assert not StudyDir(results, "mnist").stop_path.exists()
        await pilot.press("x", "t")  # the trial under the cursor is over, so that only the study can be stopped
        assert isinstance(app.screen, StopScreen)
        await pilot.press("n", "g", "x", "t")
        assert StudyDir(results, "mnist").trial(table(app).current_key[1]).stop_request() is not None
        assert isinstance(app.screen, LeaderboardScreen) and not StudyDir(results, "mnist").stop_path.exists()
        await pilot.press("x", "y")
        assert StudyDir(results, "mnist").stop_path.exists()
        await pilot.press("R")  # it is running
        assert isinstance(app.screen, LeaderboardScreen)
        write_status(StudyDir(results, "mnist"), ["finished"] * 10, running=False)
        app.poll()
        await pilot.press("x")  # it is not running
        assert isinstance(app.screen, LeaderboardScreen)
        await pilot.press("R", "escape", "R", "y")
        assert len(started) == 1 and started[0][0][:3] == ["sweep", "--study", "mnist"] and "--resume" in started[0][0]

    drive(results, script)


@pytest.mark.slow
def test_export(results, drive, monkeypatch, screen_text) -> None:
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a))
        key = table(app).current_key
        await pilot.press("e")
        assert isinstance(app.screen, PromptScreen)
        assert f"mnist-suite export mnist/{key[1]}" in screen_text(app).replace("\n", " ")
        await pilot.press("ctrl+u", "enter")  # an empty path is refused
        assert isinstance(app.screen, PromptScreen)
        app.screen.query_one(Input).value = str(results)
        await pilot.press("enter")  # a directory with files is refused
        assert isinstance(app.screen, PromptScreen)
        for refused in ("/etc/passwd", "~nobody_here/x", "x" * 300):
            app.screen.query_one(Input).value = refused
            await pilot.press("enter")
            assert isinstance(app.screen, PromptScreen), refused
        app.screen.query_one(Input).value = str(results.parent / "model")
        await pilot.press("enter")
        assert started[0][0][:2] == ["export", f"mnist/{key[1]}"]
        await pilot.press("G", "e")  # a waiting trial has no model
        assert isinstance(app.screen, LeaderboardScreen)
        await pilot.press("y")

    drive(results, script, size=(140, 40))


@pytest.mark.slow
def test_readonly_changes_nothing(results, drive) -> None:
    async def script(app, pilot) -> None:
        for key in ("n", "N", "x", "R", "e", "V"):
            await pilot.press(key)
            assert isinstance(app.screen, LeaderboardScreen)
        descriptions = {b.binding.description for b in app.screen.active_bindings.values() if b.enabled}
        assert not descriptions & {"Launch", "Clone with edits", "Stop", "Resume study", "Export"}
        await pilot.press("3", "n", "N", "x", "R", "1", "enter", "e", "x")
        assert isinstance(app.screen, RunScreen)
        await pilot.press("d")
        pad = app.screen
        assert isinstance(pad, PadScreen) and pad.predictor is None  # nothing is exported unasked
        await pilot.press("M", "enter")  # the run under the cursor
        assert pad.predictor is not None and pad.key == app.focus_key

    drive(results, script, readonly=True)


def test_ctrl_c_copies_and_never_closes_a_field(results, drive) -> None:
    async def script(app, pilot) -> None:
        for key, screen, value in (("slash", LeaderboardScreen, "mnist"), ("n", LaunchScreen, "mnist")):
            await pilot.press(key)
            field = app.focused
            field.value = value
            await pilot.press("home", "shift+right", "shift+right", "ctrl+c")
            assert app.clipboard == "mn"
            app.copy_to_clipboard("")
            await pilot.press("end", "ctrl+c")
            assert isinstance(app.screen, screen) and app.focused is field and field.value == value
            assert app.clipboard == value and app.return_code is None  # nothing is selected: all of it
            await pilot.press("escape")
        await pilot.press("ctrl+c")
        assert app.return_code == 0

    drive(results, script)


def test_the_palette_has_every_key(results, drive) -> None:
    async def script(app, pilot) -> None:
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Open", "Filter", "Sort", "Columns", "Launch", "Stop", "Next theme", "Plots", "Quit"} <= titles
        command = next(c for c in app.get_system_commands(app.screen) if c.title == "Reverse order")
        command.callback()
        await pilot.pause()
        assert app.view.reverse
        await pilot.press("ctrl+p")
        await pilot.pause(0.2)
        await pilot.press("escape")

    drive(results, script)


@pytest.mark.slow
def test_help_can_be_narrowed(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("question_mark")
        assert "Group seeds" in screen_text(app)
        await pilot.press(*"export")
        assert "Export" in screen_text(app) and "Group seeds" not in screen_text(app)

    drive(results, script)


def test_themes_and_screenshots(results, drive, tmp_path: Path, monkeypatch) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("T")
        assert app.theme == "suite-light"
        await pilot.press("T")
        assert app.theme == "colour-blind"
        app.action_screenshot("x.svg", str(tmp_path))
        await pilot.pause(0.3)
        assert "<svg" in (tmp_path / "x.svg").read_text()

    drive(results, script)


@pytest.mark.slow
def test_the_mouse_moves_the_cursor_and_opens_a_run(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.click(RunTable, offset=(20, 3))
        assert table(app).cursor == 2
        await pilot.click(RunTable, offset=(20, 3), times=2)
        assert isinstance(app.screen, RunScreen)

    drive(results, script)


@pytest.mark.slow
def test_replay(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("w")
        text = screen_text(app)
        assert "replay" in text and "✓ finished" not in text.split("\n", 2)[2]
        await pilot.press(*["right_square_bracket"] * 10)
        some = len(table(app).board.lines)
        assert 0 < some <= 10
        await pilot.press("left_square_bracket", "w")
        assert "replay" not in screen_text(app) and len(table(app).board.lines) == 8
        await pilot.press("left_square_bracket", "right_square_bracket")
        assert "replay" not in screen_text(app)

    drive(results, script)
