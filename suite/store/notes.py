"""Notes, tags and archive marks of a study and its trials: notes.jsonl in the study's directory.

Anyone who sees the results may write, from any host, so it is a log: each change is one line, appended with one
`write`, and no writer replaces what another one wrote. What holds is the sum of the lines, in their order. Lines that
do not parse are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from suite.errors import InputError, printable
from suite.spec.base import Spec, Timestamp, first_error
from suite.store.files import append_line, read_bytes
from suite.store.study import StudyDir

NOTES_FILE = "notes.jsonl"
STUDY = ""  # takes the place of a trial's id where the study itself is meant

Tag = Annotated[str, Field(pattern=r"^[\w.-]{1,40}$")]  # one word, so that tags can be written with blanks between them


class Change(Spec):
    """One line: what changes of a trial's or the study's note. None and empty: stays as it is."""

    time: Timestamp
    trial: Annotated[str, Field(max_length=80)] = STUDY
    text: Annotated[str, Field(max_length=2000)] | None = None
    tag: tuple[Tag, ...] = ()  # tags to add
    untag: tuple[Tag, ...] = ()  # tags to remove
    archived: bool | None = None

    @field_validator("text", mode="before")
    @classmethod
    def _on_one_line(cls, value: object) -> object:
        return " ".join(printable(value).split()) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Note:
    """What people have written of one trial or study."""

    text: str = ""
    tags: tuple[str, ...] = ()  # in alphabetical order
    archived: bool = False  # to be left out of tables unless asked for

    def changed(self, change: Change) -> Note:
        tags = {*self.tags, *change.tag} - {*change.untag}
        return replace(
            self,
            text=self.text if change.text is None else change.text,
            tags=tuple(sorted(tags)),
            archived=self.archived if change.archived is None else change.archived,
        )


NO_NOTE = Note()


def read_notes(study: StudyDir) -> dict[str, Note]:
    """The notes by trial id, that of the study itself by `STUDY`. Empty where there is no file that can be read."""
    try:
        lines = read_bytes(study.path / NOTES_FILE).splitlines()
    except OSError:
        return {}
    notes: dict[str, Note] = {}
    for line in lines:
        try:
            change = Change.model_validate_json(line)
        except (ValidationError, ValueError, RecursionError):
            continue
        notes[change.trial] = notes.get(change.trial, NO_NOTE).changed(change)
    return notes


def write_note(study: StudyDir, trial: str = STUDY, **fields: object) -> None:
    """Add a change to the study's notes; `fields` are those of `Change`.

    Raises InputError for a text or tag that cannot be kept, and OSError.
    """
    change = _change(time=time.time(), trial=trial, **fields)
    append_line(study.path / NOTES_FILE, change.model_dump_json(exclude_defaults=True))


def replace_note(study: StudyDir, trial: str, before: Note, after: Note) -> None:
    """Write what differs between two notes, so that what another writer changes meanwhile stays. As `write_note`."""
    write_note(
        study,
        trial,
        text=after.text if after.text != before.text else None,
        tag=tuple(tag for tag in after.tags if tag not in before.tags),
        untag=tuple(tag for tag in before.tags if tag not in after.tags),
        archived=after.archived if after.archived != before.archived else None,
    )


def checked(text: str, tags: Iterable[str], *, archived: bool = False) -> Note:
    """A note of what was typed. Raises InputError where it cannot be kept."""
    change = _change(time=0.0, text=text, tag=tuple(tags), archived=archived)
    return NO_NOTE.changed(change)


def tags_of(text: str) -> tuple[str, ...]:
    """The tags in a line of text, separated by blanks or commas."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def _change(**fields: object) -> Change:
    try:
        return Change.model_validate(fields)
    except ValidationError as error:
        raise InputError(
            f"This cannot be kept ({first_error(error)}): a note has up to 2000 characters, a tag up to 40 letters, "
            "digits, '.', '_' and '-'."
        ) from None
