"""Notes, archive and trash by keys, and taking them back."""

import pytest
from textual.widgets import Input

from suite.spec import Weights
from suite.store.notes import NO_NOTE, STUDY, read_notes
from suite.store.study import StudyDir
from suite.store.trash import TRASH
from tui.screens.confirm import ConfirmScreen
from tui.screens.leaderboard import LeaderboardScreen
from tui.screens.note import NoteScreen
from tui.testing.synthetic import make_trial, write_study, write_trial


async def look(app, pilot) -> None:
    await app.workers.wait_for_complete()
    await pilot.pause()
    app.poll()
    await pilot.pause()


def test_a_note_is_written_by_keys_and_taken_back(results, drive, screen_text) -> None:
    study = StudyDir(results, "mnist")

    async def script(app, pilot) -> None:
        key = app.focus_key
        await pilot.press("quotation_mark", *"slow", "tab", *"a|", "enter")
        assert isinstance(app.screen, NoteScreen) and "cannot be kept" in screen_text(app)
        await pilot.press("backspace", *" b", "enter")
        await look(app, pilot)
        assert read_notes(study)[key[1]].tags == ("a", "b") and "a b" in screen_text(app)
        await pilot.press("quotation_mark")
        assert app.screen.query_one("#note", Input).value == "slow"
        await pilot.press("escape", "enter")
        await look(app, pilot)
        assert "note: slow" in screen_text(app)
        await pilot.press("ctrl+z", "escape", "ctrl+z")
        await look(app, pilot)
        assert read_notes(study)[key[1]] == NO_NOTE and "a b" not in screen_text(app)

    drive(results, script, size=(140, 30))


def test_what_is_archived_leaves_the_board(results, drive, screen_text) -> None:
    study = StudyDir(results, "mnist")

    async def script(app, pilot) -> None:
        key, count = app.focus_key, len(app.board.lines)
        await pilot.press("A")
        await look(app, pilot)
        assert key not in app.board.keys and "1 archived" in screen_text(app)
        await pilot.press("ctrl+z")
        await look(app, pilot)
        assert len(app.board.lines) == count
        await pilot.press("3")
        await look(app, pilot)
        await pilot.press("A")
        await look(app, pilot)
        assert read_notes(study)[STUDY].archived and "archived" in screen_text(app)
        await pilot.press("1")
        assert not app.board.lines
        await pilot.press("3", "A", "1")
        await look(app, pilot)
        assert len(app.board.lines) == count

    drive(results, script, size=(140, 30))


def test_a_trial_and_a_study_are_deleted_after_a_question_and_come_back(tmp_path, drive, screen_text) -> None:
    results = tmp_path / "results"
    study = write_study(results, "mnist", ["finished", "finished"], running=False)
    user = make_trial("tuned", 0).model_copy(
        update={"weights": Weights(source=f"mnist/trials/{study.trial_ids()[0]}/best.safetensors")}
    )
    write_trial(write_study(results, "tuned", [], running=False), 0, "finished", trial=user)

    async def script(app, pilot) -> None:
        key = app.focus_key
        place = StudyDir(results, key[0]).trial(key[1]).path
        await pilot.press("D", "n")
        assert place.is_dir() and isinstance(app.screen, LeaderboardScreen)
        await pilot.press("D", "y")
        await look(app, pilot)
        assert not place.exists() and key not in app.board.keys and list((results / TRASH).glob(f"*/*/*/{key[1]}"))
        await pilot.press("3", "D")
        assert isinstance(app.screen, ConfirmScreen) and "1 trial elsewhere uses" in app.screen.text
        await pilot.press("y")
        await look(app, pilot)
        assert [view.name for view in app.snapshot.studies] == ["tuned"]
        await pilot.press("ctrl+z", "ctrl+z", "ctrl+z")
        await look(app, pilot)
        assert place.is_dir() and len(app.snapshot.runs) == 3 and not any((results / TRASH).iterdir())

    drive(results, script)


@pytest.mark.parametrize("readonly", [True, False])
def test_nothing_is_deleted_where_a_controller_is_at_work_or_read_only(results, drive, readonly: bool) -> None:
    before = sorted(results.rglob("*"))

    async def script(app, pilot) -> None:
        keys = ("D", "y", *(("quotation_mark", "A", "ctrl+z") if readonly else ()))
        for _ in "13":
            await pilot.press(*keys, "3")
            await look(app, pilot)
            assert len(app.screen_stack) == 1 or not readonly
        assert sorted(results.rglob("*")) == before

    drive(results, script, readonly=readonly)
