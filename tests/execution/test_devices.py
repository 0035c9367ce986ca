"""Several GPUs on one machine. They are fake: what is asked of them is watched, and the work is done on the CPU."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from suite.errors import InputError, WorkError
from suite.execution import processes
from suite.execution.job import Job
from suite.execution.options import Options, best_workers
from suite.execution.plan import check
from suite.execution.processes import Processes
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.hardware import device
from suite.hardware.budget import result
from suite.hardware.openmp import CHOICES, SPINS
from suite.spec import Arm, Caps, Experiment, LogFloat, Recipe, Trial
from suite.store.study import StudyDir

GPUS = 4

TRIALS = 4

EXPERIMENT = Experiment(
    name="spread",
    question="Which device does a trial get?",
    dataset="mnist",
    arms={"net": Arm(backbone="net", recipe=Recipe(epochs=1, batch_size=32, precision="fp32"))},
    space={"lr": LogFloat(low=1e-2, high=0.1)},
    pruning=None,
    trials=TRIALS,
    limit=100,
)

# In each worker process: what it sees is written down, and GPUs that are named in the file $LOST do not answer.
IN_A_WORKER = """
import os, pathlib

mine = os.environ.get("CUDA_VISIBLE_DEVICES")
if mine:
    lost = pathlib.Path(os.environ["LOST"])
    lost.with_name(f"seen-{os.getpid()}").write_text(f"{mine} {os.environ.get('GOMP_SPINCOUNT')}")
    if os.environ.get("FAKE"):
        import torch
        from suite.hardware import device
        device.answers = lambda place: mine not in lost.read_text().split()
        device.pick = lambda wanted: {"cuda": torch.device("cpu")}[wanted]
"""


@pytest.fixture(autouse=True)
def _four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: GPUS)


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Workers on fake GPUs; returns the file of those that are lost."""
    (tmp_path / "sitecustomize.py").write_text(IN_A_WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "lost"
    file.touch()
    monkeypatch.setenv("LOST", str(file))
    yield file


def run(experiment: Experiment, results: Path, options: Options) -> None:
    for _ in sweep(experiment, results, options=options, stop=Stop()):
        pass


@pytest.mark.parametrize(("wanted", "workers"), [("auto", GPUS), ("cuda", GPUS), ("cuda:2", 1), ("cuda:1,cuda:3", 2)])
def test_auto_is_a_worker_a_gpu(wanted: str, workers: int) -> None:
    assert result(best_workers(EXPERIMENT, wanted)) == workers


@pytest.mark.parametrize(
    ("workers", "wanted", "places"),
    [
        (4, "auto", [0, 1, 2, 3]),
        (6, "cuda", [0, 1, 2, 3, 0, 1]),
        (2, "cuda", [0, 1]),
        (3, "cuda:3,cuda:1", [3, 1, 3]),
        (2, "cuda:2", [2, 2]),
    ],
)
def test_workers_are_spread_evenly(workers: int, wanted: str, places: list[int], tmp_path: Path) -> None:
    options = Options(workers=workers, device=wanted)
    options.check()
    executor = options.executor(tmp_path)
    assert isinstance(executor, Processes) and executor.slots == workers
    assert executor.threads == max(1, device.cores() // workers)
    assert [place.index for place in executor._places] == places


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options(device="cuda:1,cuda:3"), r"devices idle with --workers 1: take --workers 2 or more, or auto"),
        (Options(device="cuda:0,cuda:1,cuda:2", workers=2), r"idle with --workers 2: take --workers 3"),
        (Options(device="cuda:1,cuda:3", population=4), r"--population"),
        (Options(device="cuda:1,cuda:7", workers=0), r"cuda:7"),
        (Options(device="cuda:1,cuda:3", workers=2, engine="ray"), r"on a cluster"),
    ],
)
def test_devices_that_would_be_idle_or_are_not_there_are_refused(options: Options, why: str) -> None:
    with pytest.raises(InputError, match=why):
        options.check()


def test_a_cap_on_latency_wants_one_device(tmp_path: Path) -> None:
    capped = EXPERIMENT.model_copy(update={"caps": Caps(latency=1.0)})
    with pytest.raises(InputError, match="name one --device"):
        check(capped, tmp_path, Options(device="cuda:1,cuda:3", workers=0))
    assert result(best_workers(capped, "cuda")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("population", [1, 3])
def test_in_one_process_trials_train_on_the_chosen_device(
    population: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def pick(wanted: str) -> torch.device:
        asked[wanted] += 1
        return torch.device("cpu")

    monkeypatch.setattr(device, "pick", pick)
    run(EXPERIMENT, tmp_path, Options(device="cuda:2", population=population))
    assert set(asked) == {"cuda:2"} and asked["cuda:2"] >= TRIALS
    assert all(state.state == "finished" for state in StudyDir(tmp_path, "spread").states())


def test_each_worker_sees_its_own_gpu(
    lost: Path, tmp_path: Path, make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "work", print)  # the processes end at once
    for name in CHOICES:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    executor = Processes(3, devices=[torch.device("cuda:1"), torch.device("cuda:3")])
    for number in range(3):
        trial = make_trial(number=number, device="cuda:1")
        executor.submit(Job(trial, trial.id, str(tmp_path), str(tmp_path), f"a{number}", ""))
    for worker in executor._workers:
        worker.process.join()
    assert {worker.job.trial.device for worker in executor._workers if worker.job} == {"cuda"}
    executor.close()
    seen = [path.read_text().split() for path in tmp_path.glob("seen-*")]
    assert sorted(seen) == [["1", str(SPINS)], ["1", str(SPINS)], ["3", str(SPINS)]]
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_lost_gpu_costs_its_own_worker_only(lost: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial that was sent there is run on the other one, and no further one is sent."""
    monkeypatch.setenv("FAKE", "1")
    lost.write_text("3")
    options = Options(device="cuda:1,cuda:3", workers=0, resume=True)
    run(EXPERIMENT, tmp_path, options)
    states = StudyDir(tmp_path, "spread").states()
    assert [state.state for state in states] == ["finished"] * TRIALS
    assert {state.trial.device for state in states} == {"cuda:1"}  # of the search; a worker sees its own as 'cuda'
    lost.write_text("1 3")
    with pytest.raises(WorkError, match=r"No GPU answers.*--resume"):
        run(EXPERIMENT.model_copy(update={"trials": TRIALS + 2}), tmp_path, options)
    assert sum(state.record is not None for state in StudyDir(tmp_path, "spread").states()) == TRIALS
