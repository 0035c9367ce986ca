"""Benchmarks of what surrounds training: the command line, the leaderboard, the controller and the dashboard."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from suite.bench.measure import ROUNDS, Figure, timed
from suite.errors import WorkError
from suite.interpreter import command

if TYPE_CHECKING:
    from suite.store.study import StudyDir

RECORDS = 10_000  # rows of `leaderboard`

SIZES = (10, 100, 1_000, 5_000, 10_000)  # trials that the study of `scale` already has when it is resumed

TRAINED = 20  # trials that are trained after resuming, at each of these sizes


def startup() -> Iterator[Figure]:
    """The time until `mnist-suite --help` has printed."""
    words = command("--help")
    times = [timed(lambda: subprocess.run(words, capture_output=True, check=True)) for _ in range(2 * ROUNDS + 1)]
    times = times[1:]
    yield "startup.help", statistics.median(times), "s", f"median of {len(times)} processes, after a warm-up"


def leaderboard() -> Iterator[Figure]:
    """Reading 10,000 records from disk, and ranking them in memory."""
    from suite.ranking.leaderboard import rank, row
    from suite.store.study import studies
    from tui.testing.synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, states=["finished"] * RECORDS, epochs=3)
        study = studies(root)[0]
        begin = time.perf_counter()
        states = study.states()
        yield "leaderboard.read", time.perf_counter() - begin, "s", f"{len(states)} trials from disk, once"
        rows = [row(study.name, state) for state in states]
        times = [timed(lambda: rank(rows)) for _ in range(ROUNDS)]
        yield "leaderboard.rank", statistics.median(times), "s", f"{len(rows)} rows, median of {ROUNDS}"


def scale() -> Iterator[Figure]:
    """The suite's own time for a trial, and the memory of its controller, as a study grows.

    A study is filled with synthetic trials. Then a controller resumes it for real ones, which train so little that
    nearly all of their time is the suite's own. All trials belong to one arm, the worst case for the sampler.
    """
    from suite.data.fetch import fetch
    from suite.store.study import StudyDir

    fetch("mnist")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tiny.py").write_text(TINY)
        for size in SIZES:
            fill(root, size)
            words = ["sweep", str(root / "tiny.py"), "--trials", str(size + TRAINED), "--results", folder, "--resume"]
            begin = time.time()
            controller = subprocess.Popen(command(*words, "--quiet"), stdout=subprocess.DEVNULL)
            try:
                _, code, used = os.wait4(controller.pid, 0)
            except BaseException:  # a signal that ends this command
                controller.kill()
                controller.wait()
                raise
            if code:
                raise WorkError(f"`{' '.join(['mnist-suite', *words])}` failed.")
            starts, ends = trainings(StudyDir(root, "tiny"), begin)
            own = [later - end for end, later in zip(ends, starts[1:])]
            how = f"between two trainings, median of {len(own)}, from trial {size} of one arm on"
            yield f"scale.{size}.trial", statistics.median(own), "s", how
            yield f"scale.{size}.resume", starts[0] - begin, "s", "from the start of Python until the first training"
            yield (
                f"scale.{size}.memory",
                used.ru_maxrss / 2**10,
                "MiB",
                "peak resident, the controller with its training",
            )


def trainings(study: StudyDir, since: float) -> tuple[list[float], list[float]]:
    """When trainings began and ended, in seconds since 1970: those after `since`, in order, of one at a time."""
    from suite.store.events import EventReader

    now = time.time()  # synthetic trials have later times
    starts: list[float] = []
    ends: list[float] = []
    for trial in study.trials():
        if not trial.events.exists() or trial.events.stat().st_mtime < since:
            continue
        for line in EventReader(trial.events).poll():
            if not since <= line.time <= now:
                continue
            if line.event.kind == "started":
                starts.append(line.time)
            elif line.event.kind in ("paused", "finished", "pruned", "failed"):
                ends.append(line.time)
    return sorted(starts), sorted(ends)


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
    """Add synthetic trials that fit the experiment TINY to its study, until there are `size`."""
    from suite.data.datasets import describe
    from suite.search.pruning import stages
    from suite.spec import Trial, resolved
    from suite.spec.load import load_experiment
    from suite.store.study import StudyDir
    from tui.testing.synthetic import write_trial

    experiment = load_experiment(str(root / "tiny.py"))
    study = StudyDir(root, "tiny")
    info = describe(experiment.dataset, limit=experiment.limit).info
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
            stages=stages(experiment.pruning, arm.recipe.epochs),
        )
        write_trial(study, number, rng.choice(("finished", "pruned", "pruned")), epochs=arm.recipe.epochs, trial=trial)


def tui() -> Iterator[Figure]:
    """Time and memory of the dashboard; see `tui.testing.bench`."""
    from tui.testing.bench import BUDGETS
    from tui.testing.bench import bench as measure

    for name, value in measure().items():
        unit = "MiB" if name.endswith("mib") else "B/s" if name.endswith("bytes") else "s"
        yield f"tui.{name}", value, unit, f"budget {BUDGETS[name]:g} {unit}"
