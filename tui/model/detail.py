"""One trial in full, for the run and compare screens: curves of bounded size, log, console, validation."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suite.spec import Evaluated, Explanations, Line, Progress
from suite.store.events import EventReader
from suite.store.files import read_bytes, read_model
from suite.store.trial import EXPLANATIONS, TrialDir
from tui.model.logs import LogReader, Numbered, clean

POINTS = 2000  # of a curve; when there are more, every second one is dropped
LINES = 400  # of the events and of console.log
CURVES = ("loss", "lr", "speed", "accuracy", "validation_loss", "power", "memory", "gpu")  # fields of `Detail`


@dataclass(frozen=True, slots=True)
class Point:
    """A value of one quantity at one step of a training."""

    step: int
    epoch: float
    seconds: float  # of training so far
    value: float


@dataclass(frozen=True, slots=True)
class Wrong:
    """A validation image that the model misclassified."""

    index: int  # in the validation split
    label: int
    predicted: int
    probability: float  # of the predicted class
    pixels: tuple[tuple[int, ...], ...]  # rows of grey levels, 0 to 255


@dataclass(frozen=True, slots=True)
class Validation:
    """Predictions of the finished model on the validation split."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [label][predicted]
    worst: tuple[Wrong, ...]


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything that the files of one trial tell beside its `Run`."""

    loss: tuple[Point, ...] = ()
    lr: tuple[Point, ...] = ()
    speed: tuple[Point, ...] = ()
    accuracy: tuple[Point, ...] = ()
    validation_loss: tuple[Point, ...] = ()
    power: tuple[Point, ...] = ()  # watts
    memory: tuple[Point, ...] = ()  # bytes
    gpu: tuple[Point, ...] = ()  # how busy it is, 0 to 1
    log: tuple[Numbered, ...] = ()  # one line an event, the last of them
    console: tuple[Numbered, ...] = ()  # the last lines of console.log
    validation: Validation | None = None
    explanations: Explanations | None = None  # as `mnist-suite explain` has kept them
    bad_lines: int = 0


@dataclass
class Curve:
    """Points of one quantity, at most POINTS: every `stride`-th one is kept, and the stride doubles when needed."""

    points: list[Point] = field(default_factory=list)
    stride: int = 1
    seen: int = 0

    def add(self, point: Point) -> None:
        if self.seen % self.stride == 0:
            self.points.append(point)
        self.seen += 1
        if len(self.points) > POINTS:
            self.points = self.points[::2]
            self.stride *= 2

    def rewind(self, step: int) -> None:
        """Drop what came after `step`: an attempt resumed from that step repeats it."""
        self.points = [point for point in self.points if point.step <= step]


class Follower:
    """Reads one trial's events, console, validation file and explanations as they grow."""

    def __init__(self, directory: TrialDir) -> None:
        self.directory = directory
        self._reader = EventReader(directory.events)
        self._curves = {name: Curve() for name in CURVES}
        self._log: deque[Numbered] = deque(maxlen=LINES)
        self._events = 0
        self._signature: object = None
        self._console = LogReader(directory.console, LINES)
        self._validation: Validation | None = None
        self._explanations: Explanations | None = None
        self._detail = Detail()

    def poll(self) -> Detail:
        """Read what is new; returns the same object if nothing is."""
        lines = self._reader.poll()
        for line in lines:
            self._add_event(line)
        written = self._console.poll()
        validation, explanations = self.directory.path / "validation.json", self.directory.path / EXPLANATIONS
        signature = file_signature(validation), file_signature(explanations)
        if signature != self._signature:
            self._signature = signature
            self._validation = read_validation(validation)
            self._explanations = read_model(explanations, Explanations)
        elif not lines and not written and self._reader.bad == self._detail.bad_lines:
            return self._detail
        curves = {name: tuple(curve.points) for name, curve in self._curves.items()}
        self._detail = Detail(
            **curves,
            log=tuple(self._log),
            console=tuple(self._console.lines),
            validation=self._validation,
            explanations=self._explanations,
            bad_lines=self._reader.bad,
        )
        return self._detail

    def _add_event(self, line: Line) -> None:
        event = line.event
        self._events += 1
        text = f"{time.strftime('%H:%M:%S', time.localtime(line.time))}  {describe(event)}"
        self._log.append((self._events, text))
        if event.kind == "started":
            for curve in self._curves.values():
                curve.rewind(event.step)
        elif isinstance(event, Progress):
            self._add("loss", event, event.loss)
            self._add("lr", event, event.lr)
            self._add("speed", event, event.images_per_second)
            self._add("power", event, event.watts)
            self._add("memory", event, event.memory_bytes)
            self._add("gpu", event, event.gpu_busy)
        elif isinstance(event, Evaluated):
            self._add("accuracy", event, event.accuracy)
            self._add("validation_loss", event, event.loss)

    def _add(self, name: str, event: Progress | Evaluated, value: float | None) -> None:
        if value is not None:
            self._curves[name].add(Point(event.step, float(event.epoch), event.seconds, value))


def describe(event: Any) -> str:
    """An event on one line."""
    fields = event.model_dump(exclude={"kind"}, exclude_none=True)
    words = (f"{key}={value:.5g}" if isinstance(value, float) else f"{key}={value}" for key, value in fields.items())
    return clean(f"{event.kind:<12}{' '.join(words)}")


def read_validation(path: Path) -> Validation | None:
    """Read validation.json; None if it is missing or does not have the expected form."""
    try:
        data = json.loads(read_bytes(path))
        confusion = tuple(tuple(int(n) for n in line) for line in data["confusion"])
        classes = tuple(str(name) for name in data["classes"])
        if len(confusion) != len(classes) or any(len(line) != len(classes) for line in confusion):
            return None
        worst = tuple(
            Wrong(
                int(w["index"]),
                int(w["label"]),
                int(w["predicted"]),
                float(w["probability"]),
                tuple(tuple(int(p) for p in line) for line in w["pixels"]),
            )
            for w in data["worst"]
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return Validation(classes, confusion, worst)


def file_signature(path: Path) -> object:
    """Changes when the file is replaced, grows or is written; None if it cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
