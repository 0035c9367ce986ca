"""Accuracy against each cost: the front, how much it covers, its knee, and what the next tenth of a point costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from suite.ranking import statistics
from suite.ranking.leaderboard import COSTS, Row, column, pareto

STEP = 0.001  # a tenth of a percentage point


def front(rows: Sequence[Row], cost: str) -> dict[str, Any] | None:
    """The front of validation accuracy against one cost; None where no finished trial knows that cost.

    `hypervolume` is in accuracy times decades of cost, against the dearest and the least accurate finished trial;
    a cost of nothing counts as the smallest that is not. `price` is the added cost of a tenth of a point between a
    point and the next; `knee` is found on the logarithm of the cost.
    """
    points = [r for r in rows if r.state == "finished" and r.accuracy is not None and getattr(r, cost) is not None]
    if not points:
        return None
    best = pareto(points, cost)
    spent = [float(getattr(r, cost)) for r in points]
    least = min((c for c in spent if c > 0), default=1.0)

    def decades(value: float) -> float:
        return math.log10(max(value, least))

    plane = [(decades(getattr(r, cost)), r.accuracy or 0.0) for r in best]
    reference = (decades(max(spent)), min(r.accuracy or 0.0 for r in points))
    bend = statistics.knee(plane)
    prices = statistics.prices([(float(getattr(r, cost)), r.accuracy or 0.0) for r in best], STEP)
    return {
        "cost": cost,
        "title": column(cost).title,
        "points": [
            {
                "study": r.study,
                "trial": r.trial,
                "arm": r.arm,
                "cost": getattr(r, cost),
                "accuracy": r.accuracy,
                "price": price,
            }
            for r, price in zip(best, prices)
        ],
        "knee": best[bend].trial if bend is not None else None,
        "hypervolume": statistics.hypervolume(plane, reference),
        "reference": {"cost": max(spent), "accuracy": reference[1]},
    }


def fronts(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """`front` for every cost that is known."""
    return {cost: found for cost in COSTS if (found := front(rows, cost)) is not None}


def as_text(found: dict[str, Any]) -> str:
    """One front for a terminal."""
    show = column(found["cost"]).text
    lines = [f"{found['title']} (hypervolume {found['hypervolume']:.4g})"]
    for point in found["points"]:
        knee = "   <- knee" if point["trial"] == found["knee"] else ""
        price = f"   then {show(point['price'])} for each 0.1 point" if point["price"] is not None else ""
        where = f"{100 * point['accuracy']:7.2f}%  {point['study']}/{point['trial']}  {point['arm']}"
        lines.append(f"  {show(point['cost']):>10}  {where}{price}{knee}")
    return "\n".join(lines)
