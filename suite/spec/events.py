"""The events that a trial yields and writes to its log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from suite.spec.base import Count, Epoch, Moment, Spec, Unit


class Started(Spec):
    kind: Literal["started"] = "started"
    attempt: str  # token; a later attempt of the same trial has another
    pid: Count
    host: str
    step: Count = 0  # above 0 when resumed from a checkpoint
    steps: Count = 0  # planned
    parameters: Count = 0
    trainable: Count = 0
    forward_flops: Count = 0  # per image


class Progress(Spec):
    kind: Literal["progress"] = "progress"
    step: Count
    epoch: float
    loss: float | None  # mean training loss since the last event; None when not finite
    lr: float
    images_per_second: float
    seconds: float  # of training, evaluation off the clock


class Evaluated(Spec):
    kind: Literal["evaluated"] = "evaluated"
    step: Count
    epoch: Epoch
    accuracy: Unit  # on validation
    loss: float | None
    seconds: float  # of training so far, evaluation off the clock


class Checkpointed(Spec):
    kind: Literal["checkpointed"] = "checkpointed"
    step: Count
    sha256: str


class Finished(Spec):
    kind: Literal["finished"] = "finished"
    accuracy: Unit
    step: Count


class Pruned(Spec):
    kind: Literal["pruned"] = "pruned"
    reason: str
    step: Count


class Failed(Spec):
    kind: Literal["failed"] = "failed"
    reason: str
    step: Count = 0


class Stopped(Spec):
    kind: Literal["stopped"] = "stopped"
    reason: str
    step: Count


Event = Annotated[
    Started | Progress | Evaluated | Checkpointed | Finished | Pruned | Failed | Stopped,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[Event] = TypeAdapter(Event)

Verdict = Literal["prune", "stop"]  # what the controller may answer to an event; None: go on


class Line(Spec):
    """One line of events.jsonl."""

    seq: Count
    time: Moment
    event: Event
