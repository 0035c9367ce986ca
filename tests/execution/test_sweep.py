"""The controller: exactly N trials, equal arms, and nothing lost when processes are killed. Real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.spec import Line
from suite.store.events import EventReader
from suite.store.study import StudyDir

EXPERIMENT = '''
"""A small question for tests."""
from suite.spec import Arm, Choice, Experiment, HeadOnly, LogFloat, Pretraining, Pruning, Recipe, Uniform

EXPERIMENT = Experiment(
    name="small",
    question="Does the machinery hold?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="net", recipe=Recipe(epochs=1, lr=0.05)),
    arms={
        "net-scratch": Arm(backbone="net", recipe=Recipe(epochs=EPOCHS, batch_size=32, lr=0.05)),
        "net-head": Arm(backbone="net", strategy=HeadOnly(), weights="experiment",
                        recipe=Recipe(epochs=EPOCHS, batch_size=32)),
    },
    space={
        "lr": LogFloat(low=1e-3, high=0.3),
        "momentum": Uniform(low=0.0, high=0.95),
        "batch_size": Choice(values=(16, 32)),
    },
    pruning=Pruning(first=1, factor=2),
    trials=7,
    limit=LIMIT,
)
'''

Suite = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Any]


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    def write(epochs: int = 4, limit: int = 300, pruning: str = "Pruning(first=1, factor=2)") -> Path:
        path = tmp_path / "small.py"
        text = EXPERIMENT.replace("EPOCHS", str(epochs)).replace("LIMIT", str(limit))
        path.write_text(text.replace("pruning=Pruning(first=1, factor=2)", f"pruning={pruning}"))
        return path

    return write


def study(tmp_path: Path, name: str = "small") -> StudyDir:
    return StudyDir(tmp_path / "results", name)


def check_complete(directory: StudyDir, trials: int) -> None:
    """The promise, from the files alone: exactly N trials, each with one record, arms equal, the database agrees."""
    states = directory.states()
    assert len(states) == trials
    assert [s.trial.number for s in states] == list(range(trials))
    assert all(s.record is not None for s in states)
    per_arm = Counter(s.trial.arm for s in states)
    assert max(per_arm.values()) - min(per_arm.values()) <= 1
    status = directory.status()
    assert status is not None
    assert status.state == "done"
    assert status.finished + status.pruned + status.failed == trials
    assert directory.database.read_bytes()[18:20] == b"\x02\x02"  # the file format's mark of WAL mode
    with sqlite3.connect(directory.database) as database:
        rows = dict(database.execute("select state, count(*) from trials group by state"))
    assert rows.get("COMPLETE", 0) == sum(s.state == "finished" for s in states)
    assert "RUNNING" not in rows
    for state in states:
        best = directory.trial(state.id).best
        assert best.exists() == (state.state == "finished")


@pytest.mark.slow
def test_a_sweep_makes_exactly_its_trials_and_the_same_again(
    suite: Suite, tmp_path: Path, experiment: Callable[..., Path]
) -> None:
    path = experiment()
    done = suite("sweep", path, "--json")
    assert done.returncode == 0, done.stderr
    check_complete(study(tmp_path), 7)
    answer = json.loads(done.stdout)
    assert answer["status"]["planned"] == len(answer["rows"]) == 7
    states = study(tmp_path).states()
    assert len({s.trial.model_dump_json(include={"arm", "params"}) for s in states}) == 7  # no point twice
    assert any(s.state == "pruned" for s in states)
    assert all(s.record and s.record.cost and s.record.cost.wall_seconds > 0 for s in states)

    refused = suite("sweep", path)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    again = suite("sweep", path, "--study", "other", "--quiet")
    assert again.returncode == 0, again.stderr
    assert again.stderr == ""
    one, two = (
        [(s.trial.params, s.record.accuracy if s.record else None) for s in study(tmp_path, name).states()]
        for name in ("small", "other")
    )
    assert one == two  # sequential on CPU: bit for bit the same search

    more = suite("sweep", path, "--resume", "--trials", "9")
    assert more.returncode == 0, more.stderr
    check_complete(study(tmp_path), 9)
    fewer = suite("sweep", path, "--resume", "--trials", "3")
    assert fewer.returncode == 2
    path.write_text(path.read_text().replace("high=0.3", "high=0.4"))
    changed = suite("sweep", path, "--resume", "--trials", "9")
    assert changed.returncode == 2
    assert "space" in changed.stderr
    check_complete(study(tmp_path), 9)


@pytest.mark.slow
def test_trials_trained_together_come_to_the_same_and_are_pruned_within_an_epoch(
    suite: Suite, tmp_path: Path, experiment: Callable[..., Path]
) -> None:
    path = experiment()
    path.write_text(path.read_text().replace("first=1, factor=2", "first=0.5, factor=2").replace("(16, 32)", "(32,)"))
    done = suite("sweep", path, "--population", "3", "--quiet")
    assert done.returncode == 0, done.stderr
    check_complete(study(tmp_path), 7)
    states = study(tmp_path).states()
    records = [s.record for s in states if s.record is not None and s.record.cost is not None]
    assert len(records) == 7
    assert any(r.state == "pruned" and r.curve[-1][0] == 0.5 for r in records)
    assert all("together" in r.cost.energy_source for r in records if r.cost)
    alone = suite("sweep", path, "--study", "alone", "--quiet")
    assert alone.returncode == 0, alone.stderr
    for arm, tolerance in (("net-scratch", 0.05), ("net-head", 0.01)):  # each arm's own recipe; rounding grows
        curves = [
            next(s.curve for s in states if s.trial.arm == arm)[:2]
            for states in (study(tmp_path).states(), study(tmp_path, "alone").states())
        ]
        for (epoch, one), (same, other) in zip(*curves, strict=True):
            assert epoch == same and one == pytest.approx(other, abs=tolerance)
    measured = suite("sweep", path, "--study", "measured", "--workers", "auto", "--trials", "2", "--json", "--quiet")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["status"]["workers"] in (1, 2, os.cpu_count())
    refused = suite("sweep", path, "--study", "third", "--population", "3", "--workers", "2")
    assert refused.returncode == 2 and "--workers" in refused.stderr
    assert not study(tmp_path, "third").exists()


@pytest.mark.slow
def test_trials_trained_together_are_stopped_and_resumed(
    tmp_path: Path, experiment: Callable[..., Path], start: Start
) -> None:
    path = experiment(epochs=20, pruning="None")
    process = start("sweep", path, "--population", "3")
    wait_for(lambda: sum(s.state == "running" and len(s.curve) > 0 for s in study(tmp_path).states()) >= 2)
    process.signal(signal.SIGTERM)
    assert process.wait(60) == 143
    stopped = [s for s in study(tmp_path).states() if s.state == "stopped"]
    assert len(stopped) >= 2
    assert all((study(tmp_path).trial(s.id).path / "checkpoint.json").exists() for s in stopped if s.curve)
    process = start("sweep", path, "--population", "2", "--resume")
    assert process.wait(240) == 0
    check_complete(study(tmp_path), 7)


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def steps_seen(directory: StudyDir) -> int:
    return sum(
        1 for t in directory.trials() for line in EventReader(t.events).poll() if line.event.kind in ("progress",)
    )


@pytest.mark.slow
def test_a_signal_stops_cleanly_and_resume_goes_on(
    tmp_path: Path, experiment: Callable[..., Path], suite: Suite
) -> None:
    """One of them, to a program that is started as a person starts it; tests/faults/test_signals.py has the others."""
    path = experiment(epochs=12, limit=800, pruning="None")
    words = ["sweep", path, "--trials", "2", "--arms", "net-scratch", "--quiet", "--results", tmp_path / "results"]
    process = subprocess.Popen([sys.executable, "-m", "suite.cli", *map(str, words)], cwd=tmp_path)
    directory = study(tmp_path)
    wait_for(lambda: steps_seen(directory) >= 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    status = directory.status()
    assert status is not None
    assert status.state == "stopped"
    stopped = [s for s in directory.states() if s.state == "stopped"]
    assert len(stopped) == 1
    assert (directory.trial(stopped[0].id).path / "checkpoint.json").exists()
    resumed = suite("sweep", path, "--trials", "2", "--arms", "net-scratch", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    check_complete(directory, 2)
    lines: list[Line] = EventReader(directory.trial(stopped[0].id).events).poll()
    starts = [line.event for line in lines if line.event.kind == "started"]
    assert len(starts) == 2
    assert starts[1].step > 0  # it went on from its checkpoint


@pytest.mark.slow
def test_a_killed_controller_loses_nothing_even_without_its_database(
    tmp_path: Path, experiment: Callable[..., Path], suite: Suite, start: Start
) -> None:
    path = experiment(epochs=12)
    process = start("sweep", path, "--workers", "2")
    directory = study(tmp_path)
    wait_for(lambda: sum(s.record is not None for s in directory.states()) >= 2)
    process.signal(signal.SIGSTOP)  # it shall not come to its end meanwhile
    refused = suite("sweep", path, "--resume")
    assert refused.returncode == 2
    assert f"pid {process.pid}" in refused.stderr
    process.signal(signal.SIGKILL, group=True)
    process.wait()
    before = {s.id: s.record for s in directory.states() if s.record is not None}
    for file in directory.path.glob("optuna.db*"):
        file.unlink()
    resumed = suite("sweep", path, "--resume", "--workers", "2")
    assert resumed.returncode == 0, resumed.stderr
    check_complete(directory, 7)
    after = {s.id: s.record for s in directory.states()}
    assert all(after[trial_id] == record for trial_id, record in before.items())


@pytest.mark.slow
def test_a_killed_worker_costs_no_trial(tmp_path: Path, experiment: Callable[..., Path], start: Start) -> None:
    import psutil

    path = experiment(epochs=12, limit=600, pruning="None")
    process = start("sweep", path, "--workers", "2", "--trials", "4", "--arms", "net-scratch")
    directory = study(tmp_path)
    wait_for(lambda: steps_seen(directory) >= 2)
    pids = {
        line.event.pid
        for t in directory.trials()
        for line in EventReader(t.events).poll()
        if line.event.kind == "started"
    }
    assert process.pid not in pids
    psutil.Process(pids.pop()).kill()
    assert process.wait(200) == 0, process.errors
    check_complete(directory, 4)
    attempts = [sum(line.event.kind == "started" for line in EventReader(t.events).poll()) for t in directory.trials()]
    assert sorted(attempts) == [1, 1, 1, 2]


@pytest.mark.slow
def test_stop_request_from_another_process(
    tmp_path: Path, experiment: Callable[..., Path], suite: Suite, start: Start
) -> None:
    path = experiment(epochs=12, limit=2000)
    process = start("sweep", path, "--trials", "4", "--workers", "2", "--arms", "net-scratch")
    directory = study(tmp_path)
    wait_for(lambda: steps_seen(directory) >= 2)
    asked = suite("stop", "small")
    assert asked.returncode == 0, asked.stderr
    assert process.wait(60) == 143
    assert not directory.stop_path.exists()
    assert {s.state for s in directory.states()} <= {"stopped", "paused", "finished", "pruned"}


@pytest.mark.slow
def test_trials_that_all_fail_stop_the_study_with_the_reason(
    tmp_path: Path, experiment: Callable[..., Path], suite: Suite
) -> None:
    """Each worker is ended before it has begun."""
    path = experiment()
    done = suite("sweep", path, "--trials", "20", "--arms", "net-scratch", "--trial-timeout", "1",
                 asking={"spawns": True})  # fmt: skip
    assert done.returncode == 1
    assert "5 trials in a row failed with: time limit: not done after 1 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(study(tmp_path).states()) == 5
    assert all(s.state == "failed" for s in study(tmp_path).states())
