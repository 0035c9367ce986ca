"""kill -9 at every moment that matters to a trial that is paused, judged, promoted or running."""

from __future__ import annotations

import signal
from pathlib import Path

from suite.store.events import EventReader
from suite.store.study import StudyDir

# Before or after what; of several in one run, the how manieth. The study is killed at each of them, one after another.
MOMENTS = (
    ("before", "paused", 1),  # its checkpoint is there, its event is not
    ("after", "paused", 1),
    ("before", "paused", 2),
    ("before", "SHA256SUMS", 1),  # the batch is judged
    ("before", "result.json", 1),
    ("after", "result.json", 1),  # its checkpoint is there still
    ("before", "started", 1),  # of a promoted trial
    ("after", "started", 1),
    ("after", "evaluated", 1),
    ("before", "checkpoint.json", 2),
    ("after", "checkpointed", 2),
    ("before", "best.safetensors", 1),
    ("before", "finished", 1),
    ("after", "status.json", 3),
)


def test_a_study_that_is_killed_at_every_moment_comes_out_bit_for_bit(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "small")
    for when, what, count in MOMENTS:
        run = start("sweep", experiment, "--resume", "--results", tmp_path, KILL_AT=f"{when} {what} {count}")
        assert run.wait() == -signal.SIGKILL, (when, what, count, run.errors)
        figures.fault("controller")
    last = start("sweep", experiment, "--resume", "--results", tmp_path)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
    attempts = [line.event.kind for place in directory.trials() for line in EventReader(place.events).poll()]
    assert attempts.count("started") <= 6 + 4 + len(MOMENTS)  # nothing was trained that was known already
