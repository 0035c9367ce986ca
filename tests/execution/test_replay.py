"""Given trials, run without a search: what other controllers do is noticed as in any study."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.data.datasets import search_splits
from suite.errors import InputError, WorkError
from suite.execution.replay import replay
from suite.execution.stop import Stop
from suite.spec import Status, Trial, Weights
from suite.store.liveness import STALE_SECONDS
from suite.store.study import StudyDir


@pytest.fixture
def trials(make_trial: Callable[..., Trial]) -> list[Trial]:
    """Two small trainings that differ by their seeds."""
    info = search_splits("mnist", limit=100).info
    facts = {"data_hash": info.data_hash, "split_hash": info.split_hash, "limit": 100, "backbone": "net"}
    return [make_trial(**facts, recipe={"epochs": 2, "batch_size": 32}, seed=seed) for seed in (1, 2)]


def elsewhere(silent: float) -> Status:
    """The status of a controller on another host, silent for so many seconds."""
    facts = {"study": "again", "state": "running", "pid": 1, "host": "elsewhere", "started": 1.0, "planned": 2}
    return Status.model_validate({**facts, "heartbeat": time.time() - silent})


def write(directory: StudyDir, status: Status, *, written: float = 0.0) -> None:
    """`written` so many seconds ago."""
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.status_path.write_text(status.model_dump_json())
    os.utime(directory.status_path, (time.time() - written,) * 2)


def test_a_replay_waits_for_a_controller_on_another_host_until_that_is_silent(
    trials: list[Trial], tmp_path: Path
) -> None:
    directory = StudyDir(tmp_path, "again")
    write(directory, elsewhere(silent=STALE_SECONDS - 1), written=STALE_SECONDS - 1)
    first, *others = replay(trials, directory, tmp_path, stop=Stop())
    assert first.host == "elsewhere"
    assert "waiting" in first.message
    assert (others[-1].state, others[-1].finished) == ("done", 2)


@pytest.mark.parametrize("written", [0, 10**6])
@pytest.mark.parametrize("behind", [-120, 10, 120, 10**6])
def test_a_replay_leaves_a_living_controller_on_another_host_alone(
    trials: list[Trial], tmp_path: Path, behind: float, written: float
) -> None:
    """Whatever its clock says in comparison with ours, and whatever clock stamps the files: it writes."""
    directory = StudyDir(tmp_path, "again")
    write(directory, elsewhere(silent=behind), written=written)
    running = replay(trials, directory, tmp_path, stop=Stop())
    assert next(running).host == "elsewhere"
    write(directory, elsewhere(silent=behind - 2))
    with pytest.raises(InputError, match="already has a controller: pid 1 on elsewhere"):
        next(running)
    assert not directory.trials()


def test_a_replay_gives_way_to_a_controller_that_took_over(trials: list[Trial], tmp_path: Path) -> None:
    directory = StudyDir(tmp_path, "again")
    running = replay(trials, directory, tmp_path, stop=Stop())
    assert next(running).state == "running"
    other = elsewhere(silent=0)
    write(directory, other)
    with pytest.raises(WorkError, match="was taken over by pid 1 on elsewhere"):
        list(running)
    assert directory.status() == other


def test_a_replay_goes_on_where_it_was_stopped(trials: list[Trial], tmp_path: Path) -> None:
    directory, stop = StudyDir(tmp_path, "again"), Stop()
    for status in replay(trials, directory, tmp_path, stop=stop):
        if status.finished == 1:
            directory.request_stop("enough")
    assert stop.reason == "stop.request"
    assert json.loads(directory.status_path.read_text())["state"] == "stopped"
    before = {s.id: s.record for s in directory.states() if s.record}
    *_, last = replay(trials, directory, tmp_path, stop=Stop())
    assert (last.state, last.finished) == ("done", 2)
    after = {s.id: s.record for s in directory.states()}
    assert len(before) == 1 and len(after) == 2
    assert all(after[trial_id] == record for trial_id, record in before.items())


def test_a_failed_training_is_run_again_when_it_is_asked_for_again(trials: list[Trial], tmp_path: Path) -> None:
    """What failed may be mended since; what finished is not repeated."""
    directory = StudyDir(tmp_path, "again")
    lost = trials[1].model_copy(update={"weights": Weights(source="gone/trials/0000-00000000/best.safetensors")})
    first = list(replay([trials[0], lost], directory, tmp_path, stop=Stop()))[-1]
    assert (first.finished, first.failed) == (1, 1)
    done = next(s.record for s in directory.states() if s.state == "finished")
    shutil.copytree(
        next(p.parent for p in directory.path.glob("trials/*/best.safetensors")),
        tmp_path / "gone" / "trials" / "0000-00000000",
    )
    last = list(replay([trials[0], lost], directory, tmp_path, stop=Stop()))[-1]
    assert (last.finished, last.failed) == (2, 0)
    assert done in [s.record for s in directory.states()]
    assert list(replay([trials[0], lost], directory, tmp_path, stop=Stop()))[-1].finished == 2
