"""The building blocks of a report, and the facts that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from suite.ranking.leaderboard import Row
from suite.reporting import plots
from suite.spec import StudyFile
from suite.store.trial import TrialState


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: str = "table"


def known(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table without the columns of which nothing is known."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
    return Table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], caption)


@dataclass(frozen=True)
class Picture:
    name: str  # of the file, without ending
    title: str
    alt: str  # what it shows, in words
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Gallery:
    pictures: Sequence[Picture]
    kind: str = "gallery"


Block = Text | Table | Gallery


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Facts:
    """Everything that was read from the results directory."""

    study: StudyFile
    states: Sequence[TrialState]
    rows: Sequence[Row]  # ranked
    fronts: Mapping[str, Mapping[str, Any]]
    costs: Mapping[str, Any]
    importances: Mapping[str, Mapping[str, float]]  # arm -> hyperparameter -> share
    errors: Mapping[str, Mapping[str, Any]]  # arm -> validation.json of its best trial
    outcome: Mapping[str, Any] | None = None  # of the final evaluation
    read: bool = False  # whether the test images ever were
    tested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # arm -> test.json of its first model
    final_curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        return list(self.study.experiment.arms)

    @property
    def looks(self) -> dict[str, plots.Look]:
        return plots.looks(self.arms)

    @property
    def images(self) -> int:
        """In the validation split."""
        return max((s.record.images for s in self.states if s.record), default=0)

    def best(self, arm: str) -> Row | None:
        return next((r for r in self.rows if r.arm == arm and r.state == "finished"), None)
