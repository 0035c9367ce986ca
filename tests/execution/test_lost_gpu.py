"""A GPU that no longer answers its process: executors in the controller's own process end the study's run.

No GPU is needed: `healthy` is replaced by one that finds it lost from some moment on. The `gpu` test loses a real one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from suite.errors import WorkError
from suite.execution import attempt, stacked
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.spec import Arm, Experiment, LogFloat, Recipe
from suite.store.study import StudyDir
from suite.training.stacking import Population

TRIALS = 4

EXPERIMENT = Experiment(
    name="lost",
    question="What does a lost GPU cost?",
    dataset="mnist",
    arms={"net": Arm(backbone="net", recipe=Recipe(epochs=1, batch_size=32, precision="fp32"))},
    space={"lr": LogFloat(low=1e-2, high=0.1)},
    pruning=None,
    trials=TRIALS,
    limit=300,
)


def lose_gpu(patch: pytest.MonkeyPatch) -> None:
    for module in (attempt, stacked):
        patch.setattr(module, "healthy", lambda: False)


def run(results: Path, population: int) -> None:
    options = Options(device="cpu", population=population, resume=True, command="a test")
    for _ in sweep(EXPERIMENT, results, options=options, stop=Stop()):
        pass


def ended(results: Path) -> list[str]:
    return [state.record.state for state in StudyDir(results, "lost").states() if state.record is not None]


def check_resumed(results: Path, population: int, failed: int) -> None:
    run(results, population)
    assert sorted(ended(results)) == ["failed"] * failed + ["finished"] * (TRIALS - failed)


def test_one_at_a_time_no_trial_begins_after_the_gpu_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        lose_gpu(patch)
        with pytest.raises(WorkError, match=r"GPU no longer answers.*--resume"):
            run(tmp_path, population=1)
    assert ended(tmp_path) == ["finished"]
    check_resumed(tmp_path, 1, failed=0)


def failing(count: int, patch: pytest.MonkeyPatch) -> Callable[..., dict[object, Exception]]:
    """Steps of a population of which `count` trials fail once two steps were taken, as the GPU is lost."""
    take, steps_taken = Population.run_steps, 0

    def steps(self: Population, steps: list) -> dict[object, Exception]:
        nonlocal steps_taken
        steps_taken += 1
        if steps_taken <= 2:
            return take(self, steps)
        lose_gpu(patch)
        return {step.training: RuntimeError("CUDA error: an illegal memory access") for step in steps[:count]}

    return steps


@pytest.mark.parametrize("count", [1, TRIALS])
def test_of_trials_that_run_together_only_the_one_to_blame_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Where the step of a stack has failed no single trial is to blame, so that none is recorded as failed."""
    failed = 1 if count == 1 else 0
    with monkeypatch.context() as patch:
        patch.setattr(Population, "run_steps", failing(count, patch))
        with pytest.raises(WorkError, match=r"GPU no longer answers.*--resume"):
            run(tmp_path, population=TRIALS)
    assert ended(tmp_path) == ["failed"] * failed
    check_resumed(tmp_path, TRIALS, failed)


LOST = """
import sys
from pathlib import Path

import torch

from suite.data.datasets import search_splits
from suite.errors import WorkError
from suite.execution.inline import Inline
from suite.execution.job import Job
from suite.spec import Recipe, Trial
from suite.store.study import StudyDir

results = Path(sys.argv[1])
study, info, executor = StudyDir(results, "lost"), search_splits("mnist", limit=300).info, Inline()
facts = {"study": "lost", "arm": "net", "dataset": "mnist", "data_hash": info.data_hash, "fraction": 1.0, "limit": 300,
         "split_hash": info.split_hash, "backbone": "net", "weights": None, "size": None, "params": {}, "seed": 1,
         "strategy": {"kind": "scratch"}, "recipe": Recipe(epochs=3, batch_size=32, precision="fp32").model_dump(),
         "device": "cuda", "threads": 1}
jobs = []
for number in range(2):
    trial = Trial.model_validate(facts | {"number": number})
    study.trial(trial.id).create(trial)
    jobs.append(Job(trial, trial.id, str(study.trial(trial.id).path), str(results), f"a{number}", ""))
executor.submit(jobs[0])
assert executor.poll(0.2)[0].event.kind == "started"
try:  # an index that is out of range, checked on the device
    torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")]
    torch.cuda.synchronize()
except RuntimeError:
    pass
while executor.free() == 0:
    executor.poll(0.2)
try:
    executor.submit(jobs[1])
except WorkError as error:
    print(error)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_gpu_that_is_lost_fails_one_trial_and_ends_the_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOST, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert "The GPU no longer answers" in done.stdout, done.stderr
    assert ended(tmp_path) == ["failed"]
