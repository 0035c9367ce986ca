"""Signals, hung and greedy trials, two controllers, passwords."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from suite.data.cache import raw_files
from suite.store.study import StudyDir

POLITE = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGUSR2: 143, signal.SIGHUP: 143}


def test_every_polite_signal_stops_cleanly_and_twice_at_once(
    start, experiment: Path, reference, tmp_path: Path, seed: int, figures, faults
) -> None:
    """One study is stopped at random moments by each of them, and comes out bit for bit."""
    chance = random.Random(seed)
    directory = StudyDir(tmp_path, "small")
    for number, code in [*POLITE.items(), (signal.SIGINT, 130), (signal.SIGTERM, 143)]:
        run = start("sweep", experiment, "--resume", "--results", tmp_path)
        faults.wait_for(lambda r=run: r.poll() is not None or f"{r.pid}" in directory_status(directory))
        time.sleep(chance.uniform(0, 0.5))
        twice = "signal" in figures.faults and figures.faults["signal"] >= len(POLITE)
        run.signal(number)
        if twice:
            run.signal(number)
        figures.fault("signal")
        assert run.wait() in (code, 0), run.errors
        assert "Traceback" not in run.errors
        if run.wait() == code and not twice:
            assert "--resume" in run.errors
            status = directory.status()
            assert status is not None
            assert status.state == "stopped"
            unfinished = [s for s in directory.states() if s.record is None]
            assert all(s.state in ("stopped", "waiting", "paused") for s in unfinished)
    run = start("sweep", experiment, "--resume", "--results", tmp_path)
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def directory_status(directory: StudyDir) -> str:
    status = directory.status()
    return f"{status.pid}" if status else ""


def test_a_signal_to_all_of_a_job_step_stops_workers_cleanly(
    start, plain: Path, tmp_path: Path, figures, faults
) -> None:
    """A batch system sends it to every process, not to the controller alone."""
    directory = StudyDir(tmp_path, "small")
    command = ("sweep", plain, "--workers", 2, "--trials", 2, "--set", "epochs=30", "--results", tmp_path)
    run = start(*command, pinned=False)
    faults.wait_for(lambda: run.poll() is not None or len(list(directory.path.glob("trials/*/checkpoint.json"))) == 2)
    run.signal(signal.SIGTERM, group=True)
    figures.fault("signal")
    assert run.wait() == 143, run.errors
    states = [s.state for s in directory.states()]
    assert states.count("stopped") == 2, states
    resumed = start(*command, "--resume", pinned=False)
    assert resumed.wait() == 0, resumed.errors
    faults.check_promise(directory, figures, 2)


def test_a_second_signal_while_a_checkpoint_is_written_harms_nothing(
    start, experiment: Path, reference, tmp_path: Path, figures, faults
) -> None:
    directory = StudyDir(tmp_path, "small")
    hit = 0
    for number in [signal.SIGINT, signal.SIGTERM] * 6:
        run = start("sweep", experiment, "--resume", "--results", tmp_path)
        before = faults.events_of(tmp_path)
        faults.wait_for(lambda r=run, b=before: r.poll() is not None or faults.events_of(tmp_path) > b)
        run.signal(number)  # it now writes a checkpoint
        while run.poll() is None and not faults.half_written(directory):
            time.sleep(0.0002)
        run.signal(number)
        assert run.wait() in (POLITE[number], 0), run.errors
        assert "Traceback" not in run.errors
        figures.fault("signal")
        hit += bool(faults.half_written(directory))
        if run.wait() == 0 or hit == 2:
            break
    assert hit
    run = start("sweep", experiment, "--resume", "--results", tmp_path)
    assert run.wait() == 0, run.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def begin_within(start, experiment: Path, tmp_path: Path, faults, *words: object) -> tuple[Any, StudyDir, int]:
    """A sweep whose trials may take so many seconds each, of which the first trial has had less than half."""
    for limit in (10, 30, 90, 300):  # the machine is quick enough for one of them
        directory = StudyDir(tmp_path / str(limit), "small")
        began = time.monotonic()
        run = start("sweep", experiment, *words, "--arms", "sgd", "--trial-timeout", limit, "--results",
                    directory.path.parent)  # fmt: skip
        faults.wait_for(lambda r=run, d=directory: r.poll() is not None or faults.pids(d))
        if time.monotonic() - began < limit / 2:
            break
        run.signal(signal.SIGKILL)
        run.wait()
    return run, directory, limit


@pytest.mark.slow
def test_what_is_suspended_goes_on_and_is_not_called_late(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    """A worker alone stands still for a while, then all of the job, for longer than a trial may take."""
    run, directory, limit = begin_within(start, experiment, tmp_path, faults, "--trials", 1, "--set", "epochs=10000")
    (worker,) = faults.pids(directory)
    for pids, seconds in (([worker], 2), ([run.pid, worker], 1.1 * limit)):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        figures.fault("suspension")
        time.sleep(seconds)
        before = faults.events_of(tmp_path)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        faults.wait_for(lambda b=before: run.poll() is not None or faults.events_of(tmp_path) > b)
    run.signal(signal.SIGTERM)
    assert run.wait() == 143, run.errors
    assert [s.state for s in directory.states()] == ["stopped"]


def test_a_hung_data_source_fails_its_trial_by_the_time_limit(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    """Opening the images blocks in the worker: somebody holds a lease on the file, which lasts 45 s on Linux."""
    cache = tmp_path / "cache"
    (cache / "data/MNIST/raw").mkdir(parents=True)
    for path in raw_files("mnist")[:2]:
        shutil.copy(path, cache / "data/MNIST/raw")
    images = cache / "data/MNIST/raw" / raw_files("mnist")[0].name
    directory = StudyDir(tmp_path, "small")
    run = start("sweep", experiment, "--trials", 1, "--trial-timeout", 4, "--arms", "sgd", "--results", tmp_path,
                MNIST_SUITE_CACHE=str(cache))  # fmt: skip
    faults.wait_for(lambda: run.poll() is not None or directory.trials())  # the controller has read them
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the holder is asked to let go
    handle = os.open(images, os.O_RDWR)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        figures.fault("hang")
        assert run.wait() == 1, run.errors
    finally:
        os.close(handle)
        signal.signal(signal.SIGIO, before)
    assert "time limit: not done after 4 s" in run.errors
    assert not faults.pids(directory)  # it never came as far as its first event
    again = start("sweep", experiment, "--trials", 2, "--resume", "--trial-timeout", 10_000, "--arms", "sgd",
                  "--results", tmp_path, MNIST_SUITE_CACHE=str(cache))  # fmt: skip
    assert again.wait() == 0, again.errors
    faults.check_promise(directory, figures, 2)


def test_a_hung_worker_fails_its_trial_by_the_time_limit(start, plain: Path, tmp_path: Path, figures, faults) -> None:
    run, directory, limit = begin_within(start, plain, tmp_path, faults, "--trials", 3, "--set", "epochs=2000")
    (worker,) = faults.pids(directory)
    assert worker != run.pid
    os.kill(worker, signal.SIGSTOP)
    figures.fault("hang")
    faults.wait_for(lambda: run.poll() is not None or directory.states()[0].record)
    state = directory.states()[0]
    assert (state.state, state.reason) == ("failed", f"time limit: not done after {limit} s")
    assert state.record.provenance.data_sha256 == state.trial.data_hash  # it says what made it all the same
    assert not faults.alive(worker)
    faults.wait_for(lambda: run.poll() is not None or len(faults.pids(directory)) == 2)  # the next one runs
    run.signal(signal.SIGTERM)
    assert run.wait() == 143, run.errors


def test_out_of_memory_fails_one_trial_and_the_next_is_healthy(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    greedy = tmp_path / "greedy.py"
    text = experiment.read_text().replace('"adam": Arm(backbone="net"', '"adam": Arm(backbone="net", size=512')
    greedy.write_text(text.replace("values=(16, 32)", "values=(128, 256)").replace("batch_size=32", "batch_size=128"))
    run = start("sweep", greedy, "--trials", 4, "--memory-limit", 2, "--results", tmp_path)
    assert run.wait() == 0, run.errors
    directory = StudyDir(tmp_path, "small")
    figures.fault("out of memory")
    states = directory.states()
    assert [s.state == "failed" for s in states] == [s.trial.arm == "adam" for s in states]
    assert all("out of memory" in (s.reason or "") for s in states if s.state == "failed")
    assert len(faults.pids(directory)) == 1  # the same process went on


def test_what_diverges_is_pruned_and_never_best(start, experiment: Path, tmp_path: Path, figures, faults) -> None:
    hot = tmp_path / "hot.py"
    hot.write_text(experiment.read_text().replace("LogFloat(low=1e-3, high=0.1)", "Choice(values=(1e12, 0.05))"))
    run = start("sweep", hot, "--trials", 4, "--arms", "sgd", "--results", tmp_path)  # all that there are
    assert run.wait() == 0, run.errors
    directory = StudyDir(tmp_path, "small")
    states = directory.states()
    burnt = [s for s in states if s.trial.recipe.lr > 1]
    figures.fault("divergence")
    assert burnt
    assert all(s.state == "pruned" and (s.reason or "").startswith("diverged: ") for s in burnt)
    faults.check_promise(directory, figures, 4)
    status = directory.status()
    assert status is not None
    assert status.best_trial in {s.id for s in states} - {s.id for s in burnt}
    alone = start("pretrain", "--backbone", "net", "--limit", 300, "--set", "lr=1e12", "--results", tmp_path)
    assert alone.wait() == 1
    assert "produced no model: diverged" in alone.errors


def test_nothing_listens_on_the_network(start, experiment: Path, tmp_path: Path, figures, faults) -> None:
    directory = StudyDir(tmp_path, "small")
    run = start("sweep", experiment, "--workers", 2, "--set", "epochs=200", "--results", tmp_path, pinned=False)
    faults.wait_for(lambda: run.poll() is not None or len(faults.pids(directory)) == 2)
    for pid in {run.pid, *faults.pids(directory)}:
        assert not psutil.Process(pid).net_connections("inet")
    run.signal(signal.SIGTERM)
    assert run.wait() == 143, run.errors


def test_of_two_controllers_one_gives_way(start, experiment: Path, reference, tmp_path: Path, figures, faults) -> None:
    directory = StudyDir(tmp_path, "small")
    runs = [start("sweep", experiment, "--resume", "--results", tmp_path) for _ in range(3)]
    figures.fault("second controller")
    figures.fault("second controller")
    codes = sorted(run.wait() for run in runs)
    assert codes == [0, 2, 2], [run.errors for run in runs]
    for run in runs:
        if run.wait() == 2:
            assert "already has a controller: pid" in run.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def test_a_password_in_a_storage_url_is_written_nowhere(
    start, experiment: Path, tmp_path: Path, figures, faults
) -> None:
    """A real database reached by a URL with a secret in it; then the same while it is gone."""
    url = f"sqlite:///file:{tmp_path}/away.db?uri=true&password=hunter2"
    command = ("sweep", experiment, "--trials", 2, "--storage", url, "--results", tmp_path / "results")
    run = start(*command)
    assert run.wait() == 0, run.errors
    assert (tmp_path / "away.db").exists()
    assert not (tmp_path / "results/small/optuna.db").exists()
    (tmp_path / "away.db").write_bytes(b"gone" * 3000)
    figures.fault("noise")
    broken = start(*command, "--resume")
    assert broken.wait() in (1, 2), broken.errors
    said = "".join(r.errors + r.output for r in (run, broken))
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files
    assert "hunter2" not in said
    assert not [p for p in files if b"hunter2" in p.read_bytes()]


@pytest.mark.parametrize("where", ["pipe", "nothing"])
def test_a_sweep_survives_the_loss_of_its_terminal(
    start, experiment: Path, tmp_path: Path, where: str, figures, faults
) -> None:
    """Its standard error is a pipe whose reader has gone, or a device that takes nothing."""
    pipe = tmp_path / "stderr"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    target = pipe if where == "pipe" else Path("/dev/full")
    run = start("sweep", experiment, "--trials", 2, "--results", tmp_path / "results", stderr=target)
    directory = StudyDir(tmp_path / "results", "small")
    faults.wait_for(lambda: run.poll() is not None or directory.status_path.exists())
    os.close(reader)
    figures.fault("terminal")
    assert run.wait() == 0
    faults.check_promise(directory, figures, 2)
