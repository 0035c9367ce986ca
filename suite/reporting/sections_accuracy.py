"""The leaderboard, and accuracy against each cost."""

from __future__ import annotations

from suite.ranking.leaderboard import column, text
from suite.ranking.pareto import Front
from suite.reporting import plots_accuracy
from suite.reporting.document import Gallery, Picture, Section, Table, Text, known
from suite.reporting.facts import Facts
from suite.reporting.text import interval, percent

SHOWN = 20  # rows of the leaderboard

COSTS = {  # drawn where known
    "flops": "FLOPs an image",
    "params": "parameters",
    "train_flops": "FLOPs of training",
    "seconds": "time of training",
    "energy": "energy of training",
    "latency": "time for one image",
}


def leaderboard(facts: Facts) -> Section:
    keys = ("flops", "params", "train_flops", "seconds", "energy", "latency", "tuned")
    shown = [r for r in facts.rows if r.state == "finished"][:SHOWN]
    rows = [
        [text(r, key) for key in ("rank", "number", "arm", "accuracy")]
        + [interval(r.low, r.high), *(text(r, key) for key in keys)]
        for r in shown
    ]
    hidden = len(facts.rows) - len(shown)
    note = (
        "By validation accuracy, with Wilson's 95 % interval for its images; optimistic, since the search selects by "
        "it. A star: no finished trial is as accurate for fewer FLOPs an image. FLOPs count a multiply-add as two; "
        "latency is the time for one image."
        + (f" {hidden} more trials are not shown: worse, pruned or failed." if hidden else "")
    )
    head = ["#", "trial", "arm", "accuracy", "95 %", *(column(key).title for key in keys)]
    return Section("Leaderboard", [Text(note), known(head, rows)])


def fronts(facts: Facts) -> Section | None:
    drawn = [facts.fronts[cost] for cost in COSTS if cost in facts.fronts]
    if not drawn:
        return None
    rows = [cells for found in drawn for cells in _front_cells(found)]
    head = ("cost (hypervolume)", "of", "accuracy", "trial", "next 0.1 point costs", "")
    left_out = ["pretraining, which What it cost lists"] if any(one.cost for one in facts.costs.pretraining) else []
    if any(s.record and s.record.cost and s.record.cost.setup_flops for s in facts.states):
        left_out.append("the features of frozen backbones, which the sums of What it cost contain")
    without = f", without {' and '.join(left_out)}" if left_out else ""
    note = (
        "The pictures show the error on a logarithmic axis: lower is better. The cost of training is that of the trial "
        f"alone{without}. The staircase joins the trials that no other one beats in accuracy at the same or a lower "
        "cost. The knee is its point farthest above the line between its ends, on the logarithm of the cost. The "
        "hypervolume is the area that it dominates, in accuracy times decades of cost, counted from the dearest and "
        "the least accurate finished trial."
    )
    gallery = Gallery([_picture(facts, found) for found in drawn])
    return Section("Accuracy against cost", [gallery, Text(note), Table(head, rows)])


def _picture(facts: Facts, found: Front) -> Picture:
    name = COSTS[found.cost]
    return Picture(
        f"pareto-{found.cost}",
        f"Accuracy and {name}",
        f"Validation error of every finished trial against {name}, with the front of the best",
        lambda: plots_accuracy.front(facts.rows, found, name, facts.images, facts.looks),
    )


def _front_cells(found: Front) -> list[list[str]]:
    show = column(found.cost).text
    return [
        [
            "" if i else f"{COSTS[found.cost]} ({found.hypervolume:.3g})",
            show(point.cost),
            percent(point.accuracy),
            f"{point.trial[:4]} {point.arm}",
            "-" if point.price is None else show(point.price),
            "knee" if point.trial == found.knee else "",
        ]
        for i, point in enumerate(found.points)
    ]
