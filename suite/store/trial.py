"""One trial's directory, `results/<study>/trials/<id>/`, and the state that its files add up to.

Files, in the order in which they appear. Whole files are replaced by renaming (`files.write_atomic`), so that a reader
sees the old content or the new one. Writers: the controller, and the process that runs the trial (for a Ray node that
does not see the results directory, the controller in its place).

==========================  ==========  ================================================================================
file                        writer      content
==========================  ==========  ================================================================================
trial.json                  controller  `spec.Trial`: all that is needed to repeat the trial. Written once, before the
                                        trial begins. The directory's name ends in a hash of it, see `TrialDir.sound`.
events.jsonl                trial       one `spec.Line` of JSON a line, appended with one `write` each; see `events`.
console.log                 trial       what the trial printed; appended, all attempts.
last.safetensors,           trial       training state of the last two checkpoints, in turn; removed at the end of the
last.1.safetensors                      trial.
checkpoint.json             trial       which of the two is the newest, with SHA-256 sums; removed likewise. Format:
                                        `training.checkpoint`.
best.safetensors            trial       of a finished trial: the weights after the epoch with the best accuracy on
                                        validation.
validation.json             trial       of a finished trial: how it errs on the validation images.
explanations.json           `explain`   of a finished trial, after it: `spec.Explanations` of its worst mistakes, or of
                                        pictures that a user has chosen. Replaced by renaming.
stop.request                anyone      a user asks that the trial ends at its next evaluation, as pruned; holds why.
SHA256SUMS                  trial       SHA-256 of the files above that stay, and of result.json, for `sha256sum -c`.
result.json                 trial       `spec.Record`. Written last: it is the commit marker, which makes a trial
                                        finished, pruned or failed.
==========================  ==========  ================================================================================

Where a trial is not promoted, or its worker is lost for good, the controller writes SHA256SUMS and result.json. A file
that was found damaged is renamed to NAME.damaged, NAME.damaged.2 and so on, see `repair`.

An attempt is one process's run of a trial, named by a token that stands in its `Started` event and in the record.
Whoever has written the last `Started` event owns the trial: an earlier attempt, which may wake up on another host,
must not write any more (`TrialDir.overtaken`).
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from suite.errors import WorkError, printable
from suite.spec import (
    Line,
    Progress,
    Record,
    Started,
    Trial,
)
from suite.store.events import EventReader
from suite.store.files import read_bytes, read_model, remove_leftovers, sync_directory, write_atomic, write_model

TRIAL = "trial.json"
EVENTS = "events.jsonl"
CONSOLE = "console.log"
BEST = "best.safetensors"
SUMS = "SHA256SUMS"
RESULT = "result.json"
STOP = "stop.request"
EXPLANATIONS = "explanations.json"

# waiting: no attempt has begun. running: an attempt has begun, and its log tells of no end; its process may be dead.
# stopped: ended on request, to be resumed. paused: a short training is over, and the search has not decided yet. The
# others are final, and need a result.json.
State = Literal["waiting", "running", "stopped", "paused", "finished", "pruned", "failed"]


class TrialDir:
    """Reads and writes one trial's directory, which need not exist yet. `id` is the directory's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self._log: EventReader | None = None  # where `_follow` has read to
        self._starts: list[tuple[int, str]] = []  # sequence number and attempt of all `Started` events so far
        self._next_seq = 0

    @property
    def events(self) -> Path:
        return self.path / EVENTS

    @property
    def console(self) -> Path:
        return self.path / CONSOLE

    @property
    def best(self) -> Path:
        return self.path / BEST

    @property
    def result(self) -> Path:
        return self.path / RESULT

    def request_stop(self, reason: str) -> None:
        """Ask that the trial ends at its next evaluation, as pruned, while the search goes on."""
        write_atomic(self.path / STOP, reason + "\n")

    def stop_request(self) -> str | None:
        """Why a user asked to end the trial; None where nobody did."""
        try:
            return printable(read_bytes(self.path / STOP).decode(errors="replace").strip())
        except OSError:
            return None

    def create(self, trial: Trial) -> None:
        """Make the directory and write trial.json. A part of one that a killed controller left there is removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.path, TRIAL)
        write_model(self.path / TRIAL, trial)
        sync_directory(self.path.parent)

    def trial(self) -> Trial | None:
        """trial.json; None where it is missing, damaged, or not that of this directory (see `read_trial`)."""
        return read_trial(str(self.path), self.id)

    def record(self) -> Record | None:
        """result.json; None where it is missing, damaged, or that of another trial (see `read_record`)."""
        return read_record(str(self.path), self.id)

    def sound(self) -> bool:
        """Whether trial.json is whole and the one that the directory was named after.

        The name ends in a hash of all settings, so this finds every changed figure.
        """
        trial = self.trial()
        return trial is not None and trial.id == self.id

    def commit(self, record: Record, since: int = 0) -> bool:
        """Write the result unless a later attempt has taken over; returns whether it was written.

        `since` is the sequence number with which the record's own attempt began: it may end before its `Started` event.
        """
        if self.overtaken(record.attempt, since):
            return False
        self.conclude(record)
        return True

    def overtaken(self, attempt: str, since: int) -> bool:
        """Whether another process has begun an attempt after `attempt`, as one on another host may.

        `since` is the sequence number with which `attempt` began. Each call reads what the log has gained since the
        last call on this object, so that asking with every event stays linear in the log's length.
        """
        self._follow()
        starts = [started_by for seq, started_by in self._starts if seq >= since]
        return bool(starts) and starts[-1] != attempt

    def next_seq(self) -> int:
        """The sequence number of the next event."""
        self._follow()
        return self._next_seq

    def _follow(self) -> None:
        self._log = self._log or EventReader(self.events)
        for line in self._log.poll():
            self._next_seq = line.seq + 1
            if isinstance(line.event, Started):
                self._starts.append((line.seq, line.event.attempt))

    def conclude(self, record: Record) -> None:
        """Write SHA256SUMS, then result.json."""
        text = record.model_dump_json(indent=1) + "\n"
        sums = {RESULT: hashlib.sha256(text.encode()).hexdigest()}
        for name in (TRIAL, "validation.json"):
            with suppress(OSError):
                sums[name] = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
        if record.artifact is not None and record.artifact_sha256 is not None:
            sums[record.artifact] = record.artifact_sha256
        write_atomic(self.path / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
        write_atomic(self.result, text)

    def reopen(self) -> None:
        """Remove the result, so that the trial may run again. What happened stays in the event log."""
        self.result.unlink(missing_ok=True)
        (self.path / SUMS).unlink(missing_ok=True)
        sync_directory(self.path)

    def sums(self) -> dict[str, str]:
        """SHA256SUMS by file name; empty where it is missing or damaged."""
        try:
            lines = read_bytes(self.path / SUMS).decode().splitlines()
        except (OSError, ValueError):
            return {}
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def read_trial(directory: str, trial_id: str) -> Trial | None:
    """trial.json of a directory; None where it is missing or damaged, or its number is not that in the directory's
    name, whose form must be that of an id. So a copy made by hand under another name is left out.

    Like `read_record` it takes strings, since building thousands of `Path` costs more than reading the files.
    """
    trial = read_model(f"{directory}/{TRIAL}", Trial)
    number, _, digest = trial_id.partition("-")
    if trial is None or number != f"{trial.number:04d}" or re.fullmatch("[0-9a-f]{8}", digest) is None:
        return None
    return trial


def read_record(directory: str, trial_id: str) -> Record | None:
    """result.json of a directory; None where it is missing, damaged, or names another trial: then it is a copy, and
    counts where it was copied from."""
    record = read_model(f"{directory}/{RESULT}", Record)
    return record if record is not None and record.trial == trial_id else None


@dataclass
class TrialState:
    """What the files say of one trial. Grows by `update`; cheap to keep for thousands of trials.

    States: a trial is waiting until its first `Started` event, which makes it running. A `Stopped` event makes it
    stopped, a `Paused` event makes it paused, and the next `Started` running again. Only result.json makes it finished,
    pruned or failed (`settle`): a `Finished`, `Pruned` or `Failed` event says that this is about to happen.
    """

    id: str  # the directory's name
    trial: Trial
    state: State = "waiting"
    record: Record | None = None
    started: Started | None = None
    progress: Progress | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)  # (epoch, accuracy on validation)
    rungs: list[tuple[float, float]] = field(default_factory=list)  # (epochs, accuracy) of short trainings
    reason: str | None = None  # of stopped, pruned and failed
    last: float = 0.0  # time of the newest event, seconds since 1970
    bad_lines: int = 0  # lines of the event log that do not parse

    @property
    def best(self) -> float | None:
        """Best accuracy on validation so far in the training that goes on; before its first evaluation, that of the
        last short one."""
        if self.record and self.record.accuracy is not None:
            return self.record.accuracy
        last = self.rungs[-1][1] if self.rungs else None
        return max((accuracy for _, accuracy in self.curve), default=last)

    def update(self, lines: list[Line]) -> None:
        """Take in new lines of the event log, in order."""
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
                case "paused":
                    self.state = "paused"
                    # told again by an attempt whose predecessor was killed, or after a training that was repeated
                    shorter = [point for point in self.rungs if point[0] < event.epochs]
                    self.rungs = [*shorter, (event.epochs, event.accuracy)]
                case "stopped":
                    self.state, self.reason = "stopped", event.reason
                case "pruned" | "failed":
                    self.state, self.reason = event.kind, event.reason
                case "finished":
                    self.state = "finished"
                case "checkpointed" | "measuring":
                    pass

    _steps: dict[float, int] = field(default_factory=dict, repr=False)  # by epoch

    def _epoch_at(self, step: int) -> float:
        return max((epoch for epoch, reached in self._steps.items() if reached <= step), default=0.0)

    def settle(self, record: Record | None) -> None:
        """Take in result.json as it is now, after the event log."""
        if record is not None:
            self.record, self.state, self.reason = record, record.state, record.reason
            self.curve, self.rungs = list(record.curve), list(record.rungs)
            self.last = max(self.last, record.ended)
        elif self.state in ("finished", "pruned", "failed"):
            self.state = "running"  # the result is still to be written

    def reopen(self) -> None:
        """As `TrialDir.reopen`."""
        self.state, self.record, self.reason, self.curve, self.rungs = "waiting", None, None, [], []


class Overtaken(WorkError):
    """Another process has taken the trial up, as one on another host may when it takes this one for dead."""

    @classmethod
    def of(cls, trial_id: str) -> Overtaken:  # not the constructor's work: it is pickled on its way to the controller
        return cls(f"Trial {trial_id} was taken up by another process; this one leaves it alone.")
