"""What is refused before a study begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from suite.errors import InputError
from suite.execution.options import Options, best_workers
from suite.execution.plan import check
from suite.hardware.budget import result
from suite.spec import Arm, Caps, Choice, Experiment, Pretraining, Recipe

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
    assert result(best_workers(made(caps=CAPPED), "cpu")) == 1


def arms(backbone: str, batch_size: int, strategy: dict[str, object]) -> dict[str, Arm]:
    weights = "experiment" if strategy["kind"] not in ("scratch", "pretrain") else None
    recipe = Recipe(batch_size=batch_size)
    return {
        "one": Arm.model_validate({"backbone": backbone, "strategy": strategy, "weights": weights, "recipe": recipe})
    }


REFUSED = [{"kind": kind} for kind in ("scratch", "full", "norm-only", "bitfit", "lp-ft", "lora")]


@pytest.mark.parametrize("strategy", REFUSED, ids=lambda strategy: strategy["kind"])
def test_batches_of_one_are_refused_where_batch_norm_trains(
    made: Callable[..., Experiment], tmp_path: Path, strategy: dict[str, object]
) -> None:
    def refuse(experiment: Experiment) -> None:
        with pytest.raises(InputError, match=r"batches of one image, but lean-m has batch norm.*batch_size=N"):
            check(experiment, tmp_path, Options(device="cpu"))

    pretraining = Pretraining(dataset="mnist", backbone="lean-m")
    plan = made().model_copy(update={"arms": arms("lean-m", 1, strategy), "space": {}, "pretraining": pretraining})
    refuse(plan)
    chosen = {"batch_size": Choice(values=(16, 1))}
    refuse(plan.model_copy(update={"arms": arms("lean-m", 16, strategy), "space": chosen}))
    check(plan.model_copy(update={"arms": arms("lean-m", 2, strategy)}), tmp_path, Options(device="cpu"))


def test_batches_of_one_train_a_network_without_batch_norm(made: Callable[..., Experiment], tmp_path: Path) -> None:
    plan = made().model_copy(update={"arms": arms("net", 1, {"kind": "full"}), "space": {}})
    check(plan, tmp_path, Options(device="cpu"))


@pytest.mark.parametrize(
    "strategy",
    [{"kind": "head"}, {"kind": "partial", "blocks": 1}, {"kind": "lora", "norms": False}],
    ids=lambda s: s["kind"],
)
def test_batches_of_one_train_what_leaves_batch_norm_frozen(
    made: Callable[..., Experiment], tmp_path: Path, strategy: dict[str, object]
) -> None:
    pretraining = Pretraining(dataset="mnist", backbone="lean-m")
    plan = made().model_copy(update={"arms": arms("lean-m", 1, strategy), "space": {}, "pretraining": pretraining})
    check(plan, tmp_path, Options(device="cpu"))


@pytest.mark.slow
def test_the_command_line_says_why_a_latency_cap_allows_one_worker(suite: Callable[..., object]) -> None:
    done = suite("sweep", "mnist", "--max-latency", "5", "--workers", "2", "--limit", "100")
    assert done.returncode == 2  # type: ignore[attr-defined]
    assert "Leave out --workers" in done.stderr  # type: ignore[attr-defined]
