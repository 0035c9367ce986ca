"""What the dashboard knows at one moment: immutable, made by the feed, read by every screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from suite.ranking.leaderboard import Row
from suite.spec import Record, Started, Status, StudyFile, Trial

Key = tuple[str, str]  # study, trial id: what a cursor, a mark or a pin holds on to


@dataclass(frozen=True, slots=True)
class Run:
    """One trial as its files tell it."""

    key: Key  # kept, not made anew: it is asked for 10,000 times a tick
    row: Row
    trial: Trial
    record: Record | None = None
    started: Started | None = None
    step: int = 0
    began: float = 0.0  # seconds since 1970; 0: not yet
    last: float = 0.0  # time of the newest sign of life
    bad_lines: int = 0

    @property
    def settled(self) -> bool:
        """Over, with a result that will not change."""
        return self.record is not None

    @property
    def host(self) -> str:
        if self.started is not None:
            return self.started.host
        return self.record.provenance.host if self.record and self.record.provenance else ""


@dataclass(frozen=True)
class StudyView:
    """One study: what was asked, how its controller is, how far it came."""

    name: str
    file: StudyFile | None  # None: study.json is damaged or of a newer schema
    status: Status | None
    stopping: bool  # a stop was asked for and has not happened yet
    runs: tuple[Run, ...]
    stale: bool = False  # the controller says "running", but has not written for a while

    @property
    def planned(self) -> int:
        if self.status is not None:
            return self.status.planned
        return self.file.experiment.trials if self.file is not None else len(self.runs)

    @property
    def state(self) -> str:
        if self.status is None:
            return "unknown"
        if self.stale:
            return "stale"
        if self.stopping and self.status.state == "running":
            return "stopping"
        return self.status.state

    @cached_property
    def settled(self) -> int:
        return sum(run.settled for run in self.runs)

    @cached_property
    def energy(self) -> float | None:
        """Joules so far, of the trials that measured them."""
        known = [run.row.energy for run in self.runs if run.row.energy is not None]
        return sum(known) if known else None

    @cached_property
    def best(self) -> Run | None:
        done = [run for run in self.runs if run.row.state == "finished" and run.row.accuracy is not None]
        return max(done, key=lambda run: (run.row.accuracy or 0.0, -run.row.number), default=None)


@dataclass(frozen=True)
class Snapshot:
    """Everything below one results directory."""

    version: int = 0  # grows only when something changed
    time: float = 0.0
    studies: tuple[StudyView, ...] = ()
    loading: int = 0  # trials seen but not read yet
    problem: str | None = None  # why there is nothing, in words

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

    def find(self, key: Key | None) -> Run | None:
        if key is None:
            return None
        study = self.study(key[0])
        return next((run for run in study.runs if run.row.trial == key[1]), None) if study else None

    def study(self, name: str | None) -> StudyView | None:
        return next((study for study in self.studies if study.name == name), None)
