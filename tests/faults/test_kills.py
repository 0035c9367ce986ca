"""kill -9 at random moments: of the controller, its workers and viewers, also while checkpoints are written."""

# ruff: noqa: B023

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from suite.store.events import EventReader
from suite.store.study import StudyDir

KILLS = int(os.environ.get("MNIST_SUITE_SOAK", "0")) or 8


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
        before = faults.events_of(directory.path)
        if chance.random() < 0.8:  # else also before anything has begun
            faults.wait_for(lambda: run.poll() is not None or faults.events_of(directory.path) > before)
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
        faults.check_promise(directory, figures)
        faults.check_identical(directory, reference, figures)


def test_trials_that_train_together_are_killed_together(
    start, experiment: Path, tmp_path: Path, seed: int, figures, faults
) -> None:
    """One process, four trials at once as one stacked model."""
    chance = random.Random(seed)
    directory = StudyDir(tmp_path, "small")
    command = ("sweep", experiment, "--resume", "--population", 4, "--results", tmp_path)
    for _ in range(KILLS // 4):
        run = start(*command)
        before = faults.events_of(tmp_path)
        faults.wait_for(lambda: run.poll() is not None or faults.events_of(tmp_path) > before)
        time.sleep(chance.uniform(0, 0.5))
        run.signal(signal.SIGKILL)
        if run.wait() == 0:
            break
        figures.fault("controller")
    last = start(*command)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)


@pytest.mark.slow
def test_workers_are_killed_and_their_controller_too(
    start, experiment: Path, tmp_path: Path, seed: int, figures, faults
) -> None:
    """It comes out as in one process that runs one trial after another."""
    chance = random.Random(seed)
    directory = StudyDir(tmp_path / "killed", "small")
    common = ("sweep", experiment, "--set", "epochs=24", "--results")
    whole = start(*common, tmp_path / "whole")
    command = (*common, tmp_path / "killed", "--resume", "--workers", 2)
    run = start(*command, pinned=False)
    kills = KILLS // 3
    while figures.faults.get("worker", 0) < kills:
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
            faults.wait_for(lambda: not any(faults.alive(p) for p in living))
            run = start(*command, pinned=False)
    assert run.wait() == 0, run.errors
    assert whole.wait() == 0, whole.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, faults.fingerprint(StudyDir(tmp_path / "whole", "small")), figures)


def test_a_kill_while_a_checkpoint_is_written_costs_no_more_than_that_checkpoint(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    """Killed as soon as a half-written file shows; some kills prove to have fallen into the writing by what is left."""
    directory = StudyDir(tmp_path, "small")
    torn = 0
    for _ in range(4 * max(KILLS, 20)):
        run = start("sweep", experiment, "--resume", "--results", tmp_path)
        while run.poll() is None and not faults.half_written(directory):
            time.sleep(0.0002)
        run.signal(signal.SIGKILL)
        if run.wait() == 0:
            break
        figures.fault("controller")
        torn += len(faults.half_written(directory))
        if torn >= 2:
            break
    assert torn
    figures.fault("torn checkpoint")
    last = start("sweep", experiment, "--resume", "--results", tmp_path)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def test_a_worker_that_dies_after_its_result_is_not_run_again(
    start, plain: Path, tmp_path: Path, figures, faults
) -> None:
    """The controller stands still while the worker commits its result and is killed; then it reads what was said."""
    directory = StudyDir(tmp_path, "small")
    run = start("sweep", plain, "--trials", 2, "--arms", "adam", "--trial-timeout", 10_000, "--results", tmp_path)
    faults.wait_for(lambda: run.poll() is not None or faults.pids(directory))
    run.signal(signal.SIGSTOP)
    (worker,) = faults.pids(directory)
    faults.wait_for(lambda: directory.states()[0].record)
    os.kill(worker, signal.SIGKILL)
    figures.fault("worker")
    faults.wait_for(lambda: not faults.alive(worker))
    run.signal(signal.SIGCONT)
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures, 2)
    events = [line.event.kind for line in EventReader(directory.trials()[0].events).poll()]
    assert events.count("started") == 1
    assert len(faults.pids(directory)) == 2


def test_every_way_to_train_is_resumed_bit_for_bit(start, tmp_path: Path, seed: int, figures, faults) -> None:
    """Probe and fine-tuning, heads, frozen parts, norm statistics, averages, augmentation, half precision."""
    chance = random.Random(seed)
    kinds = tmp_path / "kinds.py"
    kinds.write_text(faults.KINDS)
    whole = start("sweep", kinds, "--results", tmp_path / "whole")
    directory = StudyDir(tmp_path / "broken", "kinds")
    kills = 0
    while kills < KILLS // 4:
        run = start("sweep", kinds, "--resume", "--results", tmp_path / "broken")
        events = faults.events_of(tmp_path / "broken")
        faults.wait_for(lambda: run.poll() is not None or faults.events_of(tmp_path / "broken") > events)
        time.sleep(chance.uniform(0, 0.4))
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        run.signal(number)
        if run.wait() == 0:
            break
        assert run.wait() in (-signal.SIGKILL, 143), run.errors
        kills += 1
        figures.fault("controller" if number == signal.SIGKILL else "signal")
    last = start("sweep", kinds, "--resume", "--results", tmp_path / "broken")
    assert last.wait() == 0, last.errors
    assert whole.wait() == 0, whole.errors
    (pretraining,) = (p.name for p in (tmp_path / "broken").iterdir() if p.name != "kinds")
    for name, trials in (("kinds", 6), (pretraining, 1)):
        directory = StudyDir(tmp_path / "broken", name)
        faults.check_promise(directory, figures, trials)
        faults.check_identical(directory, faults.fingerprint(StudyDir(tmp_path / "whole", name)), figures)
