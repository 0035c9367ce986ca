"""The directory of one trial, and the state that its files add up to."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from suite.errors import WorkError
from suite.spec import (
    UNHASHED,
    Line,
    Progress,
    Record,
    Started,
    Trial,
)
from suite.store.events import EventReader
from suite.store.files import read_bytes, read_model, sync_directory, write_atomic, write_model

SUMS = "SHA256SUMS"

State = Literal["waiting", "running", "stopped", "finished", "pruned", "failed"]


class TrialDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def create(self, trial: Trial) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_model(self.path / "trial.json", trial)
        sync_directory(self.path.parent)

    def trial(self) -> Trial | None:
        return read_model(f"{self.path}/trial.json", Trial)

    def record(self) -> Record | None:
        return read_model(f"{self.path}/result.json", Record)

    def sound(self) -> bool:
        """Whether trial.json is whole and the one that the directory was named after.

        The name ends in a hash of the file as it was written, so this finds every changed figure in it.
        """
        try:
            facts = json.loads(read_bytes(self.path / "trial.json"))
            for key in UNHASHED:
                facts.pop(key, None)
            digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
            return False
        trial = self.trial()
        return trial is not None and self.id == f"{trial.number:04d}-{digest}"

    def commit(self, record: Record, since: int = 0) -> bool:
        """Write result.json, unless a later attempt has taken over. Says whether it was written.

        `since` is the sequence number with which the record's own attempt began: it may end before it starts.
        """
        if self.overtaken(record.attempt, since):
            return False
        self.conclude(record)
        return True

    def overtaken(self, attempt: str, since: int) -> bool:
        """Whether another process has taken the trial up after `attempt`, as one on another host may."""
        lines = EventReader(self.events).poll()
        starts = [line.event for line in lines if isinstance(line.event, Started) and line.seq >= since]
        return bool(starts) and starts[-1].attempt != attempt

    def conclude(self, record: Record) -> None:
        """Write result.json, and before it SHA256SUMS: `sha256sum -c` shows what changed since."""
        text = record.model_dump_json(indent=1) + "\n"
        sums = {"result.json": hashlib.sha256(text.encode()).hexdigest()}
        for name in ("trial.json", "validation.json"):
            with suppress(OSError):
                sums[name] = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        if record.artifact is not None and record.artifact_sha256 is not None:
            sums[record.artifact] = record.artifact_sha256
        write_atomic(self.path / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
        write_atomic(self.path / "result.json", text)

    def sums(self) -> dict[str, str]:
        """SHA-256 of the trial's files as they were when it ended; empty where that is not known."""
        try:
            lines = read_bytes(self.path / SUMS).decode().splitlines()
        except (OSError, ValueError):
            return {}
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def named_after(name: str, trial: Trial) -> bool:
    """Whether a directory's name has the form of this trial's id, as that of a copy by hand has not."""
    number, _, digest = name.partition("-")
    return number == f"{trial.number:04d}" and re.fullmatch("[0-9a-f]{8}", digest) is not None


@dataclass
class TrialState:
    """What the files say of one trial. Grows by `update`; cheap to keep for thousands of trials."""

    id: str  # the directory's name
    trial: Trial
    state: State = "waiting"
    record: Record | None = None
    started: Started | None = None
    progress: Progress | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    reason: str | None = None
    last: float = 0.0  # time of the newest event, seconds since 1970
    bad_lines: int = 0

    @property
    def best(self) -> float | None:
        if self.record and self.record.accuracy is not None:
            return self.record.accuracy
        return max((accuracy for _, accuracy in self.curve), default=None)

    def update(self, lines: list[Line]) -> None:
        for line in lines:
            event = line.event
            self.last = max(self.last, line.time)
            match event.kind:
                case "started":
                    self.started, self.state, self.reason = event, "running", None
                    # a resumed attempt repeats what came after its checkpoint
                    epoch = self._epoch_at(event.step)
                    self.curve = [point for point in self.curve if point[0] <= epoch]
                case "progress":
                    self.progress = event
                case "evaluated":
                    self.curve.append((event.epoch, event.accuracy))
                    self._steps[event.epoch] = event.step
                case "stopped":
                    self.state, self.reason = "stopped", event.reason
                case "pruned" | "failed":
                    self.state, self.reason = event.kind, event.reason
                case "finished":
                    self.state = "finished"
                case "checkpointed":
                    pass

    _steps: dict[float, int] = field(default_factory=dict, repr=False)

    def _epoch_at(self, step: int) -> float:
        return max((epoch for epoch, reached in self._steps.items() if reached <= step), default=0.0)

    def settle(self, record: Record | None) -> None:
        """result.json is the commit marker: it alone makes a trial finished, pruned or failed."""
        if record is not None:
            self.record, self.state, self.reason = record, record.state, record.reason
            self.curve = list(record.curve)
            self.last = max(self.last, record.ended)
        elif self.state in ("finished", "pruned", "failed"):
            self.state = "running"  # its last act, writing the result, has not happened yet


class Overtaken(WorkError):
    """Another process has taken the trial up, as one on another host may when it takes this one for dead."""

    @classmethod
    def of(cls, trial_id: str) -> Overtaken:  # not the constructor's work: it is pickled on its way to the controller
        return cls(f"Trial {trial_id} was taken up by another process; this one leaves it alone.")
