"""A tiny file system fills up under a study, at random moments: one paragraph, exit code 1, and it goes on later."""

# ruff: noqa: B023

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from suite.store.study import StudyDir


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path, leave: int) -> Path:
    """Take all space but about `leave` bytes."""
    filler = place / "filler"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    try:
        with open(filler, "wb", buffering=0) as file:
            file.write(bytes(max(0, free - leave)))
    except OSError:
        pass
    return filler


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_costs_time_and_nothing_else(
    start, experiment: Path, reference, tiny: Path, seed: int, figures, faults, workers: int
) -> None:
    chance = random.Random(seed)
    directory = StudyDir(tiny / "results", "small")
    command = ("sweep", experiment, "--resume", "--workers", workers, "--results", directory.path.parent)
    for _ in range(5 if workers == 1 else 1):
        run = start(*command, pinned=workers == 1)
        begun = directory.status_path.exists if workers == 1 else lambda: faults.events_of(directory.path)
        faults.wait_for(lambda: run.poll() is not None or begun())
        time.sleep(chance.uniform(0, 1.5))
        filler = fill(tiny, chance.choice([0, 0, 3000, 20_000, 100_000]))
        code = run.wait()
        filler.unlink()
        assert code in (0, 1), run.errors
        assert "Traceback" not in run.errors
        if code:
            figures.fault("full disk")
            complaint = run.errors.strip().splitlines()[-1]
            assert "disk is full" in complaint or "No space left" in complaint, run.errors
            assert "--resume" in complaint
        assert not any(s.record and s.record.state == "failed" for s in directory.states())
    last = start(*command, pinned=workers == 1)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)


def mount(*words: object) -> bool:
    return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0


def test_a_disk_that_turns_read_only(start, experiment: Path, reference, tiny: Path, figures, faults) -> None:
    """Under a running study, and under one that lies there: it may be looked at, and goes on when it can be written."""
    directory = StudyDir(tiny / "results", "small")
    command = ("sweep", experiment, "--resume", "--results", directory.path.parent)
    for _ in range(5):  # the disk cannot be remounted while a file is being written, and the study may end meanwhile
        run = start(*command)
        faults.wait_for(lambda r=run: r.poll() is not None or any(directory.states()))
        assert mount("--bind", tiny, tiny)
        faults.wait_for(lambda r=run: r.poll() is not None or mount("-o", "remount,bind,ro", tiny))
        if run.poll() != 0:
            break
        subprocess.run(["umount", "-l", str(tiny)], check=True)
        shutil.rmtree(directory.path.parent)
    try:
        figures.fault("read-only disk")
        assert run.wait() == 1, run.errors
        assert "Traceback" not in run.errors
        assert "Read-only file system" in run.errors or "readonly database" in run.errors
        assert "--resume" in run.errors
        again = start(*command)
        assert again.wait() == 1, again.errors
        assert "Read-only file system" in again.errors
        for looking in (
            ["leaderboard", "small"],
            ["status"],
            ["doctor", "small"],
            ["export", "small", "--to", tiny / "m"],
        ):
            look = start(*looking, "--results", directory.path.parent)
            assert look.wait() == 2 * int(looking[0] == "export"), look.errors
            assert "Traceback" not in look.errors
    finally:
        subprocess.run(["umount", "-l", str(tiny)], check=True)
    last = start(*command)
    assert last.wait() == 0, last.errors
    faults.check_promise(directory, figures)
    faults.check_identical(directory, reference, figures)
