"""The files that a study leaves behind: costs, provenance, trial records, the study's status."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator

from suite.spec.base import SCHEMA, Count, Epoch, Moment, Name, Spec, Unit
from suite.spec.experiment import Experiment


class Cost(Spec):
    """Measured unless said otherwise. None: not known."""

    parameters: Count
    trainable: Count
    forward_flops: Count  # per image; a multiply-add is two; counted, not timed
    training_flops: Count  # all images seen: forward + backward through what is trained; 0 for knn heads
    setup_flops: Count = 0  # feature extraction, where this trial was the one to do it
    flops_source: str = "torch.utils.flop_counter, eager, meta device"  # how the three above were counted
    wall_seconds: float  # the whole trial, all attempts
    train_seconds: float  # of the device: optimisation alone, no evaluation in it
    setup_seconds: float  # data, weights, feature extraction where they were not cached
    images_per_second: float
    peak_memory_bytes: Count
    memory_source: str  # "cuda allocator" or "resident set"
    energy_joules: float | None
    energy_source: str  # "nvml", "rapl", "unavailable", "unattributable (...)"
    latency_seconds: float | None = None  # one image through the finished model, in fp32, at its fastest
    latency_256_seconds: float | None = None  # 256 images at once; None where that would have taken long


class Provenance(Spec):
    version: str
    command: str
    commit: str | None
    python: str
    packages: dict[str, str]
    host: str
    hardware: str
    threads: Count
    precision: str  # what 'auto' came to
    data_sha256: str | None = None  # of the training files
    split_sha256: str | None = None  # of which images are for training and which for validation
    weights: str | None = None
    weights_sha256: str | None = None


class Record(Spec):
    """result.json: written last, so its presence says that the trial is over."""

    schema_version: Literal[1] = SCHEMA
    trial: str
    arm: Name
    state: Literal["finished", "pruned", "failed"]
    attempt: str
    accuracy: Unit | None = None  # best on validation
    loss: float | None = None
    epoch: Epoch | None = None  # at which it was best
    images: Count = 0  # in the validation split
    steps: Count = 0
    curve: tuple[tuple[Epoch, Unit], ...] = ()  # (epoch, validation accuracy)
    reason: str | None = None  # of pruned and failed
    cost: Cost | None = None
    provenance: Provenance | None = None
    artifact: Name | None = None  # "best.safetensors"
    artifact_sha256: str | None = None
    accuracy_fp32: Unit | None = None  # of the artifact on validation in float32, whatever it was trained in
    started: Moment = 0.0
    ended: Moment = 0.0

    @field_validator("accuracy", "loss")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be finite")
        return value


class Bin(Spec):
    """Predictions whose confidence, the probability of the predicted class, is in (low, high]."""

    low: float
    high: float
    count: Count
    confidence: float  # mean
    accuracy: float


class Mistake(Spec):
    """One misclassified image."""

    index: Count  # in its split
    label: Count
    predicted: Count
    probability: float  # of the predicted class
    pixels: tuple[tuple[int, ...], ...]  # (H, W), 0..255, mean over the channels


class Mistakes(Spec):
    """validation.json: what a model gets wrong on a set of labelled images. test.json has these fields too."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[Count, ...], ...]  # counts [label][predicted]
    ece: float | None = None  # expected calibration error, 0..1; None in files of versions that did not compute it
    bins: tuple[Bin, ...] = ()  # reliability diagram; empty in such files
    worst: tuple[Mistake, ...] = ()  # the most confident mistakes, most confident first


class Status(Spec):
    """status.json: the controller's sign of life."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    state: Literal["running", "done", "stopped", "failed"]
    pid: Count
    host: str
    started: Moment
    heartbeat: Moment
    planned: Count
    finished: Count = 0
    pruned: Count = 0
    failed: Count = 0
    running: tuple[str, ...] = ()
    best_trial: str | None = None
    best_accuracy: float | None = None
    eta_seconds: float | None = None
    workers: Count = 1
    message: str = ""


class StudyFile(Spec):
    """study.json: the resolved experiment and what it stands on."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    created: Moment
    experiment: Experiment
    data_hash: str
    split_hash: str
    classes: tuple[str, ...]
    version: str
    packages: dict[str, str]
    storage: str = "sqlite"  # never the URL: it may hold a password
