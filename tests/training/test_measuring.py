"""Measurements that take long are announced: in the event log, and on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from suite.cli.console import SweepProgress
from suite.hardware import budget
from suite.spec import Measuring, Status, Trial
from suite.store.events import EventReader, EventWriter
from suite.store.study import StudyDir
from suite.store.trial import TrialDir
from suite.training.measuring import announced
from suite.training.trial import run_trial


def passes(number: int) -> Generator[None, None, int]:
    for _ in range(number):
        yield
    return number


@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_long_measurement_is_announced_once(number: int) -> None:
    work = announced(passes(number), Measuring(what="something"))
    told = []
    try:
        while True:
            told.append(next(work))
    except StopIteration as end:
        assert end.value == number
    assert told == [Measuring(what="something")] * min(number, 1)


def test_a_trial_announces_its_measurements(
    make_trial: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every pass took longer than two seconds."""
    from suite.data.datasets import search_splits
    from suite.hardware import latency

    monkeypatch.setattr(budget, "WORD_SECONDS", 0.0)
    monkeypatch.setattr(latency, "_measured", {})
    info = search_splits("mnist", limit=100).info
    facts = {"data_hash": info.data_hash, "split_hash": info.split_hash, "limit": 100, "backbone": "net"}
    trial = make_trial(**facts, recipe={"epochs": 1, "batch_size": 50, "precision": "fp32"})
    directory = TrialDir(tmp_path / trial.id)
    directory.create(trial)
    told = [event for event in run_trial(trial, directory, tmp_path, attempt="a") if isinstance(event, Measuring)]
    assert told == [Measuring(what="its latency")]
    assert told[0] in [line.event for line in EventReader(directory.events).poll()]
    record = directory.record()
    assert record is not None and record.cost is not None
    assert record.cost.latency_source == "fastest of several passes"


def test_a_measurement_is_printed_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = SweepProgress(tmp_path, quiet=False)
    directory = StudyDir(tmp_path, "s").trial("0000-abc")
    directory.path.mkdir(parents=True)
    now = time.time()
    status = Status(
        study="s", state="running", pid=1, host="h", started=now, heartbeat=now, planned=1, running=("0000-abc",)
    )
    progress.update(status)
    writer = EventWriter(directory.events)
    writer.append(Measuring(what="its latency"))
    for _ in range(2):
        progress.update(status)
    writer.close()
    printed = capsys.readouterr().err
    assert printed.count("s/0000-abc: measuring its latency") == 1
