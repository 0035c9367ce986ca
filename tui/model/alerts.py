"""What has happened between two snapshots that somebody waits for. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from suite.errors import printable
from suite.ranking.formats import points
from suite.ranking.leaderboard import ValidationSet, text
from suite.spec import Status
from tui.model.snapshot import Run, Snapshot, StudyView

Kind = Literal["study-finished", "study-failed", "trial-failed", "new-best"]

NO_STATUS: Mapping[str, Status | None] = MappingProxyType({})

FAILURES: frozenset[Kind] = frozenset({"study-failed", "trial-failed"})


@dataclass(frozen=True, slots=True)
class Alert:
    """An event that is worth an interruption."""

    kind: Kind
    study: str
    trial: str  # id; empty where the study is meant
    text: str  # one sentence, printable


def alerts(before: Snapshot, now: Snapshot, first: Mapping[str, Status | None] = NO_STATUS) -> list[Alert]:
    """What has happened since `before`: studies that ended, trials that failed, a new best of a validation set.

    Both have been read to the end (`loading` is 0). A study that `before` lacks was copied here or has just begun; what
    it brings along is no news. `first` is the status of each study when the dashboard was opened: a controller that
    has not reported since may have died before.
    """
    found: list[Alert] = []
    changed: list[Run] = []
    for view in now.studies:
        old = before.study(view.name)
        if old is None or old is view:
            continue
        found += _of_study(old, view, silent=view.name in first and view.status == first[view.name])
        if new := [run for run in _changed(old, view) if run.has_result and not run.row.archived]:
            ended = {run.key for run in old.runs if run.has_result}
            changed += [run for run in new if run.key not in ended]
    for run in changed:
        if run.row.state == "failed":
            found.append(Alert("trial-failed", *run.key, printable(f"{_name(run)} failed: {run.row.reason or '?'}")))
    return found + _new_best(before, changed)


def _of_study(before: StudyView, now: StudyView, *, silent: bool) -> list[Alert]:
    """`silent`: its controller has not reported since the dashboard was opened."""
    was, state = before.status, now.status
    if now.stale and not before.stale and not silent:
        return [Alert("study-failed", now.name, "", f"{now.name}: its controller has died or gives no sign of life")]
    if state is None or state.state not in ("done", "failed") or (was is not None and was.state == state.state):
        return []
    if state.state == "failed":
        return [Alert("study-failed", now.name, "", printable(f"{now.name} ended with an error: {state.message}"))]
    best = f", best {text(now.best.row, 'accuracy')}" if now.best else ""
    return [Alert("study-finished", now.name, "", f"{now.name} is finished: {now.done} of {now.planned} trials{best}")]


def _changed(before: StudyView, now: StudyView) -> list[Run]:
    """The runs that are new or have changed. A run that has not is the same object, so that few are compared."""
    known = set(map(id, before.runs))
    return [run for run in now.runs if id(run) not in known]


def _limited(run: Run) -> str:
    limit = run.row.validation[2]
    return f" of {limit} images" if limit is not None else ""


def _new_best(before: Snapshot, ended: Iterable[Run]) -> list[Alert]:
    """The best of those that have just finished, where it is better than all before on its validation set."""
    best: dict[ValidationSet, Run] = {}
    for run in ended:
        if run.row.state == "finished" and run.row.accuracy is not None:
            other = best.get(run.row.validation)
            if other is None or run.row.accuracy > (other.row.accuracy or 0.0):
                best[run.row.validation] = run
    if not best:
        return []
    earlier: dict[ValidationSet, float] = {}
    for run in before.runs:
        row = run.row
        if row.validation in best and row.state == "finished" and row.accuracy is not None and not row.archived:
            earlier[row.validation] = max(row.accuracy, earlier.get(row.validation, 0.0))
    return [
        Alert(
            "new-best",
            *run.key,
            printable(
                f"{_name(run)} is the best on {run.trial.dataset}{_limited(run)}: {text(run.row, 'accuracy')}, "
                f"{points((run.row.accuracy or 0.0) - earlier[split])} points"
            ),
        )
        for split, run in best.items()
        if split in earlier and (run.row.accuracy or 0.0) > earlier[split]
    ]


def _name(run: Run) -> str:
    return f"{run.row.study}/{run.row.number:04d} ({run.row.arm})"


def condensed(found: list[Alert], most: int = 3) -> list[Alert]:
    """The same with at most `most` of a kind, the last of which says how many more there are."""
    shown: list[Alert] = []
    for kind in dict.fromkeys(alert.kind for alert in found):
        own = [alert for alert in found if alert.kind == kind]
        if len(own) > most:
            last = own[most - 1]
            more = f"{last.text} (and {len(own) - most} more)"
            own = [*own[: most - 1], Alert(last.kind, last.study, last.trial, more)]
        shown += own
    return shown
