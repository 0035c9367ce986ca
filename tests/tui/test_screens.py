"""The other screens, operated by keys."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from textual.geometry import Size
from textual.widgets import Input, Static, TabbedContent

from suite.store.study import StudyDir
from tui.draw.axes import WHOLE
from tui.draw.curves import EFFORTS, QUANTITIES
from tui.model.system import Gpu, Sample, writers
from tui.screens.confirm import ChooseScreen, ConfirmScreen, PromptScreen, StopScreen
from tui.screens.launch import LaunchScreen
from tui.screens.leaderboard import LeaderboardScreen
from tui.screens.log import LogScreen
from tui.screens.pad import probability_lines
from tui.screens.plots import FIGURES
from tui.screens.run import TABS, RunScreen
from tui.screens.studies import StudiesScreen
from tui.testing.synthetic import NOW, write_status, write_study, write_trial
from tui.widgets.canvas import Canvas
from tui.widgets.chart import Chart
from tui.widgets.checklist import Checklist
from tui.widgets.choice import Choice
from tui.work import children, commands

NEXT, PREVIOUS = "right_square_bracket", "left_square_bracket"
SOAK = "MNIST_SUITE_SOAK" in os.environ


async def look(app, pilot) -> None:
    app.poll()
    await pilot.pause()


@pytest.mark.slow
def test_run_screen(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter")
        await look(app, pilot)
        assert "validation accuracy" in screen_text(app) and max(screen_text(app)) >= "⠁"  # braille was drawn
        for effort in (*EFFORTS[1:], EFFORTS[0]):
            await pilot.press("X")
            assert app.screen.effort == effort
        seen = []
        while app.screen.quantity not in seen:
            seen.append(app.screen.quantity)
            await pilot.press("m")
        assert seen == [*QUANTITIES[:5]]  # what the trial has logged, and no more
        await pilot.press("b", "m")
        assert "smoothed 0.9" in screen_text(app)
        await pilot.press("l", "l", "plus", "shift+right")
        text = screen_text(app)
        assert "epoch 0.5" in text and "validation 0." in text and "┊" in text  # the values under the crosshair
        assert app.screen.window != WHOLE
        await pilot.press("0")
        assert app.screen.window == WHOLE and app.screen.at is None
        wanted = {
            "config": "recipe.lr",
            "cost": "counted, forward",
            "log": "images_per_second",
            "mistakes": "The most confident mistakes",
            "lineage": "initial weights: published with the backbone",
            "explained": "No explanations.json",
        }
        for tab in TABS[1:]:
            await pilot.press(NEXT)
            await pilot.pause()
            assert app.screen.tab == tab and wanted[tab] in screen_text(app)
            if pane := app.screen._pane():
                pane.scroll_home(animate=False)
                await pilot.press("pagedown")
                assert pane.scroll_offset.y == min(pane.max_scroll_y, max(1, pane.size.height - 2))
        await pilot.press("j", "k", "G", "g", "h", "space")
        assert app.screen.key in app.marked
        before = app.screen.key
        await pilot.press("J")
        assert app.screen.key != before
        await pilot.press("K")
        assert app.screen.key == before
        await pilot.press("e")
        assert isinstance(app.screen, PromptScreen)
        await pilot.press("escape", "x")
        assert isinstance(app.screen, StopScreen)
        await pilot.press("n", "J", "J", "escape")
        assert isinstance(app.screen, LeaderboardScreen)
        assert app.screen.table.current_key == app.focus_key != before  # the cursor has come along

    drive(results, script, size=(100, 34))


@pytest.mark.slow
def test_run_screen_shows_all_curves_where_there_is_room(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter")
        await look(app, pilot)
        assert sum(chart.display for chart in app.screen.query(Chart)) == 4
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert sum(chart.display for chart in app.screen.query(Chart)) == 1

    drive(results, script, size=(140, 50))


@pytest.mark.slow
def test_every_state_has_a_run_screen(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter")
        for i in range(10):
            await look(app, pilot)
            tabs = app.screen.query_one(TabbedContent)
            tabs.active = TABS[i % len(TABS)]
            await look(app, pilot)
            assert app.screen.key[1] in screen_text(app)
            await pilot.press("J")

    drive(results, script, size=(80, 24))


@pytest.mark.slow
def test_a_run_that_is_deleted_while_its_screen_is_open(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("enter")
        await look(app, pilot)
        shutil.rmtree(results / "mnist")
        await look(app, pilot)
        assert "not there" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "No study in" in screen_text(app)

    drive(results, script)


def test_lineage_shows_where_weights_come_from_and_go_to(results, drive, screen_text) -> None:
    from suite.spec import Weights
    from tui.testing.synthetic import make_trial

    base = make_trial("mnist", 0).id
    study = write_study(results, "tuned", [])
    trial = make_trial("tuned", 1).model_copy(
        update={"weights": Weights(source=f"mnist/trials/{base}/best.safetensors")}
    )
    write_trial(study, 1, "finished", trial=trial)

    async def script(app, pilot) -> None:
        app.push_screen(RunScreen(("tuned", trial.id)))
        await look(app, pilot)
        await pilot.press(PREVIOUS, PREVIOUS)
        await pilot.pause()
        assert f"initial weights: mnist/{base}" in screen_text(app) and "shared by 1 runs" in screen_text(app)
        app.screen.key = ("mnist", base)
        await look(app, pilot)
        assert "Initial weights of 1 runs" in screen_text(app)

    drive(results, script)


@pytest.mark.slow
def test_compare(results, drive, screen_text, monkeypatch) -> None:
    async def script(app, pilot) -> None:
        await pilot.resize_terminal(80, 24)
        app.marked.update(run.key for run in app.snapshot.runs[:8])
        app.refresh_screen()
        for most in (8, 2):
            monkeypatch.setattr("tui.screens.compare.MOST", most)
            await pilot.press("c")
            await look(app, pilot)
            text = screen_text(app)
            assert "recipe.lr" in text and "split_hash" not in text and len(app.screen.followed) == most
            seen = set(re.findall(r"\b000\d\b", text.splitlines()[1]))
            assert most == 8 or "more marked trials are left out" in text
            for _ in range(8):
                await pilot.press("l")
                seen |= set(re.findall(r"\b000\d\b", screen_text(app).splitlines()[1]))
            assert len(seen) == most  # every one can be reached
            await pilot.press("escape")
        await pilot.resize_terminal(120, 40)
        await pilot.press("U", "g", "space", "space", "space", "c")
        await look(app, pilot)
        for key in ("X", "m", "b", "j", "k", "l", "h"):
            await pilot.press(key)
        await look(app, pilot)
        assert "x step" in screen_text(app) and "y loss" in screen_text(app)

    drive(results, script)


@pytest.mark.slow
def test_plots(results, drive, screen_text) -> None:
    wanted = {
        "pareto": "FLOPs/img",
        "history": "best so far",
        "curves": "epoch",
        "rank": "fifths",
        "contour": "nearest trials",
        "edf": "share of finished trials",
        "slice": "parameter",
        "importance": "Rank correlation",
        "parallel": "best quarter",
        "timeline": "since the first start",
    }

    async def script(app, pilot) -> None:
        await pilot.press("2")
        for name in FIGURES:
            await pilot.pause()
            assert app.screen.figure == name and wanted[name] in screen_text(app), name
            await pilot.press("L", "L", NEXT)
        await pilot.press(PREVIOUS, "H", "H", "f")
        assert app.screen.figure == "pareto"
        app.view = app.view.model_copy(update={"filter": "arm:cnn"})
        app.refresh_screen()
        assert "filter arm:cnn" in screen_text(app)

    drive(results, script)


@pytest.mark.slow
def test_the_cursor_of_a_plot_is_that_of_the_board(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        before = app.focus_key
        await pilot.press("2", NEXT)
        await pilot.pause()
        run = app.snapshot.find(before)
        assert f"mnist/{run.row.number:04d} {run.row.arm}" in screen_text(app) and "┊" in screen_text(app)
        await pilot.press("right")
        if app.focus_key == before:  # it was the last one
            await pilot.press("left")
        chosen = app.focus_key
        assert chosen != before and f"mnist/{app.snapshot.find(chosen).row.number:04d}" in screen_text(app)
        await pilot.press("plus", "plus")
        assert "25% of the x axis" in screen_text(app) and app.focus_key == chosen
        await pilot.press("0", "enter")
        assert isinstance(app.screen, RunScreen) and app.screen.key == chosen
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert isinstance(app.screen, LeaderboardScreen) and app.screen.table.current_key == chosen

    drive(results, script)


def test_plots_are_of_one_validation_set_and_name_a_filter_for_the_other(results, drive, screen_text) -> None:
    from tui.testing.synthetic import make_trial

    study = write_study(results, "other", [])
    for number in range(2):  # of the same data set's name, from other files
        trial = make_trial("other", number).model_copy(update={"data_hash": "e" * 8})
        write_trial(study, number, "finished", trial=trial)

    async def script(app, pilot) -> None:
        app.focus_key = None
        await pilot.press("2")
        await look(app, pilot)
        text = screen_text(app)
        assert "10 of 12 trials, those on mnist (dddddddd)" in text
        found = re.search(r"filter (study=\S+) shows mnist \(eeeeeeee\)", text)
        assert found
        app.focus_key = app.snapshot.study("other").runs[0].key
        app.refresh_screen()
        assert "2 of 12 trials, those on mnist (eeeeeeee)" in screen_text(app)
        app.view = app.view.changed(filter=found[1])
        app.refresh_screen()
        assert "2 trials" in screen_text(app)
        front = app.screen._drawn[1].series[0].points
        assert front and {key[0] for one in app.screen._drawn[1].series[1:] for key in one.keys} == {"other"}

    drive(results, script)


@pytest.mark.slow
def test_studies(results, drive, screen_text, monkeypatch) -> None:
    write_study(results, "leaving", ["finished", "pruned"], running=False)
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a))
        await pilot.press("3")
        await look(app, pilot)
        assert app.screen.current.name == app.focus_key[0] == "mnist"  # not the first, "leaving"
        assert "● running" in screen_text(app) and "✓ done" in screen_text(app)
        write_study(results, "third", ["finished"])
        shutil.rmtree(results / "leaving")
        await look(app, pilot)
        assert "third" in screen_text(app) and "leaving" not in screen_text(app)
        await pilot.press("j", "k", "x")
        assert isinstance(app.screen, StopScreen)
        write_status(StudyDir(results, "mnist"), ["finished"] * 10, running=False)
        await look(app, pilot)
        await pilot.press("n", "R", "y")
        assert started
        await pilot.press("n")
        assert isinstance(app.screen, LaunchScreen)
        await pilot.press("escape", "N")
        assert isinstance(app.screen, LaunchScreen)
        await pilot.press("escape", "enter")
        await pilot.pause()
        assert isinstance(app.screen, LeaderboardScreen) and app.view.study == "mnist"
        assert "study mnist (esc: all)" in screen_text(app)
        await pilot.press("escape")
        assert app.view.study is None

    drive(results, script)


@pytest.mark.slow
def test_system(results, drive, screen_text, monkeypatch) -> None:
    sample = Sample("here", (0.5, 0.7), (1.0, 1.0, 1.0), 2**30, 2**32, 2**20, (Gpu("H", 0.5, 1, 2, 300.0, 700.0, 60),))

    async def script(app, pilot) -> None:
        await pilot.press("4")
        await pilot.pause()
        app.screen.sampler = lambda: sample
        app.screen._show_machine(sample)
        await pilot.pause()
        text = screen_text(app)
        assert "300 W of 700 W" in text and "ALMOST FULL" in text and "10 min ago" in text
        await pilot.press("j", "k")

    drive(results, script)


def test_a_dead_writer_is_gone_and_a_silent_one_stale(results) -> None:
    from tui.model.feed import Watcher
    from tui.testing.synthetic import HOST

    snapshot = Watcher(results, lambda: NOW).poll()
    here = {w.name: w.health for w in writers(snapshot, NOW, HOST, lambda pid: pid == 4242)}
    assert here["mnist (controller)"] == "ok" and list(here.values()).count("gone") == 2
    elsewhere = [w.health for w in writers(snapshot, NOW, "another", lambda pid: False)]
    assert sorted(elsewhere) == ["ok", "ok", "stale"]


@pytest.mark.slow
def test_pad_draws_by_keys_and_mouse(results, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("5")
        await pilot.pause()
        canvas = app.screen.query_one(Canvas)
        await pilot.press("space", "j", "j", "down", "l", "space", "up", "k", "h")
        assert sum(map(sum, canvas.pixels)) > 1000 and "pen up" in screen_text(app)
        dark = sum(map(sum, canvas.pixels))
        await pilot.press("E", "space", "j")
        assert sum(map(sum, canvas.pixels)) < dark
        await pilot.press("0", "E")
        assert sum(map(sum, canvas.pixels)) == 0
        await pilot.mouse_down(Canvas, offset=(4, 4))
        await pilot.hover(Canvas, offset=(10, 8))
        await pilot.mouse_up(Canvas, offset=(10, 8))
        assert sum(map(sum, canvas.pixels)) > 1000
        await pilot.press("M")
        assert isinstance(app.screen, ChooseScreen)
        await pilot.press(*"directory", "enter")
        assert isinstance(app.screen, PromptScreen)
        for path in ("/no/such", "/etc/passwd", "~nobody_here/x"):
            app.screen.query_one(Input).value = path
            await pilot.press("enter")
            assert isinstance(app.screen, PromptScreen)
        await pilot.press("escape")

    drive(results, script)


@pytest.mark.parametrize("side", [1, 16, 64, 224])
def test_the_pad_shows_a_sample_at_its_own_size(results, drive, side: int) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("5")
        pad = app.screen
        canvas = pad.query_one(Canvas)
        pad._sampled([[9] * side for _ in range(side)], "7")
        await pilot.pause()
        assert pad.predictor.asked[-1] == [[9] * side] * side
        shown = [canvas.render_line(y) for y in range(canvas.size.height)]
        used = [sum(s.cell_length for s in strip if s.style and s.style.bgcolor) for strip in shown]
        assert 0 < max(used) <= canvas.size.width  # it fits
        assert sum(map(bool, used)) * max(used) * 8 >= min(side, canvas.size.width) ** 2  # and uses the room
        assert "labelled 7" in pad._note
        await pilot.press("space", "l", "l", "j")
        await pilot.pause()
        assert not pad._note  # it is the sample no more
        assert max(map(max, canvas.pixels)) == 255 and len(canvas.pixels) == side
        await pilot.click(Canvas, offset=(canvas.size.width - 1, canvas.size.height - 1))
        await pilot.press("0")
        assert len(canvas.pixels) == 28 and not any(map(any, canvas.pixels))

    drive(results, script)


def test_the_likeliest_of_many_classes_are_in_sight() -> None:
    from rich.cells import cell_len

    few = dict.fromkeys(("猫", "犬と猫", "bird", "🦅", "a class of a long name, longer than there is room"), 0.2)
    lines = probability_lines("bird", few, Size(40, 30))
    assert [line[0] for line in lines] == list("  ▶  ") and {cell_len(line) for line in lines} == {39}
    many = {chr(0x4E00 + i): i / 100 for i in range(47)}
    lines = probability_lines(chr(0x4E00 + 46), many, Size(60, 12))
    assert len(lines) == 12 and lines[0].startswith("▶") and "46.0%" in lines[0] and "36 less" in lines[-1]
    assert len(probability_lines("bird", few, Size(0, 0))) == 5  # not laid out yet


OWN = """
import pathlib, time
with open(__file__ + ".runs", "a") as file:
    file.write("x")
{}
from suite.spec import Arm, Experiment
EXPERIMENT = Experiment(name="own", question="Mine?", dataset="mnist", arms={{"one": Arm(backbone="net")}}, trials=1)
"""
# What `sweep --dry-run FILE` does and prints, without the seconds that it takes to import torch.
DRY_RUN = "import runpy, sys; print(runpy.run_path(sys.argv[4])['EXPERIMENT'].model_dump_json())"


@pytest.mark.slow
def test_a_file_is_run_on_request_and_not_before(tmp_path: Path, results, drive, screen_text, monkeypatch) -> None:
    path, runs, started = tmp_path / "own.py", tmp_path / "own.py.runs", []
    path.write_text(OWN.format(""))
    monkeypatch.setattr(commands, "PROGRAM", (sys.executable, "-c", DRY_RUN))  # test_commands.py has the real one

    async def until(pilot, condition) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            await asyncio.sleep(0.2)

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a) or True)
        await pilot.press("n")
        field = app.focused
        field.value = ""
        for end in range(len(str(path)) - 4, len(str(path)) + 1):
            field.value = str(path)[:end]
            await pilot.pause()
        await pilot.press("left", "right", "enter")
        assert not runs.exists() and "ctrl+t runs this file" in screen_text(app)
        await pilot.press("escape")  # closing the form runs nothing
        await pilot.pause(0.2)
        assert not runs.exists()
        path.write_text(OWN.format("time.sleep(300)"))
        await pilot.press("n")
        app.focused.value = str(path)
        await pilot.press("ctrl+s")  # starts when the file turns out to be valid
        await until(pilot, runs.exists)
        await pilot.press("tab", *"abc")  # the form does not freeze
        assert app.screen.form.study.endswith("abc") and "checking" in screen_text(app)
        await pilot.press("escape")
        path.write_text(OWN.format(""))
        await pilot.press("n")
        form = app.screen
        app.focused.value = str(path)
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "it can start" in screen_text(app))
        assert "Mine?" in screen_text(app)
        assert form.form.arms == () and form.query_one("#arms", Checklist).chosen == ("one",)
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert runs.read_text() == "xx"  # what was checked is not run again
        await pilot.press("y")
        assert started[0][0][:2] == ["sweep", str(path)]

    drive(results, script)


@pytest.mark.slow
def test_launch_form(results, drive, screen_text, monkeypatch) -> None:
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a) or True)
        await pilot.press("n")
        await pilot.pause()
        form = app.screen
        assert "mnist-suite sweep mnist --study mnist-2" in screen_text(app)
        form.query_one("#study", Input).value = "mnist"
        form.query_one("#trials", Input).value = "many"
        form.query_one("#device", Input).value = "toaster"
        await pilot.pause()
        assert set(form.problems) == {"study", "trials", "device"}
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, LaunchScreen)  # it has errors
        form.query_one("#study", Input).value = "new"
        form.query_one("#trials", Input).value = "6"
        form.query_one("#device", Input).value = "cpu"
        form.query_one("#experiment", Input).value = "nonsense"
        await pilot.pause()
        assert "experiment" in form.problems
        form.query_one("#experiment", Input).value = "mnist"
        await pilot.pause()
        arms = form.query_one("#arms", Checklist)
        arms.focus()
        await pilot.press("space")
        await pilot.pause()
        assert form.form.arms and len(form.form.arms) == arms.option_count - 1
        form.query_one("#engine", Choice).focus()
        await pilot.press("right", "left", "enter")
        assert isinstance(app.screen, ChooseScreen)
        await pilot.press("escape")
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, ConfirmScreen)
        await pilot.press("y")
        await pilot.pause()
        words, log = started[0][:2]
        assert words[:6] == ["sweep", "mnist", "--study", "new", "--trials", "6"] and "--arms" in words
        assert log == StudyDir(results, "new").path / "console.log"
        assert started[0][4:] == ("new", 6)
        assert isinstance(app.screen, LeaderboardScreen)

    drive(results, script)


def test_a_clone_starts_with_the_settings_of_its_study(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("N")
        await pilot.pause()
        assert app.screen.query_one("#trials", Input).value == "10"
        assert app.screen.query_one("#study", Input).value == "mnist-2"

    drive(results, script)


def test_the_form_of_each_command(results, drive, screen_text, monkeypatch) -> None:
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a) or True)
        await pilot.press("n")
        app.screen.query_one("#limit", Input).value = "200"
        await pilot.press("shift+tab", "right")
        await pilot.pause()
        assert "mnist-suite pretrain --limit 200" in screen_text(app)  # a field of both commands keeps its value
        await pilot.press("right")
        await pilot.pause()
        app.screen.query_one("#base", Input).value = "cnn"
        app.screen.query_one("#strategy", Choice).focus()
        await pilot.press("right", "tab", "tab", "space")
        await pilot.pause()
        assert "finetune --backbone cnn --strategy head --pretrained --limit 200" in screen_text(app)
        await pilot.press("ctrl+s", "y")
        assert started[0][0][:2] == ["finetune", "--backbone"] and started[0][4:] == ("", 0)
        await pilot.press("n", "shift+tab", "left")
        await pilot.pause()
        app.screen.query_one("#of", Input).value = "none"
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, LaunchScreen) and app.screen.problems == {"of": "there is no such study"}
        app.screen.query_one("#of", Input).value = "mnist"
        await pilot.pause()
        assert "evaluate mnist --final" in screen_text(app)

    drive(results, script, size=(120, 30))


@pytest.mark.parametrize("key", ["n", "N", "F", "R"])
def test_readonly_starts_nothing(results, drive, key: str) -> None:
    async def script(app, pilot) -> None:
        for screen in ("1", "3"):
            await pilot.press(screen, key)
            assert isinstance(app.screen, (LeaderboardScreen, StudiesScreen))

    drive(results, script, readonly=True)


def test_the_final_evaluation_waits_until_the_search_is_over(results, drive, monkeypatch) -> None:
    started = []

    async def script(app, pilot) -> None:
        monkeypatch.setattr(app.launching, "start", lambda *a: started.append(a))
        await pilot.press("F")
        assert isinstance(app.screen, LeaderboardScreen)
        write_status(StudyDir(results, "mnist"), ["finished"] * 10, running=False)
        await look(app, pilot)
        await pilot.press("F", "y")
        assert started[0][0][:3] == ["evaluate", "mnist", "--final"]

    drive(results, script)


PROGRAMS = {
    "import sys; print('one\\ntwo'); sys.exit(2)": "failed",
    "import sys; print('Stopped'); sys.exit(143)": "stopped",
    "print('bye')": "done",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_how_a_command_ends(results, drive, screen_text, tmp_path: Path, monkeypatch, program: str) -> None:
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", program))
    ending = PROGRAMS[program]

    async def script(app, pilot) -> None:
        assert app.launching.start(["sweep", "mnist"], tmp_path / "new.log", "begun", "It is done.", "new", 5)
        await pilot.pause()
        assert "● new: starting, then 5 trials" in screen_text(app)  # from the first second
        next(iter(app.launching.children)).process.wait()
        await look(app, pilot)
        said = " ".join(n.message for n in app._notifications)
        severities = {n.severity for n in app._notifications}
        assert severities == {"information"}, said
        assert ("It is done." in said, "Stopped" in said) == (ending == "done", ending == "stopped")
        assert isinstance(app.screen, LogScreen) == (ending == "failed")  # a failure at once shows its log
        if ending == "failed":
            await pilot.app.workers.wait_for_complete()
            await pilot.pause()
            assert "2  two" in screen_text(app)
            await pilot.press("escape")
        await look(app, pilot)
        assert "new:" not in screen_text(app)

    drive(results, script)


def test_a_late_failure_is_a_line_until_its_log_is_read(results, drive, screen_text, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "raise SystemExit('too bad')"))
    monkeypatch.setattr(children, "AT_ONCE", 0.0)

    async def script(app, pilot) -> None:
        assert app.launching.start(["export", "mnist/7"], tmp_path / "export.log", "begun", "done")
        next(iter(app.launching.children)).process.wait()
        await look(app, pilot)
        await pilot.press("3")
        assert "✗ export mnist/7: O its log · failed: too bad (code 1)" in screen_text(app)
        await pilot.press("1", "O")
        assert isinstance(app.screen, LogScreen)
        await pilot.press("escape")
        await look(app, pilot)
        assert "export mnist/7:" not in screen_text(app)
        (tmp_path / "file").write_text("")
        assert not app.launching.start(["x"], tmp_path / "file" / "console.log", "begun", "done")

    drive(results, script)


def test_what_has_not_changed_is_not_drawn_again(results, drive, monkeypatch) -> None:
    """Not even in a dialogue, whose cursor does not blink."""
    drawn: list[str] = []

    async def script(app, pilot) -> None:
        for key in ("2", "3", "5", "1", "enter", "escape c", "escape question_mark"):
            await pilot.press(*key.split())
            await look(app, pilot)
            with monkeypatch.context() as patch:
                patch.setattr(app, "_display", lambda *a, key=key: drawn.append(key))
                for _ in range(20):  # until all that the keys have changed is drawn
                    drawn.clear()
                    await look(app, pilot)
                    await pilot.pause(0.6 if key.endswith("mark") else 0.05)
                    if not drawn:
                        break
            assert not drawn

    drive(results, script)


def test_lists_bear_a_key_before_they_are_drawn(results, drive) -> None:
    async def script(app, pilot) -> None:
        await pilot.press("ctrl+p", "pagedown", "pageup")
        await pilot.press("escape", "escape", "s", "tab", "pagedown", "pageup")
        assert isinstance(app.screen, ChooseScreen)

    drive(results, script, size=(3, 2))


def test_a_failed_run_opens_at_its_log_which_can_be_searched(results, drive, screen_text) -> None:
    failed = next(trial for trial in StudyDir(results, "mnist").trials() if "CUDA" in trial.events.read_text())

    async def script(app, pilot) -> None:
        app.push_screen(RunScreen(("mnist", failed.path.name)))
        await look(app, pilot)
        await look(app, pilot)
        assert app.screen.tab == "log" and "CUDA out of memory" in screen_text(app)
        count = len(failed.events.read_text().splitlines())
        await pilot.press("slash", *"cuda", "enter")
        await pilot.pause()
        assert "1 line with 'cuda'" in screen_text(app) and f"{count}  " in screen_text(app)
        assert "images_per_second" not in screen_text(app)
        await pilot.press("escape")
        assert "images_per_second" in screen_text(app) and isinstance(app.screen, RunScreen)

    drive(results, script)


def test_a_log_follows_its_end_unless_it_is_scrolled_up(results, drive, screen_text, monkeypatch) -> None:
    log = StudyDir(results, "mnist").path / "console.log"
    log.write_text("".join(f"line {i}\n" for i in range(1, 101)))

    async def read(app, pilot) -> str:
        await look(app, pilot)
        await app.workers.wait_for_complete()
        await pilot.pause()
        return screen_text(app)

    async def script(app, pilot) -> None:
        monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-c", "print('exported')"))
        assert app.launching.start(["export", "mnist"], results / "export.log", "begun", "done")
        await pilot.press("3", "O")  # the log of the study under the cursor, not of the newest job
        text = await read(app, pilot)
        assert "100  line 100" in text and "exported" not in text
        with log.open("a") as file:
            file.write("more\n")
            file.flush()
            assert "101  more" in await read(app, pilot)
            await pilot.press("g")
            file.write("and more\n")
            file.flush()
            text = await read(app, pilot)
            assert "  1  line 1" in text and "and more" not in text
            await pilot.press("G")
            assert "102  and more" in await read(app, pilot)

    drive(results, script, size=(80, 24))


@pytest.mark.slow
def test_no_terminal_is_too_small(results, drive) -> None:
    """Every screen and dialogue is drawn in tiny or large terminals; with MNIST_SUITE_SOAK in all of them."""

    async def script(app, pilot) -> None:
        places = ["j", "enter", f"l {NEXT} {NEXT}", "escape c", "2", "l k plus", f"{NEXT} {NEXT} {NEXT}"]
        places += ["3", "4", "5 space j"]
        dialogues = ["1 n", "escape question_mark", "escape s", "escape C", "escape x", "escape e"]
        sizes = [(20, 5), (1, 1), (200, 60)]
        for i, keys in enumerate(places + dialogues):
            await pilot.press(*keys.split())
            for size in sizes if SOAK else sizes[i % 3 : i % 3 + 1]:
                await pilot.resize_terminal(*size)
                app.poll()
                app.paint()

    drive(results, script)


@pytest.mark.slow
def test_an_empty_directory_tells_how_to_launch_a_sweep(tmp_path: Path, drive, screen_text) -> None:
    async def script(app, pilot) -> None:
        assert "Press n to launch" in screen_text(app)
        for key in ("enter", "c", "x", "R", "e", "N", "space", "p", "d"):
            await pilot.press(key)
        await pilot.press("1", "2", "l", "enter", *[NEXT, "plus"] * 10, "3", "enter", "x", "4", "5", "M", "escape")
        assert app.is_running

    drive(tmp_path / "none", script)


def test_a_full_disk_is_reported(results, drive, monkeypatch) -> None:
    def full(self, reason: str) -> None:
        raise OSError(28, "No space left on device")

    async def script(app, pilot) -> None:
        monkeypatch.setattr(StudyDir, "request_stop", full)
        await pilot.press("x", "y")
        await pilot.pause()
        assert any("No space left" in n.message for n in app._notifications)

    drive(results, script)


def test_a_failed_read_is_shown_and_the_last_state_stays(results, drive, screen_text) -> None:
    from tui.messages import Polled
    from tui.model.snapshot import Snapshot

    async def script(app, pilot) -> None:
        app.on_polled(Polled(Snapshot(), {}, "Reading failed: OSError: gone"))
        await pilot.pause()
        assert "Reading failed" in screen_text(app) and "finished" in screen_text(app)  # the last state stays
        assert isinstance(app.screen.query_one("#notice"), Static)

    drive(results, script)
