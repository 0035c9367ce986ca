"""explanations.json beside a trial's record: what the dashboard and the report show."""

from __future__ import annotations

from collections.abc import Sequence

from suite.explaining.explain import Explained
from suite.explaining.subject import Subject
from suite.spec import Explanations
from suite.store.files import write_model
from suite.store.outputs import writing
from suite.store.trial import EXPLANATIONS

LARGEST = 64  # pixels a side of pictures and maps, as in validation.json


def write(subject: Subject, explained: Sequence[Explained], notes: Sequence[str]) -> None:
    """Replace the explanations of a trial. Raises InputError and WorkError where its directory cannot be written."""
    assert subject.directory is not None
    path = subject.directory.path / EXPLANATIONS
    found = Explanations(
        trial=subject.name,
        artifact_sha256=subject.sha256,
        classes=subject.classes,
        explanations=tuple(one.described(LARGEST) for one in explained),
        notes=tuple(notes),
    )
    with writing(path, "--results"):
        write_model(path, found)
