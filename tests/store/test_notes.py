import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.cli.keep import note, trash
from suite.errors import InputError
from suite.store.liveness import STALE_SECONDS
from suite.store.notes import NO_NOTE, NOTES_FILE, STUDY, Note, checked, read_notes, replace_note, tags_of, write_note
from suite.store.study import StudyDir, final_of
from suite.store.trash import TRASH, Discarded, discard, restore

pytest.importorskip("textual")

from tui.testing.synthetic import write_study

tags = st.lists(st.text(st.characters(codec="utf-8", categories=("L", "Nd")), min_size=1, max_size=40), max_size=3)
notes = st.builds(checked, st.text(max_size=30), tags, archived=st.booleans())


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    study = StudyDir(tmp_path, "mnist")
    study.path.mkdir()
    assert read_notes(study) == {}
    seen = read_notes(study).get("0001-a", NO_NOTE)  # by both
    replace_note(study, "0001-a", seen, Note("mine", ("one",)))
    replace_note(study, "0001-a", seen, Note("", ("two",)))
    write_note(study, "0002-b", archived=True)
    write_note(study, text="of the study")
    found = read_notes(study)
    assert found["0001-a"] == Note("mine", ("one", "two"))
    assert found["0002-b"].archived and found[STUDY].text == "of the study"


@pytest.mark.parametrize(
    "torn", [b'{"time": 1, "te', b"\xff\xfe", b"[]", b'{"time": "later"}', b'{"time": 1, "new": 2}']
)
def test_a_torn_line_costs_itself_only(tmp_path: Path, torn: bytes) -> None:
    study = StudyDir(tmp_path, "mnist")
    study.path.mkdir()
    write_note(study, "0001-a", text="before")
    with open(study.path / NOTES_FILE, "ab") as file:
        file.write(torn)
    write_note(study, "0002-b", text="after")
    assert {key: note.text for key, note in read_notes(study).items()} == {"0001-a": "before", "0002-b": "after"}


@given(notes, notes)
def test_the_difference_of_two_notes_leads_from_one_to_the_other(tmp_path_factory, before: Note, after: Note) -> None:
    study = StudyDir(tmp_path_factory.mktemp("notes"), "mnist")
    study.path.mkdir()
    replace_note(study, STUDY, NO_NOTE, before)
    replace_note(study, STUDY, before, after)
    assert read_notes(study)[STUDY] == after


@pytest.mark.parametrize(("text", "typed"), [("x" * 2001, ""), ("", "x" * 41), ("", "a|b"), ("", "a:b"), ("", '"')])
def test_what_cannot_be_kept_is_refused(text: str, typed: str) -> None:
    with pytest.raises(InputError, match="cannot be kept"):
        checked(text, tags_of(typed))


def test_a_note_is_one_printable_line() -> None:
    assert checked(" a\x1b[2J\n b ", ()).text == "a\\x1b[2J b"
    assert tags_of("a, b a,,c") == ("a", "b", "c")


def old(study: StudyDir) -> None:
    """Make the logs of the study's trials look as if they were written long ago."""
    for place in study.trials():
        if place.events.exists():
            os.utime(place.events, (0, 0))


def test_a_study_and_a_trial_go_to_the_trash_and_come_back(tmp_path: Path) -> None:
    study = write_study(tmp_path, "mnist", ["finished", "failed"], running=False)
    first, _ = study.trial_ids()
    trial = discard(tmp_path, "mnist", first)
    assert first not in study.trial_ids() and trial.kept.relative_to(tmp_path).parts[0] == TRASH
    whole = discard(tmp_path, "mnist")
    assert not study.path.exists()
    with pytest.raises(InputError, match="cannot go back"):
        restore(trial)
    restore(whole)
    restore(trial)
    assert first in study.trial_ids() and not any((tmp_path / TRASH).iterdir())
    with pytest.raises(InputError, match="not there any more"):
        restore(trial)
    with pytest.raises(InputError, match="any more"):
        discard(tmp_path, "mnist", "0099-aaaaaaaa")


def test_nothing_returns_to_a_place_that_is_taken(tmp_path: Path) -> None:
    study = write_study(tmp_path, "mnist", ["finished"], running=False)
    (name,) = study.trial_ids()
    found = discard(tmp_path, "mnist", name)
    (study.trials_path / f"{name[:4]}-00000000").mkdir()  # the same number with other values
    with pytest.raises(InputError, match="taken its place"):
        restore(found)
    assert found.kept.is_dir()


@pytest.mark.parametrize("part", ["search", "final", "trial"])
def test_nothing_moves_where_somebody_is_at_work(tmp_path: Path, part: str) -> None:
    study = write_study(tmp_path, "mnist", ["finished", "running"], running=False)
    first = study.trial_ids()[0]
    if part == "trial":  # a worker that has outlived its controller
        with pytest.raises(InputError, match="at work"):
            discard(tmp_path, "mnist", first)
    else:
        old(study)
        busy = study if part == "search" else final_of(study)
        busy.trials_path.mkdir(parents=True, exist_ok=True)
        with busy.lock(), pytest.raises(InputError, match="at work"):
            discard(tmp_path, "mnist")
    assert first in study.trial_ids() and not (tmp_path / TRASH).exists()
    old(study)
    assert isinstance(discard(tmp_path, "mnist"), Discarded) and STALE_SECONDS > 1


def test_the_commands_note_and_trash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path, "mnist", ["finished", "failed"], running=False)
    first = study.trial_ids()[0]
    note("mnist/0", "too slow", tag=["a", "b"], results=tmp_path)
    note("mnist/0", untag=["b"], archive=True, results=tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == f"mnist/{first}: too slow  #a  archived"
    assert read_notes(study)[first] == Note("too slow", ("a",), True)
    trash("mnist/0", results=tmp_path)
    assert first not in study.trial_ids() and "To take it back: mv " in capsys.readouterr().out
    for reference in ("", "none", "mnist/0"):
        with pytest.raises(InputError):
            trash(reference, results=tmp_path)
