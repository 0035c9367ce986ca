"""Shared by all tests: real data in the cache, small slices of it, and a way to run the real command line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from suite.spec import Trial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, and so do the programs that they start

# One seed for whatever is random in a run of the fault tests; set before their processes start, so that they share it.
os.environ.setdefault("MNIST_SUITE_FAULT_SEED", str(random.SystemRandom().randrange(10**6)))

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the fault tests did, added up: figures of several runs can be added again."""
    reports = [r for group in terminalreporter.stats.values() for r in group if getattr(r, "when", "") == "teardown"]
    found = [value for report in reports for name, value in report.user_properties if name == "faults"]
    if not found:
        return
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for one in found:
        total.update({key: value for key, value in one.items() if isinstance(value, int)})
        faults.update(one["faults"])
    kinds = ", ".join(f"{kind} {count}" for kind, count in faults.most_common())
    terminalreporter.section("faults")
    for line in (
        f"seed {os.environ['MNIST_SUITE_FAULT_SEED']} (MNIST_SUITE_FAULT_SEED repeats it), {len(found)} tests",
        f"injected {faults.total()}: {kinds}",
        f"trials {total['planned']}: finished {total['finished']}, pruned {total['pruned']}, failed {total['failed']}, "
        f"lost {total['lost']}, duplicated {total['duplicated']}",
        f"studies resumed and compared {total['resumed']}, of them bit-identical {total['identical']}",
    ):
        terminalreporter.write_line(line)
