"""Benchmarks: ours and the plain alternative in turn, in one run, so that only ratios within it count.

Every benchmark is a generator of (name, value, unit, how it was obtained); `bench` collects them.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suite.errors import InputError, WorkError

ROUNDS = 3  # of each side, in turn; the median counts

RECORDS = 10_000  # rows of `leaderboard`

SIZES = (10, 100, 1_000, 5_000)  # trials that a study has when `scale` measures what more of them cost

REAL = 20  # trials trained at each of these sizes

Figure = tuple[str, float, str, str]


def startup() -> Iterator[Figure]:
    """The time until `mnist-suite --help` has printed."""
    command = [sys.executable, "-m", "suite.cli", "--help"]
    times = [_seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(2 * ROUNDS + 1)]
    times = times[1:]
    yield "startup.help", statistics.median(times), "s", f"median of {len(times)} processes, after a warm-up"


def leaderboard() -> Iterator[Figure]:
    """Ranking and printing 10,000 records that are in memory, and reading them from disk first."""
    from suite.ranking import leaderboard as ranking_leaderboard
    from suite.store import study as store_study
    from tui.testing.synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, states=["finished"] * RECORDS, epochs=3)
        study = store_study.studies(root)[0]
        begin = time.perf_counter()
        states = study.states()
        yield "leaderboard.read", time.perf_counter() - begin, "s", f"{len(states)} trials from disk, once"
        rows = [ranking_leaderboard.row(study.name, state) for state in states]
        times = [_seconds(lambda: ranking_leaderboard.rank(rows)) for _ in range(ROUNDS)]
        yield "leaderboard.rank", statistics.median(times), "s", f"{len(rows)} rows, median of {ROUNDS}"


def scale() -> Iterator[Figure]:
    """What the suite itself takes for a trial, and the memory of its controller, while one study grows.

    Made-up trials fill the study; then a controller resumes it for real ones, which learn so little that nearly all
    of their time is the suite's. All of them belong to one arm, the worst case for the sampler.
    """
    from suite.data import fetch
    from suite.store.study import StudyDir

    fetch.fetch("mnist")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tiny.py").write_text(TINY)
        for size in SIZES:
            fill(root, size)
            command = [sys.executable, "-m", "suite.cli", "sweep", str(root / "tiny.py"), "--trials", str(size + REAL)]
            begin = time.time()
            controller = subprocess.Popen(
                [*command, "--results", folder, "--resume", "--quiet"], stdout=subprocess.DEVNULL
            )
            _, code, used = os.wait4(controller.pid, 0)
            if code:
                raise WorkError(f"`{' '.join(command)}` failed.")
            trials = [t for t in StudyDir(root, "tiny").trials() if int(t.id[:4]) >= size]
            asked = [(t.path / "trial.json").stat().st_mtime for t in trials]
            trained = [record.cost.train_seconds for t in trials if (record := t.record()) and record.cost]
            own = [later - at - seconds for at, later, seconds in zip(asked, asked[1:], trained)]
            how = f"from trial {size} of one arm on"
            yield f"scale.{size}.trial", statistics.median(own), "s", f"the suite's own, median of {len(own)}, {how}"
            yield f"scale.{size}.resume", asked[0] - begin, "s", "from the start of Python until the first new trial"
            yield (
                f"scale.{size}.memory",
                used.ru_maxrss / 2**10,
                "MiB",
                "peak resident, the controller with its training",
            )


TINY = """
from suite.spec import Arm, Choice, Experiment, LogFloat, Pruning, Recipe, Uniform

EXPERIMENT = Experiment(
    name="tiny",
    question="What does the suite itself take for a trial?",
    dataset="mnist",
    arms={"net": Arm(backbone="net", recipe=Recipe(epochs=4, batch_size=32))},
    space={
        "lr": LogFloat(low=1e-4, high=1.0),
        "momentum": Uniform(low=0.0, high=0.99),
        "batch_size": Choice(values=(16, 32, 64)),
    },
    pruning=Pruning(first=1, factor=2),
    limit=100,
)
"""


def fill(root: Path, size: int) -> None:
    """Make the study of TINY one of `size` trials, with made-up ones that fit it."""
    from suite.data.datasets import search_splits
    from suite.search import pruning
    from suite.spec import Trial, load, resolved
    from suite.store.study import StudyDir
    from tui.testing.synthetic import write_trial

    experiment = load.load(str(root / "tiny.py"))
    study = StudyDir(root, "tiny")
    info = search_splits(experiment.dataset, limit=experiment.limit).info
    arm = experiment.arms["net"]
    for number in range(len(study.trial_ids()), size):
        rng = random.Random(number)
        params = {
            "lr": 10 ** rng.uniform(-4, 0),
            "momentum": rng.uniform(0, 0.99),
            "batch_size": rng.choice((16, 32, 64)),
        }
        trial = Trial(
            study="tiny",
            arm="net",
            number=number,
            dataset=experiment.dataset,
            data_hash=info.data_hash,
            split_hash=info.split_hash,
            fraction=arm.fraction,
            limit=experiment.limit,
            backbone=arm.backbone,
            weights=None,
            size=arm.size,
            strategy=arm.strategy,
            recipe=resolved(arm, params).recipe,
            params=params,
            seed=0,
            device="auto",
            threads=0,
            rungs=pruning.rungs(experiment.pruning, arm.recipe.epochs),
        )
        write_trial(study, number, rng.choice(("finished", "pruned", "pruned")), epochs=arm.recipe.epochs, trial=trial)


def tui() -> Iterator[Figure]:
    """The dashboard's budgets."""
    from tui.testing.bench import BUDGETS
    from tui.testing.bench import bench as measure

    for name, value in measure().items():
        unit = "MiB" if name.endswith("mib") else "s"
        yield f"tui.{name}", value, unit, f"budget {BUDGETS[name]:g} {unit}"


def _race(name: str) -> Callable[[], Iterator[Figure]]:
    """A benchmark of training, imported when it runs."""

    def run() -> Iterator[Figure]:
        from suite.bench.training import RACES

        yield from RACES[name]()

    return run


BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "startup": startup,
    "leaderboard": leaderboard,
    "scale": scale,
    "tui": tui,
    **{
        name: _race(name)
        for name in ("train", "time-to-99", "finetune", "features", "head-sweep", "sweep", "population", "roofline")
    },
}


def bench(name: str | None) -> Iterator[Figure]:
    """One benchmark, or all of them. Raises InputError."""
    if name is not None and name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; there is: {', '.join(BENCHMARKS)}.")
    for each in [name] if name else BENCHMARKS:
        yield from BENCHMARKS[each]()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from suite.hardware import device
    from suite.store.provenance import packages

    place = device.pick("auto")
    return {"hardware": device.hardware(place), "date": time.strftime("%Y-%m-%d"), "torch": packages()["torch"]}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
