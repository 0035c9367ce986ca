"""Runs by validation set: accuracies can be compared, and a front be drawn, only within one. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from suite.ranking.leaderboard import ValidationSet
from tui.model.filters import Subject, parse
from tui.model.snapshot import Key, Run


def by_set(runs: Sequence[Run]) -> dict[ValidationSet, list[Run]]:
    """The runs of each validation set, the largest first."""
    groups: dict[ValidationSet, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.row.validation, []).append(run)
    return dict(sorted(groups.items(), key=lambda pair: (-len(pair[1]), str(pair[0]))))


def chosen_set(groups: dict[ValidationSet, list[Run]], key: Key | None) -> ValidationSet | None:
    """The set of the run under the cursor, or else the one with most runs; None without runs."""
    own = (name for name, runs in groups.items() if any(run.key == key for run in runs))
    return next(own, next(iter(groups), None))


def filter_of(group: Sequence[Run], runs: Sequence[Run]) -> str | None:
    """A filter that passes the runs of one validation set and no others; None if no short one does."""
    if not group:
        return None
    dataset = _quoted("data=", group[0].trial.dataset)
    studies = sorted({run.row.study for run in group})
    texts = [dataset, *(_quoted("study=", name) for name in studies[:1] if len(studies) == 1)]
    others = sorted({run.row.study for run in runs if run.row.validation != group[0].row.validation} - {*studies})
    texts += [" ".join(_quoted("study!=", name) for name in others)] if len(others) <= 2 else []
    texts += [f"{dataset} {text}" for text in texts[1:]]
    wanted = {run.key for run in group}
    for text in texts:
        terms = parse(text)
        if {run.key for run in runs if terms.matches(Subject(run.row, run.trial.dataset))} == wanted:
            return text
    return None


def _quoted(field: str, name: str) -> str:
    return f'{field}"{name}"' if any(letter.isspace() for letter in name) else f"{field}{name}"
