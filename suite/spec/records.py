"""The files of a study other than trial.json: result.json with cost and provenance, status.json and study.json."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import field_validator

from suite.spec.base import SCHEMA, Count, Epoch, Name, Spec, Timestamp, Unit
from suite.spec.experiment import Experiment


class Cost(Spec):
    """What a trial cost. Values are measured unless a comment says otherwise; None means unknown."""

    parameters: Count
    trainable: Count
    forward_flops: Count  # per image; a multiply-add is two; counted, not timed
    training_flops: Count  # forward and backward passes over all training images; 0 for k-nearest-neighbour heads
    setup_flops: Count = 0  # feature extraction, if this trial carried it out
    flops_source: str = "torch.utils.flop_counter, eager, meta device"  # how the three above were counted
    wall_seconds: float  # the whole trial, all attempts together
    train_seconds: float  # optimisation on the device, without evaluation
    setup_seconds: float  # loading data and weights, and feature extraction, unless cached
    images_per_second: float
    peak_memory_bytes: Count
    memory_source: str  # "cuda allocator" or "resident set"
    file_bytes: Count | None = None  # of the file with the trained weights; None where there is none
    energy_joules: float | None
    energy_source: str  # "nvml", "rapl", "unavailable", "unattributable (...)"
    # Forward passes in float32, timed for up to 5 % of the trial's time or 1 s. None where three passes take longer.
    latency_seconds: float | None = None  # of one image, the fastest of several passes
    # Of 256 images: the fastest of several passes of b images, times 256 / b. b is 256 for small models, else the
    # largest power of two for which a pass takes up to 512 MiB of activations and 20 GFLOP (2 TFLOP on a GPU).
    latency_256_seconds: float | None = None
    latency_source: str = ""  # how the two were measured, with b where it is less than 256; or why they were not


class Provenance(Spec):
    """The software, hardware and inputs that a trial ran with."""

    version: str
    command: str
    commit: str | None
    python: str
    packages: dict[str, str]
    host: str
    hardware: str
    threads: Count
    precision: str  # as used, never 'auto'
    data_sha256: str | None = None  # of the training files
    split_sha256: str | None = None  # of the assignment of images to training and validation
    weights: str | None = None
    weights_sha256: str | None = None
    weights_detail: str | None = None  # where in the file they were, and what was adapted or left out


class Record(Spec):
    """result.json: the result of a trial. It is written last, so its presence means that the trial has ended."""

    added: ClassVar[frozenset[str]] = frozenset({"balanced_accuracy", "rungs"})

    schema_version: Literal[1] = SCHEMA
    trial: str
    arm: Name
    state: Literal["finished", "pruned", "failed"]
    attempt: str
    accuracy: Unit | None = None  # on the validation split: of the artifact in fp32, else the best of the curve
    balanced_accuracy: Unit | None = None  # at that evaluation: the mean recall of the classes; finished trials only
    loss: float | None = None
    epoch: Epoch | None = None  # of the best accuracy
    images: Count = 0  # number of validation images
    steps: Count = 0
    curve: tuple[tuple[Epoch, Unit], ...] = ()  # (epoch, validation accuracy in the precision of training)
    rungs: tuple[tuple[Epoch, Unit], ...] = ()  # (epochs, validation accuracy) of complete short trainings before it
    reason: str | None = None  # why it was pruned or failed
    cost: Cost | None = None
    provenance: Provenance | None = None
    artifact: Name | None = None  # "best.safetensors"
    artifact_sha256: str | None = None
    accuracy_fp32: Unit | None = None  # of the artifact on the validation split, computed in fp32
    started: Timestamp = 0.0
    ended: Timestamp = 0.0

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
    rgb: str | None = None  # (H, W, 3) bytes in Base64; None for an image without colours


class Mistakes(Spec):
    """validation.json: what a model gets wrong on a set of labelled images. test.json has these fields too."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[Count, ...], ...]  # counts [label][predicted]
    ece: float | None = None  # expected calibration error, 0..1; None in files of versions that did not compute it
    bins: tuple[Bin, ...] = ()  # reliability diagram; empty in such files
    worst: tuple[Mistake, ...] = ()  # the most confident mistakes, most confident first


class Status(Spec):
    """status.json: the state of a study, rewritten by its controller as a heartbeat."""

    added: ClassVar[frozenset[str]] = frozenset({"process"})

    schema_version: Literal[1] = SCHEMA
    study: Name
    state: Literal["running", "done", "stopped", "failed"]
    pid: Count
    host: str
    process: str = ""  # `store.liveness.process_id`; empty in files of versions that did not write it
    started: Timestamp
    heartbeat: Timestamp
    planned: Count
    finished: Count = 0
    pruned: Count = 0
    failed: Count = 0
    paused: Count = 0  # after a short training, until the search promotes or prunes them
    running: tuple[str, ...] = ()
    best_trial: str | None = None
    best_accuracy: float | None = None
    eta_seconds: float | None = None
    workers: Count = 1
    message: str = ""


class StudyFile(Spec):
    """study.json: the experiment as resolved when the study began, with hashes and versions."""

    schema_version: Literal[1] = SCHEMA
    study: Name
    created: Timestamp
    experiment: Experiment
    data_hash: str
    split_hash: str
    classes: tuple[str, ...]
    version: str
    packages: dict[str, str]
    storage: str = "sqlite"  # never the URL: it may hold a password
