"""The events of a trial, as its training yields them and as events.jsonl holds them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, TypeAdapter

from suite.spec.base import Count, Epoch, Spec, Timestamp, Unit


class Started(Spec):
    """An attempt has begun: the model is built, and any checkpoint is loaded."""

    kind: Literal["started"] = "started"
    attempt: str  # token of the attempt; each attempt of a trial has its own
    pid: Count
    host: str
    step: Count = 0  # above 0 when resumed from a checkpoint
    steps: Count = 0  # planned
    parameters: Count = 0
    trainable: Count = 0
    forward_flops: Count = 0  # per image


class Progress(Spec):
    """Training goes on; sent a few times per epoch."""

    added: ClassVar[frozenset[str]] = frozenset({"watts", "memory_bytes", "gpu_busy"})

    kind: Literal["progress"] = "progress"
    step: Count
    epoch: float  # completed, fractional
    loss: float | None  # mean training loss since the previous event; None if not finite
    lr: float
    images_per_second: float
    seconds: float  # of training so far, without evaluation
    # Read with the event, see `suite.hardware.load`; None where that is not possible, and with --population.
    watts: float | None = None  # of the GPU, or of all processor packages
    memory_bytes: Count | None = None  # of the process: resident, or allocated on the GPU
    gpu_busy: Unit | None = None


class Evaluated(Spec):
    """The model was evaluated on the validation split."""

    kind: Literal["evaluated"] = "evaluated"
    step: Count
    epoch: Epoch
    accuracy: Unit  # on the validation split
    loss: float | None
    seconds: float  # of training so far, without evaluation


class Measuring(Spec):
    """The machine or the model is being measured, which takes more than two seconds."""

    kind: Literal["measuring"] = "measuring"
    what: str  # for people, for example "latency"


class Paused(Spec):
    """A complete short training is over. The trial waits until the search promotes it to a longer one, or prunes it."""

    kind: Literal["paused"] = "paused"
    epochs: Epoch  # length of this training
    accuracy: Unit  # on the validation split
    step: Count


class Checkpointed(Spec):
    """A checkpoint was written."""

    kind: Literal["checkpointed"] = "checkpointed"
    step: Count
    sha256: str


class Finished(Spec):
    """The trial reached its last epoch."""

    kind: Literal["finished"] = "finished"
    accuracy: Unit
    step: Count


class Pruned(Spec):
    """The trial ended early because it was not promising, or because its model exceeds a cap."""

    kind: Literal["pruned"] = "pruned"
    reason: str
    step: Count


class Failed(Spec):
    """The trial ended with an error."""

    kind: Literal["failed"] = "failed"
    reason: str
    step: Count = 0


class Stopped(Spec):
    """The attempt was interrupted on request; a later attempt continues from its checkpoint."""

    kind: Literal["stopped"] = "stopped"
    reason: str
    step: Count


Event = Annotated[
    Started | Progress | Evaluated | Measuring | Paused | Checkpointed | Finished | Pruned | Failed | Stopped,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)

Verdict = Literal["prune", "stop"]  # the controller's answer to an event; None means continue


class Line(Spec):
    """One line of events.jsonl."""

    seq: Count
    time: Timestamp
    event: Event
