"""Checks and decisions before a study starts: options, data, weights, number of workers."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from suite.data.datasets import search_splits
from suite.data.splits import Info
from suite.errors import InputError
from suite.execution.inline import Inline
from suite.execution.job import Executor, Limits
from suite.execution.processes import Processes
from suite.execution.stacked import Together
from suite.hardware import autotune, device
from suite.models import backbones, pretrained
from suite.models.preprocessing import SMALL_SIZE, preprocess
from suite.search.storage import open_storage
from suite.spec import (
    Arm,
    Experiment,
    Weights,
)
from suite.store.files import file_sha256
from suite.store.study import find_trial, open_study, split_reference
from suite.training.checkpoint import checkpoint_seconds

AUTO_POPULATION_CPU = 8  # of heads, which are one product; a larger share of the search would be blind to the rest

AUTO_POPULATION_GPU = 32


@dataclass(frozen=True)
class Options:
    """How to run a study, as opposed to what: nothing here may change a figure."""

    workers: int = 1  # 0: as many as `best_workers` finds
    population: int = 1  # trials at once in one process, those alike as one stacked model; 0: where that pays
    device: str = "auto"
    storage: str | None = None
    resume: bool = False
    command: str = ""
    trial_seconds: float | None = None  # that one attempt at a trial may take
    trial_memory: int | None = None  # bytes of main memory that it may take
    engine: Literal["local", "ray"] = "local"

    @property
    def limits(self) -> Limits:
        return Limits(self.trial_seconds, self.trial_memory)

    def check(self) -> None:
        """Refuse what does not go together. Raises InputError."""
        if self.population != 1 and (self.workers > 1 or self.limits != Limits() or self.engine != "local"):
            raise InputError(
                "--population trains trials together in one process: leave out --workers, --trial-timeout, "
                "--memory-limit and --engine."
            )
        if self.engine == "local":
            device.pick(self.device)
        elif self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"--device {self.device}: on a cluster it is auto, cpu or cuda.")

    def executor(self, results: Path) -> Executor:
        """Raises InputError where the engine is not to be had."""
        limits = self.limits
        if self.engine == "ray":
            from suite.execution.ray_cluster import Cluster

            return Cluster(self.workers, limits, self.device, results)
        if self.population != 1:
            many = AUTO_POPULATION_GPU if device.pick(self.device).type == "cuda" else AUTO_POPULATION_CPU
            return Together(self.population or many, everywhere=self.population > 1)
        return Inline() if self.workers == 1 and limits == Limits() else Processes(self.workers, limits)


def check(experiment: Experiment, results: Path, options: Options) -> None:
    """Refuse what cannot run before anything is written or trained. Raises InputError."""
    options.check()
    checkpoint_seconds()
    if options.storage is not None:
        open_storage(results, options.storage)
    for name, arm in experiment.arms.items():
        backbones.exists(arm.backbone)
        splits = search_splits(experiment.dataset, fraction=arm.fraction, limit=experiment.limit)
        if arm.weights == "pretrained":
            pretrained.find_pretrained(arm.backbone)
        elif arm.weights not in (None, "experiment"):
            given = weights_of(arm.weights, results)
            if os.path.isabs(given.source):  # a stranger's file: better refused here than by a trial that fails
                _check_weights(arm, splits.info, given.source)
        choices = {**experiment.space, **arm.space}.get("batch_size")
        sizes = [v for v in getattr(choices, "values", ()) if isinstance(v, int)] or [arm.recipe.batch_size]
        if max(sizes) > len(splits.train.labels):
            raise InputError(
                f"Arm '{name}' may use batches of {max(sizes)}, but has only {len(splits.train.labels)} training "
                "images; take smaller batches (--set batch_size=N) or more data."
            )


def _check_weights(arm: Arm, info: Info, source: str) -> None:
    """Raises InputError where they cannot be read, or are not for this architecture."""
    name, classes, channels = arm.backbone, len(info.classes), info.channels
    expects = preprocess(
        name, channels=channels, native_size=info.size, mean=info.mean, std=info.std, size=arm.size, pretrained=False
    )
    model = backbones.build(name, classes=classes, channels=channels, size=expects.size, seed=0)
    pretrained.load_pretrained(name, model, source)


def best_workers(experiment: Experiment, place: str) -> int:
    """As many trials at once as every arm gains from; one where anything else than small models on a CPU is trained."""
    if device.pick(place).type != "cpu":
        return 1
    info = search_splits(experiment.dataset, limit=experiment.limit).info
    found = [device.cores()]
    for arm in experiment.arms.values():
        if arm.strategy.kind == "head":
            continue
        size = arm.size or (info.size if arm.backbone in backbones.BACKBONES else SMALL_SIZE)
        model = backbones.build(
            arm.backbone, classes=len(info.classes), channels=info.channels, size=size, seed=experiment.seed
        )
        dtype = device.precision(arm.recipe.precision, device.pick(place), model, training=True)
        found.append(autotune.workers(model, (info.channels, size, size), dtype)[0])
    return min(found)


def single(name: str, arm: Arm, dataset: str, *, seed: int, limit: int | None) -> Experiment:
    """The experiment of one training."""
    return Experiment(
        name=name,
        question=f"One training of {arm.backbone} by {arm.strategy.kind} on {dataset}.",
        dataset=dataset,
        arms={arm.strategy.kind: arm},
        trials=1,
        pruning=None,
        seed=seed,
        limit=limit,
    )


def pretraining_of(experiment: Experiment) -> Experiment:
    """The one-trial study that an experiment's arms stand on; equal pretrainings share it."""
    assert experiment.pretraining is not None
    plan = experiment.pretraining
    arm = Arm.model_validate(
        {"backbone": plan.backbone, "strategy": {"kind": "pretrain"}, "recipe": plan.recipe.model_dump()}
    )
    return single(
        auto_name("pretrain", arm, plan.dataset, experiment.seed, experiment.limit),
        arm,
        plan.dataset,
        seed=experiment.seed,
        limit=experiment.limit,
    )


def auto_name(verb: str, arm: Arm, dataset: str, seed: int, limit: int | None) -> str:
    """A study name that is the same for the same training, so that asking twice does the work once."""
    content = f"{arm.model_dump_json()} {dataset} {seed} {limit}"
    plain = "".join(c if c.isalnum() else "-" for c in f"{arm.backbone.removeprefix('timm:')}-{dataset}")[:48]
    return f"{verb}-{plain.strip('-')}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def weights_of(reference: str, results: Path) -> Weights:
    """Weights by name: 'pretrained', a file or a folder, or STUDY[/TRIAL] below the results. Raises InputError."""
    if reference == "pretrained":
        return Weights(source="pretrained")
    path = Path(reference).expanduser()
    if path.exists():
        path = path.absolute()
        if path.is_dir():
            path = path / "model.safetensors"
            if not path.is_file():
                raise InputError(f"The folder {reference} holds no model.safetensors to start from.")
        if not path.is_file():
            raise InputError(f"{reference} is no plain file, so it holds no weights to start from.")
        return Weights(source=str(path), sha256=file_sha256(path))
    study_name, trial_id = split_reference(reference)
    try:
        study = open_study(results, study_name)
    except InputError as error:
        raise InputError(
            f"There are no weights '{reference}': it is neither a file or folder nor a study or trial in {results}. "
            f"{error}"
        ) from None
    state = find_trial(study, trial_id)
    best = study.trial(state.id).best
    if not best.is_file() or state.trial.strategy.kind == "head":
        raise InputError(
            f"Trial {study.name}/{state.id} has no whole model to start from (strategy {state.trial.strategy.kind}, "
            f"{state.state}); choose a finished trial that trained its backbone, or export it first."
        )
    digest = file_sha256(best)
    if state.record is not None and digest != state.record.artifact_sha256:
        raise InputError(
            f"{best} is damaged: its SHA-256 is not the one in result.json. `mnist-suite doctor {study.name} --repair` "
            "sets the trial aside, to be trained again."
        )
    return Weights(source=str(best.relative_to(results)), sha256=digest)
