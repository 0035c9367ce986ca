"""How a study is run: the options, and the executor and number of workers that they stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.data.datasets import describe
from suite.errors import InputError
from suite.execution.inline import Inline
from suite.execution.job import Executor, Limits
from suite.execution.processes import Processes
from suite.execution.stacked import Together
from suite.hardware import autotune, device
from suite.hardware.memory import usable_bytes
from suite.models.assembly import build
from suite.models.preprocessing import of_arm
from suite.spec import Experiment, Preprocess

AUTO_POPULATION_CPU = 8  # heads only, whose stacked training is one product; more would search without feedback

AUTO_POPULATION_GPU = 32

WORKER_BYTES = 1 << 30  # of main memory that a worker process is assumed to take: torch, small images, a small model


@dataclass(frozen=True)
class Options:
    """How to run a study, as opposed to what to run: nothing here changes a trial's result."""

    workers: int = 1  # trials at once, each in a process of its own; 0: as many as `best_workers` finds
    population: int = 1  # trials at once in one process, those of one architecture stacked; 0: where that is faster
    device: str = "auto"  # as `device.chosen` takes it
    storage: str | None = None  # URL of an Optuna storage; None: SQLite in the study's directory
    resume: bool = False
    retry_failed: bool = False  # train failed trials of an earlier run again, whose cause may be mended
    skip_broken: bool = False  # leave out pictures that cannot be read; without it a new study refuses them
    command: str = ""  # for the record
    trial_seconds: float | None = None  # time limit of one attempt at a trial
    trial_memory: int | None = None  # bytes of main memory that a trial may take
    engine: Literal["local", "ray"] = "local"

    @property
    def limits(self) -> Limits:
        return Limits(self.trial_seconds, self.trial_memory)

    def check(self) -> None:
        """Refuse options that exclude each other. Raises InputError."""
        if self.population != 1 and (self.workers > 1 or self.limits != Limits() or self.engine != "local"):
            raise InputError(
                "--population trains trials together in one process: leave out --workers, --trial-timeout, "
                "--memory-limit and --engine."
            )
        if self.engine == "local":
            devices = device.chosen(self.device)
            listed = len(devices) if "," in self.device else 1
            if self.population != 1 and listed > 1:
                raise InputError(
                    f"--population trains in one process, on one device: --device {self.device} is several."
                )
            if 0 < self.workers < listed:
                raise InputError(
                    f"--device {self.device} would leave devices idle with --workers {self.workers}: take --workers "
                    f"{listed} or more, or auto."
                )
        elif self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {self.device}: on a cluster it is auto, cpu or cuda.")

    @property
    def first_device(self) -> str:
        """The device of a trial that runs in this process, and of measurements."""
        return self.device.partition(",")[0].strip()

    def executor(self, results: Path) -> Executor:
        """A new executor, which the caller closes. Raises InputError where the engine is not available."""
        limits = self.limits
        if self.engine == "ray":
            from suite.execution.ray_cluster import Cluster

            return Cluster(self.workers, limits, self.device, results)
        if self.population != 1:
            many = AUTO_POPULATION_GPU if device.pick(self.first_device).type == "cuda" else AUTO_POPULATION_CPU
            return Together(self.population or many, everywhere=self.population > 1)
        if self.workers == 1 and limits == Limits():
            return Inline()
        return Processes(self.workers, limits, device.chosen(self.device))


def best_workers(experiment: Experiment, place: str) -> Generator[None, None, int]:
    """The number of trials at once that makes every arm of the experiment fastest, on this machine.

    1 where latency is capped, which is measured in a quiet process. One for each accelerator, which one training fills.
    On the CPU as measured, and no more than its memory has room for. Yields before a measurement takes longer than
    `budget.WORD_SECONDS`.
    """
    if caps_latency(experiment):
        return 1
    devices = device.chosen(place)
    if devices[0].type != "cpu":
        return len(devices)
    data = describe(experiment.dataset, limit=experiment.limit)
    images: Counter[tuple[str, str, Preprocess]] = Counter()  # trained on, by backbone, precision and input
    for arm in experiment.arms.values():
        if arm.strategy.kind not in ("head", "int8"):
            epochs = arm.recipe.epochs * experiment.trials / len(experiment.arms)
            kind = (arm.backbone, arm.recipe.precision, of_arm(arm, data.info))
            images[kind] += round(epochs * arm.fraction * len(data.train_labels))
    found = min(device.cores(), max(1, usable_bytes() // WORKER_BYTES))
    for (backbone, precision, expects), trained_on in images.items():
        model = build(backbone, expects, classes=len(data.info.classes), seed=experiment.seed)
        dtype = device.precision(precision, devices[0], model, training=True)
        best, _ = yield from autotune.workers(model, expects.shape, dtype, trained_on)
        found = min(found, best)
    return found


def caps_latency(experiment: Experiment) -> bool:
    return experiment.caps is not None and experiment.caps.latency is not None
