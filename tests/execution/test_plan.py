"""What is refused before a study begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from suite.errors import InputError
from suite.execution.options import Options, best_workers
from suite.execution.plan import check
from suite.spec import Caps, Experiment

CAPPED = Caps(latency=0.5)


@pytest.mark.parametrize("competing", [{"workers": 2}, {"engine": "ray", "workers": 0}, {"engine": "ray"}])
def test_latency_is_not_capped_where_trials_compete(
    made: Callable[..., Experiment], tmp_path: Path, competing: dict[str, object]
) -> None:
    """A model would pass the cap or not by how much else ran while it was timed."""
    options = replace(Options(device="cpu"), **competing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"caps the latency .*--max-flops") as refused:
        check(made(caps=CAPPED), tmp_path, options)
    assert "\n" not in str(refused.value)
    check(made(caps=Caps(flops=10**9)), tmp_path, options)  # counted, so the load has no part in it


def test_latency_is_capped_where_one_trial_runs_at_a_time(made: Callable[..., Experiment], tmp_path: Path) -> None:
    """In a population, trials take turns in one process, so nothing else runs during a measurement."""
    for options in (Options(), Options(population=4), Options(trial_seconds=60.0), Options(workers=0)):
        check(made(caps=CAPPED), tmp_path, replace(options, device="cpu"))
    assert best_workers(made(caps=CAPPED), "cpu") == 1


@pytest.mark.slow
def test_the_command_line_says_why_a_latency_cap_allows_one_worker(suite: Callable[..., object]) -> None:
    done = suite("sweep", "mnist", "--max-latency", "5", "--workers", "2", "--limit", "100")
    assert done.returncode == 2  # type: ignore[attr-defined]
    assert "Leave out --workers" in done.stderr  # type: ignore[attr-defined]
