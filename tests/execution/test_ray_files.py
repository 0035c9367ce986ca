"""How files come back from a Ray node that does not see the results directory: both sides, without Ray between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from suite.execution.job import Job
from suite.execution.ray_files import Mirror, NodeDirectory, files_for_node, weights_files
from suite.spec import Evaluated, Started, Trial
from suite.store.events import EventReader, EventWriter
from suite.store.study import StudyDir
from suite.store.trial import Overtaken, TrialDir


@pytest.fixture
def job(tmp_path: Path, make_trial: Callable[..., Trial]) -> Job:
    trial = make_trial()
    directory = StudyDir(tmp_path / "results", "s").trial(trial.id)
    directory.create(trial)
    return Job(trial, trial.id, str(directory.path), str(tmp_path / "results"), "mine", "")


def evaluated(epoch: int) -> Evaluated:
    return Evaluated(step=epoch, epoch=epoch, accuracy=0.5, loss=1.0, seconds=1.0)


def test_the_controller_ends_up_with_the_files_of_the_node(job: Job) -> None:
    node, mirror = NodeDirectory(), Mirror(job)
    there = node.place(job, files_for_node(job, weights_files(job)))
    own = TrialDir(Path(there.directory))
    assert own.path != Path(job.directory)
    writer = EventWriter(own.events)
    writer.append(Started(attempt="mine", pid=1, host="h", step=0))
    for epoch in range(1, 4):
        writer.append(evaluated(epoch))
        (own.path / "checkpoint.json").write_text(f"{epoch}")
        mirror.write(node.changes())
    (own.path / "checkpoint.json").unlink()
    own.best.write_bytes(b"weights")
    mirror.write(node.changes())
    assert node.changes() == {}
    here = {path.name: path.read_bytes() for path in Path(job.directory).iterdir()}
    assert here == {path.name: path.read_bytes() for path in own.path.iterdir()}
    assert set(here) == {"trial.json", "events.jsonl", "best.safetensors"}


def test_nothing_is_written_once_another_process_has_taken_the_trial_up(job: Job) -> None:
    mirror, here = Mirror(job), TrialDir(Path(job.directory))
    EventWriter(here.events).append(Started(attempt="another", pid=1, host="h", step=0))
    with pytest.raises(Overtaken):
        mirror.write({"best.safetensors": b"weights"})
    assert not here.best.exists()


def test_writing_down_n_events_reads_n_lines(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check for another process reads what is new in the log, not all of it with each event."""
    read = 0
    poll = EventReader.poll

    def counted(self: EventReader) -> list:
        nonlocal read
        lines = poll(self)
        read += len(lines)
        return lines

    monkeypatch.setattr(EventReader, "poll", counted)
    node, mirror = NodeDirectory(), Mirror(job)
    own = TrialDir(Path(node.place(job, files_for_node(job, weights_files(job))).directory))
    writer = EventWriter(own.events)
    writer.append(Started(attempt="mine", pid=1, host="h", step=0))
    for epoch in range(1, 100):
        writer.append(evaluated(epoch))
        mirror.write(node.changes())
    assert read <= 100
    assert len(EventReader(Path(job.directory, "events.jsonl")).poll()) == 100
