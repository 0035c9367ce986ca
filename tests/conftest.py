"""Shared by all tests: real data in the cache, small slices of it, and a way to run the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.spec import Trial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and so do the programs that they start

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """A trial of the tutorial's cnn, with changes."""

    def make(**changes: object) -> Trial:
        facts: dict[str, object] = {
            "study": "s",
            "arm": "a",
            "number": 3,
            "dataset": "mnist",
            "data_hash": "d",
            "split_hash": "h",
            "fraction": 1.0,
            "backbone": "cnn",
            "weights": None,
            "size": None,
            "strategy": {"kind": "scratch"},
            "recipe": {},
            "params": {},
            "seed": 1,
            "device": "cpu",
            "threads": 1,
        }
        return Trial.model_validate(facts | changes)

    return make


@pytest.fixture
def suite(tmp_path: Path) -> Command:
    """Runs `mnist-suite ...` as a person would, in an empty folder with its results beside."""

    def run(*arguments: object, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "suite.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "MNIST_SUITE_RESULTS": str(tmp_path / "results"), **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
