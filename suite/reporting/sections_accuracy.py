"""The leaderboard, and accuracy against each cost."""

from __future__ import annotations

from suite.ranking.formats import hyperparameters
from suite.ranking.gains import Gain
from suite.ranking.leaderboard import column, text
from suite.ranking.pareto import Front
from suite.reporting import plots_accuracy
from suite.reporting.document import Gallery, Picture, Section, Table, Text, known
from suite.reporting.facts import Facts
from suite.reporting.text import interval, percent, points

SHOWN = 20  # rows of the leaderboard

COSTS = {  # drawn where known
    "flops": "FLOPs an image",
    "params": "parameters",
    "trainable": "trained parameters",
    "train_flops": "FLOPs of training",
    "seconds": "time of training",
    "memory": "peak memory of training",
    "energy": "energy of training",
    "latency": "time for one image",
}


def leaderboard(facts: Facts) -> Section:
    trainable = ["trainable"] * _some_frozen(facts)
    keys = ("flops", "params", *trainable, "train_flops", "seconds", "energy", "latency", "tuned")
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


def found(facts: Facts) -> Section | None:
    """What the search of each arm found over its default recipe."""
    if all(one.trials == 1 and one.fresh is None for one in facts.gains.values()):
        return None
    head = ("arm", "winner", "tuned", "in the search", "fresh seeds, mean", "95 %", "over the default, points", "95 %")
    fresh = [one for one in facts.gains.values() if one.fresh]
    note = "The best of several noisy accuracies is too high on average, so the figures of the search are optimistic."
    if fresh:
        note += (
            " The finalists of each arm, the recipes within one standard error of its best, were therefore trained "
            "again with fresh seeds, and so was its default recipe. The interval of a mean is Student's t; the gain is "
            "that of the winner, paired over the seeds."
        )
    if len(fresh) < len(facts.gains):
        note += (
            " A gain without fresh seeds is that of the search, with Newcombe's interval for two independent samples "
            "of the validation images; it leaves out that the best was selected."
        )
    return Section("What the search found", [Text(note), known(head, [_found(one) for one in facts.gains.values()])])


def _found(one: Gain) -> list[str]:
    over, mean = one.over_default, one.fresh
    bounds = (
        "-" if over is None or over.low is None or over.high is None else f"{points(over.low)} to {points(over.high)}"
    )
    return [
        f"{one.arm}, best of {one.trials}",
        one.winner[:4],
        hyperparameters(one.params),
        percent(one.accuracy),
        f"{percent(mean.mean)} of {mean.n}" if mean else "-",
        interval(mean.low, mean.high) if mean else "-",
        "-" if over is None else points(over.value),
        bounds,
    ]


def fronts(facts: Facts) -> Section | None:
    hidden = set() if _some_frozen(facts) else {"trainable", "memory"}
    drawn = [facts.fronts[cost] for cost in COSTS if cost in facts.fronts and cost not in hidden]
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


def _some_frozen(facts: Facts) -> bool:
    """Whether some trials train a part of the parameters alone: what is trained is then a cost of its own."""
    return any(r.trainable != r.params for r in facts.rows if r.state == "finished")


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
