"""The record of a trial, from what its attempt has measured and reached."""

from __future__ import annotations

import math
import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from suite.errors import printable
from suite.hardware import device
from suite.hardware.energy import Meter
from suite.hardware.flops import Counted
from suite.hardware.latency import NOT_MEASURED, Latencies
from suite.models.pretrained import Provenance as WeightsProvenance
from suite.spec import Cost, Provenance, Record, Started, Trial
from suite.store.provenance import commit, packages, version
from suite.training.state import Tally


@dataclass
class WallClock:
    """Wall time of a trial over all its attempts."""

    began: float = field(default_factory=time.time)  # of this attempt, seconds since 1970
    earlier: float = 0.0  # seconds of the attempts before
    excluded: float = 0.0  # seconds of this attempt in which other trials of the same process ran
    _start: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self._start - self.excluded


@dataclass
class Account:
    """What an attempt has used and reached so far. Complete at any time, so that a failure can always be recorded."""

    clock: WallClock
    meter: Meter
    counted: Counted
    teacher_flops: int = 0  # of the teacher's forward pass of an image
    tally: Tally = field(default_factory=Tally)
    setup_seconds: float = 0.0
    setup_flops: int = 0
    # Of the complete short trainings that came before this one.
    rungs: list[tuple[float, float]] = field(default_factory=list)  # (epochs, validation accuracy)
    trained_seconds: float = 0.0
    trained_images: int = 0

    def resume(self, numbers: dict[str, Any]) -> None:
        """Add what earlier attempts used, as `spent` of the last checkpoint tells it."""
        self.clock.earlier = numbers["wall"]
        self.setup_flops += numbers["setup_flops"]
        self.meter.add(numbers.get("joules"))
        self.rungs = [(epochs, accuracy) for epochs, accuracy in numbers.get("rungs", [])]
        self.trained_seconds = numbers.get("trained_seconds", 0.0)
        self.trained_images = numbers.get("trained_images", 0)

    def spent(self) -> dict[str, Any]:
        """What a later attempt adds to its own use."""
        joules, _ = self.meter.energy()
        return {
            "wall": self.clock.seconds(),
            "setup_flops": self.setup_flops,
            "joules": joules,
            "rungs": self.rungs,
            "trained_seconds": self.trained_seconds,
            "trained_images": self.trained_images,
        }

    def pass_stage(self, epochs: float, accuracy: float) -> None:
        """A short training is over: what follows is another training."""
        self.rungs.append((epochs, accuracy))
        self.trained_seconds += self.tally.seconds
        self.trained_images += self.tally.images

    def begin_training(self, where: torch.device) -> None:
        """End the time that counts as setup of this attempt."""
        device.synchronize(where)
        self.setup_seconds = self.clock.seconds() - self.clock.earlier


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: Literal["finished", "pruned", "failed"]
    reason: str | None = None  # of pruned and failed
    latencies: Latencies = NOT_MEASURED
    artifact_sha256: str | None = None  # of best.safetensors; None where the trial has not finished
    accuracy_fp32: float | None = None
    balanced_accuracy: float | None = None
    file_bytes: int | None = None  # of best.safetensors


def started_event(attempt: str, account: Account, steps: int) -> Started:
    """The event that training begins or resumes; `steps` are planned in total."""
    counted = account.counted
    return Started(
        attempt=attempt,
        pid=os.getpid(),
        host=socket.gethostname(),
        step=account.tally.step,
        steps=steps,
        parameters=counted.parameters,
        trainable=counted.trainable,
        forward_flops=counted.forward_flops,
    )


@dataclass(frozen=True)
class AttemptName:
    """What a record is the record of."""

    trial_id: str
    arm: str
    token: str  # of the attempt


def build_record(
    name: AttemptName,
    outcome: Outcome,
    *,
    began: float,
    provenance: Provenance,
    tally: Tally | None = None,
    cost: Cost | None = None,
    images: int = 0,
    rungs: Sequence[tuple[float, float]] = (),
) -> Record:
    """result.json of a trial that is over. `began` is in seconds since 1970; `images` are those of validation.

    A trial that failed in its setup has neither a tally nor a cost.
    """
    tally = tally or Tally()
    return Record(
        trial=name.trial_id,
        arm=name.arm,
        state=outcome.state,
        attempt=name.token,
        accuracy=tally.best_accuracy if outcome.accuracy_fp32 is None else outcome.accuracy_fp32,
        balanced_accuracy=outcome.balanced_accuracy,
        loss=tally.best_loss if math.isfinite(tally.best_loss) else None,
        epoch=tally.best_epoch or None,
        images=images,
        steps=tally.step,
        curve=tuple(tally.curve),
        rungs=tuple(rungs),
        reason=outcome.reason,
        cost=cost,
        provenance=provenance,
        artifact="best.safetensors" if outcome.artifact_sha256 is not None else None,
        artifact_sha256=outcome.artifact_sha256,
        accuracy_fp32=outcome.accuracy_fp32,
        started=began,
        ended=time.time(),
    )


def cost_of(account: Account, outcome: Outcome, *, together: bool) -> Cost:
    """The cost of a trial. With `together`, trials trained at the same time share the process's memory and energy."""
    counted, tally = account.counted, account.tally
    seconds, images = account.trained_seconds + tally.seconds, account.trained_images + tally.images
    peak, memory_source = account.meter.memory()
    joules, energy_source = account.meter.energy()
    if together:
        memory_source = f"{memory_source} (shared by trials trained together)"
        joules, energy_source = None, "unattributable (trials trained together)"
    return Cost(
        parameters=counted.parameters,
        trainable=counted.trainable,
        forward_flops=counted.forward_flops,
        training_flops=(counted.training_flops + account.teacher_flops) * images,
        setup_flops=account.setup_flops,
        wall_seconds=account.clock.seconds(),
        train_seconds=seconds,
        setup_seconds=account.setup_seconds,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        peak_memory_bytes=peak,
        memory_source=memory_source,
        file_bytes=outcome.file_bytes,
        energy_joules=joules,
        energy_source=energy_source,
        latency_seconds=outcome.latencies.one,
        latency_256_seconds=outcome.latencies.batch_256,
        latency_source=outcome.latencies.source,
    )


def provenance(
    trial: Trial, command: str, where: torch.device, precision: str, found: WeightsProvenance | None = None
) -> Provenance:
    """What produced a trial's record: code, machine, data and initial weights.

    The weights are those that were `found`, or else those that the trial was planned with. They are named as the trial
    names them, relative to the results directory where they are in it.
    """
    weights = trial.weights.source if trial.weights else None
    sha256 = trial.weights.sha256 if trial.weights else None
    if found is not None:
        weights = printable(found.source if weights in (None, "pretrained") else weights)
        sha256 = found.sha256
    return Provenance(
        version=version(),
        command=command,
        commit=commit(),
        python=platform.python_version(),
        packages=packages(),
        host=socket.gethostname(),
        hardware=device.hardware(where),
        threads=trial.threads or torch.get_num_threads(),
        precision=precision,
        data_sha256=trial.data_hash,
        split_sha256=trial.split_hash,
        weights=weights,
        weights_sha256=sha256,
        weights_detail=printable(found.detail) if found is not None else None,
    )
