"""Pareto fronts of validation accuracy against each cost, with hypervolume, knee and the price of more accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from suite.ranking import statistics
from suite.ranking.leaderboard import COSTS, Row, by_validation_set, column, name_of, pareto

STEP = 0.001  # of accuracy, that prices are given for: a tenth of a percentage point


@dataclass(frozen=True)
class FrontPoint:
    """A trial on the front."""

    study: str
    trial: str
    arm: str
    cost: float
    accuracy: float  # best on validation
    price: float | None  # added cost per STEP of accuracy up to the next point; None for the last one


@dataclass(frozen=True)
class Reference:
    """Where the hypervolume is counted from: the dearest and the least accurate finished trial."""

    cost: float
    accuracy: float


@dataclass(frozen=True)
class Front:
    """The front of one cost, cheapest point first."""

    cost: str  # the column's key
    title: str
    points: tuple[FrontPoint, ...]
    knee: str | None  # id of a trial
    hypervolume: float  # accuracy times decades of cost
    reference: Reference


def front(rows: Sequence[Row], cost: str) -> Front | None:
    """The front of validation accuracy against one cost; None where no finished trial knows that cost.

    The rows are of one validation set. Hypervolume and knee use the logarithm of the cost; a cost of zero counts as
    the smallest that is not.
    """
    points = [r for r in rows if r.state == "finished" and r.accuracy is not None and getattr(r, cost) is not None]
    if not points:
        return None
    best = pareto(points, cost)
    spent = [float(getattr(r, cost)) for r in points]
    smallest = min((c for c in spent if c > 0), default=1.0)

    def decades(value: float) -> float:
        return math.log10(max(value, smallest))

    plane = [(decades(getattr(r, cost)), r.accuracy or 0.0) for r in best]
    lowest = min(r.accuracy or 0.0 for r in points)
    knee = statistics.knee(plane)
    prices = statistics.prices([(float(getattr(r, cost)), r.accuracy or 0.0) for r in best], STEP)
    return Front(
        cost=cost,
        title=column(cost).title,
        points=tuple(
            FrontPoint(r.study, r.trial, r.arm, getattr(r, cost), r.accuracy or 0.0, price)
            for r, price in zip(best, prices)
        ),
        knee=best[knee].trial if knee is not None else None,
        hypervolume=statistics.hypervolume(plane, (decades(max(spent)), lowest)),
        reference=Reference(max(spent), lowest),
    )


def fronts(rows: Sequence[Row]) -> dict[str, Front]:
    """`front` for every cost that is known, by the cost's key.

    Where the rows are of several validation sets each has its own fronts, and key and title name the set too.
    """
    groups = by_validation_set(r for r in rows if r.state == "finished" and r.accuracy is not None)
    found = {(cost, group): made for group in groups for cost in COSTS if (made := front(groups[group], cost))}
    if len(groups) == 1:
        return {cost: made for (cost, _), made in found.items()}
    return {
        f"{cost} on {name_of(group)}": replace(made, title=f"{made.title} on {name_of(group)}")
        for (cost, group), made in found.items()
    }


def as_text(found: Front) -> str:
    """One front for a terminal."""
    show = column(found.cost).text
    lines = [f"{found.title} (hypervolume {found.hypervolume:.4g})"]
    for point in found.points:
        knee = "   <- knee" if point.trial == found.knee else ""
        price = f"   then {show(point.price)} for each 0.1 point" if point.price is not None else ""
        where = f"{100 * point.accuracy:7.2f}%  {point.study}/{point.trial}  {point.arm}"
        lines.append(f"  {show(point.cost):>10}  {where}{price}{knee}")
    return "\n".join(lines)
