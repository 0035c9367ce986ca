"""kill -9 at random moments: of the controller, its workers and viewers, also while checkpoints are written."""

# ruff: noqa: B023

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from suite.store import StudyDir

KILLS = int(os.environ.get("MNIST_SUITE_SOAK", "0")) or 20


def test_a_sequential_study_is_killed_again_and_again_and_comes_out_bit_for_bit(
    start, experiment: Path, reference, tmp_path: Path, seed: int, figures, faults
) -> None:
    """Every evaluation writes a checkpoint here, so that many kills fall into the writing of one."""
    chance = random.Random(seed)
    directory = StudyDir(tmp_path, "small")
    rounds = 0
    while figures.faults.get("controller", 0) < KILLS:
        rounds += 1
        if all(s.record for s in directory.states()) and len(directory.states()) == faults.TRIALS:
            directory = StudyDir(tmp_path / str(rounds), "small")  # it came through: another one
        run = start("sweep", experiment, "--resume", "--results", directory.path.parent)
        viewer = start("leaderboard", "--watch", "--results", directory.path.parent) if rounds % 3 == 0 else None
        before = sum(t.events.stat().st_size for t in directory.trials() if t.events.exists())
        if chance.random() < 0.8:  # else also before anything has begun
            faults.wait_for(
                lambda: (
                    run.poll() is not None
                    or sum(t.events.stat().st_size for t in directory.trials() if t.events.exists()) > before
                )
            )
        time.sleep(chance.uniform(0, 0.8))
        if viewer is not None:
            viewer.signal(signal.SIGKILL)
            figures.fault("viewer")
        run.signal(signal.SIGKILL)
        if run.wait() == -signal.SIGKILL:
            figures.fault("controller")
        else:
            assert run.wait() == 0, run.errors
    for results in (tmp_path, *(p for p in tmp_path.iterdir() if p.name.isdigit())):
        if not (results / "small").exists():
            continue
        last = start("sweep", experiment, "--resume", "--results", results)
        assert last.wait() == 0, last.errors
        directory = StudyDir(results, "small")
        faults.check_promise(directory)
        assert faults.fingerprint(directory) == reference
        figures.trials += faults.TRIALS
        figures.identical += 1


@pytest.mark.slow
def test_workers_are_killed_and_their_controller_too(
    start, experiment: Path, tmp_path: Path, seed: int, figures, faults
) -> None:
    chance = random.Random(seed)
    directory = StudyDir(tmp_path, "small")
    command = ("sweep", experiment, "--resume", "--workers", 2, "--set", "epochs=60", "--results", tmp_path)
    run = start(*command)
    kills = KILLS // 3
    while figures.faults.get("worker", 0) < kills:
        seen = set(faults.pids(directory))
        faults.wait_for(lambda: run.poll() is not None or any(faults.alive(p) for p in faults.pids(directory)))
        if run.poll() is not None:
            break
        time.sleep(chance.uniform(0, 1.0))
        living = [p for p in sorted(faults.pids(directory)) if faults.alive(p)]
        if living:
            assert run.pid not in living
            os.kill(chance.choice(living), signal.SIGKILL)
            figures.fault("worker")
        if figures.faults.get("worker", 0) == kills // 2 and "controller" not in figures.faults:
            living = [p for p in faults.pids(directory) if faults.alive(p)]
            run.signal(signal.SIGKILL)
            figures.fault("controller")
            assert run.wait() == -signal.SIGKILL
            faults.wait_for(lambda: not any(faults.alive(p) for p in living), 10)
            run = start(*command)
        del seen
    assert run.wait(200) == 0, run.errors
    faults.check_promise(directory)
    figures.trials += faults.TRIALS
