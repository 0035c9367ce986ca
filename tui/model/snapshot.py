"""The state of a results directory as the feed has read it: immutable, shared by all screens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from suite.ranking.leaderboard import Row
from suite.spec import Progress, Record, Started, Status, StudyFile, Trial
from suite.store.notes import NO_NOTE, Note

Key = tuple[str, str]  # (study, trial id): identifies a run for cursor, marks and pins


@dataclass(frozen=True, slots=True)
class Run:
    """One trial as its files describe it."""

    key: Key  # a field, not a property: it is read for all of 10,000 runs at every update
    row: Row
    trial: Trial
    record: Record | None = None
    started: Started | None = None
    step: int = 0
    progress: Progress | None = None  # the newest one, while it is not over
    began: float = 0.0  # first event, seconds since 1970; 0: not started
    last: float = 0.0  # newest event, seconds since 1970
    bad_lines: int = 0  # lines of its event log that could not be read

    @property
    def has_result(self) -> bool:
        """Whether the trial has ended with a result, which never changes."""
        return self.record is not None

    @property
    def host(self) -> str:
        """The host that it runs or ran on; empty if unknown."""
        if self.started is not None:
            return self.started.host
        return self.record.provenance.host if self.record and self.record.provenance else ""


@dataclass(frozen=True)
class StudyView:
    """One study: its experiment, the status of its controller, and its runs."""

    name: str
    file: StudyFile | None  # None: study.json is damaged or of a newer schema
    status: Status | None
    stopping: bool  # a stop has been requested
    runs: tuple[Run, ...]
    stale: bool = False  # the status is "running", but the controller is silent or has died (`store.liveness`)
    died: bool = False  # it is known to have died
    note: Note = NO_NOTE  # of the study itself

    @property
    def planned(self) -> int:
        """Number of trials that the study will have."""
        if self.status is not None:
            return self.status.planned
        return self.file.experiment.trials if self.file is not None else len(self.runs)

    @property
    def state(self) -> str:
        """A state of `Status`, or "stopping", "stale" or "unknown"."""
        if self.status is None:
            return "unknown"
        if self.stale:
            return "stale"
        if self.stopping and self.status.state == "running":
            return "stopping"
        return self.status.state

    @cached_property
    def done(self) -> int:
        """Number of runs that have a result."""
        return sum(run.has_result for run in self.runs)

    @cached_property
    def energy(self) -> float | None:
        """Joules of all runs whose energy is known; None if there is none."""
        known = [run.row.energy for run in self.runs if run.row.energy is not None]
        return sum(known) if known else None

    @cached_property
    def best(self) -> Run | None:
        """The finished run with the highest validation accuracy, the first of equal ones. None that is archived."""
        done = [
            run
            for run in self.runs
            if run.row.state == "finished" and run.row.accuracy is not None and not run.row.archived
        ]
        return max(done, key=lambda run: (run.row.accuracy or 0.0, -run.row.number), default=None)


@dataclass(frozen=True, slots=True)
class Opening:
    """A study whose controller prepares: it holds controller.lock and has not written study.json yet."""

    study: str
    pid: int
    host: str
    since: float = 0.0  # when the lock was taken, by the clock that stamps files

    @property
    def holder(self) -> tuple[int, str]:
        return self.pid, self.host


@dataclass(frozen=True)
class Ended:
    """What the records of one host tell."""

    trials: int = 0
    last: float = 0.0  # when the last one ended, seconds since 1970
    hardware: str = ""  # of that one


@dataclass(frozen=True)
class Snapshot:
    """All studies of one results directory."""

    version: int = 0  # increases whenever something changes
    time: float = 0.0  # when it was read, seconds since 1970
    studies: tuple[StudyView, ...] = ()
    loading: int = 0  # trials that are listed, but not read yet
    problem: str | None = None  # why there is no study, or why this is an earlier state
    openings: tuple[Opening, ...] = ()

    @cached_property
    def runs(self) -> list[Run]:
        return [run for study in self.studies for run in study.runs]

    @cached_property
    def counts(self) -> Counter[str]:
        """Runs by state."""
        return Counter(run.row.state for run in self.runs)

    @cached_property
    def bad_lines(self) -> int:
        return sum(run.bad_lines for run in self.runs)

    @cached_property
    def ended(self) -> dict[str, Ended]:
        """The trials that have ended, by host."""
        found: dict[str, Ended] = {}
        for run in self.runs:
            record = run.record
            if record is not None and record.provenance is not None:
                was = found.get(record.provenance.host, Ended())
                newest = record.ended >= was.last
                found[record.provenance.host] = Ended(
                    was.trials + 1,
                    record.ended if newest else was.last,
                    record.provenance.hardware if newest else was.hardware,
                )
        return found

    def find(self, key: Key | None) -> Run | None:
        if key is None:
            return None
        study = self.study(key[0])
        return next((run for run in study.runs if run.row.trial == key[1]), None) if study else None

    def study(self, name: str | None) -> StudyView | None:
        return next((study for study in self.studies if study.name == name), None)
