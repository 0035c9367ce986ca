"""What a report says, as plain blocks of text, tables and pictures; how it is laid out is for the templates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from suite import leaderboard, plots, stats
from suite.blocks import Block, Facts, Gallery, Picture, Section, Table, Text
from suite.bookkeeping import costs, provenance

SHOWN = 20  # rows of the leaderboard
COSTS = ("flops", "params", "train_flops", "seconds", "energy", "latency")  # drawn where known


def sections(facts: Facts) -> list[Section]:
    """The report from top to bottom; sections without anything to show are left out."""
    made = [protocol(facts), final(facts), board(facts), pareto(facts), learning(facts), search(facts)]
    made += [mistakes(facts), classes(facts), calibration(facts), costs(facts), provenance(facts)]
    return [section for section in made if section is not None]


def percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def summary(facts: Facts) -> str:
    """The answer in a sentence or two."""
    if facts.outcome is not None:
        rows = [row for row in facts.outcome["finalists"] if row["represents_arm"]]
        parts = [f"{row['arm']} {_mean(row['test'])}" for row in sorted(rows, key=lambda r: -r["test"]["mean"])]
        n = facts.outcome["seeds"]
        return (
            f"Test accuracy, {f'mean of {n} fresh trainings' if n > 1 else 'one fresh training'}: {'; '.join(parts)}."
        )
    best = [(arm, row) for arm in facts.arms if (row := facts.best(arm)) is not None]
    parts = [f"{arm} {percent(row.accuracy)}" for arm, row in sorted(best, key=lambda b: -(b[1].accuracy or 0))]
    return (
        f"Best validation accuracy of each arm, optimistic because the search chose by it: {'; '.join(parts)}. "
        "The test images have not been read."
    )


def _mean(test: Mapping[str, Any]) -> str:
    if test["sd"] is None:
        return percent(test["mean"])
    return (
        f"{percent(test['mean'])} (sd {100 * test['sd']:.2f}, 95 % {100 * test['low']:.2f} to {100 * test['high']:.2f})"
    )


# --- sections -----------------------------------------------------------------------------------------------------


def protocol(facts: Facts) -> Section:
    plan, kinds = facts.study.experiment, Counter(s.state for s in facts.states)
    ended = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    pruning = "no pruning"
    if plan.pruning is not None:
        pruning = (
            f"pruning by successive halving, one in {plan.pruning.factor} going on from epoch {plan.pruning.first}"
        )
    lines = [
        f"{len(facts.states)} trials ({ended}) over {len(plan.arms)} arms with the same number each; {pruning}. Every "
        f"arm begins with its own recipe, then Optuna's TPE sampler chooses. One seed for all trials of the search.",
        f"Data: {plan.dataset}. Validation is a tenth of the official training images, by class and fixed: "
        f"{facts.images:,} images here. The search sees training and validation images only."
        + (f" This study was cut to {plan.limit:,} images of each split." if plan.limit else ""),
    ]
    readings = facts.outcome["readings"] if facts.outcome else []
    if facts.outcome:
        first = time.strftime("%Y-%m-%d %H:%M", time.localtime(readings[0]["time"]))
        other = readings[-1]["earlier_in_other_studies"]
        lines.append(
            f"Final evaluation: the best {facts.outcome['top']} of each arm by validation accuracy were trained again "
            f"with {facts.outcome['seeds']} fresh seeds. The test images were read {_times(len(readings))} for this "
            f"study, first on {first}" + (f", and {_times(other)} by other studies here." if other else ".")
        )
        if late := sum(s.record.ended > readings[0]["time"] for s in facts.states if s.record):
            lines.append(
                f"Careful: {late} trials of the search ended after the test images were first read; whoever went on "
                "searching had seen their figures."
            )
    arms = [
        [
            name,
            arm.backbone,
            arm.strategy.kind,
            arm.weights or "random",
            str(arm.size or "native"),
            f"{arm.fraction:.0%}",
        ]
        for name, arm in plan.arms.items()
    ]
    table = Table(("arm", "backbone", "strategy", "weights", "input size", "labels used"), arms)
    return Section("Protocol", [*map(Text, lines), table])


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def final(facts: Facts) -> Section | None:
    found = facts.outcome
    if found is None:
        return None
    rows = [
        [
            ("* " if row["represents_arm"] else "") + row["arm"],
            row["trial"][:4],
            percent(row["test"]["mean"], 3),
            "-" if row["test"]["sd"] is None else f"{100 * row['test']['sd']:.3f}",
            str(row["test"]["n"]),
            "-" if row["test"]["low"] is None else f"{100 * row['test']['low']:.2f} to {100 * row['test']['high']:.2f}",
            f"{100 * row['wilson'][0]:.2f} to {100 * row['wilson'][1]:.2f}",
            percent(row["search_accuracy"]),
        ]
        for row in found["finalists"]
    ]
    head = ("arm", "trial", "test", "sd", "n", "95 % of the mean", "95 % of one model", "search (optimistic)")
    pairs = [
        [
            f"{p['first']} - {p['second']}",
            "-" if p["paired_t"]["difference"] is None else f"{100 * p['paired_t']['difference']:+.3f}",
            "-"
            if p["paired_t"]["low"] is None
            else f"{100 * p['paired_t']['low']:+.2f} to {100 * p['paired_t']['high']:+.2f}",
            _p(p["paired_t"]["p_holm"]),
            f"{p['mcnemar']['only_first']} : {p['mcnemar']['only_second']}",
            _p(p["mcnemar"]["mid_holm"]),
        ]
        for p in found["comparisons"]
    ]
    pair_head = ("arms", "difference, points", "95 %", "paired t, p", "only one right", "McNemar mid-p, p")
    picture = Picture(
        "final",
        "Finalists on the test images",
        "Test accuracy of each finalist with the interval over seeds",
        lambda: plots.finals(found["finalists"], facts.looks),
    )
    note = (
        "A star marks the finalist that stands for its arm: the best by mean validation accuracy of the new "
        "trainings, never by test. The interval of the mean is Student's t over seeds; that of one model is Wilson's, "
        "for the first seed. Seeds vary the training; weights that several models stand on are shared."
    )
    blocks: list[Block] = [Table(head, rows), Text(note), Gallery([picture])]
    if pairs:
        caption = "Arms in pairs, over seeds and image by image (first seed); p values by Holm's method"
        blocks.append(Table(pair_head, pairs, caption))
    return Section("Final evaluation", blocks)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def board(facts: Facts) -> Section:
    keys = ("rank", "number", "arm", "accuracy", "low", "high", "flops", "params", "train_flops", "seconds", "energy")
    keys = (*keys, "latency", "tuned")
    shown = [r for r in facts.rows if r.state == "finished"][:SHOWN]
    rows = [[leaderboard.text(r, key) for key in keys] for r in shown]
    hidden = len(facts.rows) - len(shown)
    note = (
        "By validation accuracy, with Wilson's 95 % interval for its images; optimistic, since the search chose by it. "
        "A star: nothing finished is as accurate for fewer FLOPs. FLOPs count a multiply-add as two."
        + (f" {hidden} more trials are not shown: worse, pruned or failed." if hidden > 0 else "")
    )
    return Section("Leaderboard", [Text(note), Table([leaderboard.column(k).title for k in keys], rows)])


def pareto(facts: Facts) -> Section | None:
    drawn = [cost for cost in COSTS if cost in facts.fronts]
    if not drawn:
        return None

    def picture(cost: str) -> Picture:
        found = facts.fronts[cost]
        title = f"Accuracy and {found['title']}"
        alt = f"Validation error of every finished trial against {found['title']}, with the front of the best"
        return Picture(f"pareto-{cost}", title, alt, lambda: plots.front(facts.rows, found, facts.images, facts.looks))

    rows: list[list[str]] = []
    for cost in drawn:
        found, show = facts.fronts[cost], leaderboard.column(cost).text
        for i, point in enumerate(found["points"]):
            rows.append(
                [
                    "" if i else f"{found['title']} ({found['hypervolume']:.3g})",
                    show(point["cost"]),
                    percent(point["accuracy"]),
                    f"{point['trial'][:4]} {point['arm']}",
                    "-" if point["price"] is None else show(point["price"]),
                    "knee" if point["trial"] == found["knee"] else "",
                ]
            )
    head = ("cost (hypervolume)", "of", "accuracy", "trial", "next 0.1 point costs", "")
    note = (
        "The staircase joins the trials that nothing beats in accuracy at the same or a lower cost. The knee is the "
        "point of it farthest above the line between its ends, on the logarithm of the cost. The hypervolume is the "
        "area that it dominates, in accuracy times decades of cost, counted from the dearest and the least accurate "
        "finished trial."
    )
    return Section("Accuracy against cost", [Gallery([picture(c) for c in drawn]), Text(note), Table(head, rows)])


def learning(facts: Facts) -> Section | None:
    best = {arm: [row] for arm in facts.arms if (row := _curve(facts, arm))}
    pictures = [
        Picture(
            "curves-best",
            "Best trial of each arm; bands: Wilson, 95 %",
            "Validation error by epoch of the best trial of each arm",
            lambda: plots.curves(best, facts.images, facts.looks),
        )
    ]
    if facts.final_curves:
        pictures.append(
            Picture(
                "curves-final",
                "Each arm's finalist; bands: 95 % of the mean over seeds",
                "Validation error by epoch, averaged over fresh seeds",
                lambda: plots.curves(facts.final_curves, facts.images, facts.looks),
            )
        )
    pictures.append(
        Picture(
            "course",
            "The search as it went",
            "Validation error of every trial by its number, and the best of each arm so far",
            lambda: plots.course(facts.rows, facts.images, facts.looks),
        )
    )
    if (transfer := labels(facts)) is not None:
        pictures.append(transfer)
    return Section("Learning curves", [Gallery(pictures)]) if best else None


def labels(facts: Facts) -> Picture | None:
    """Error against the part of the labels used, where arms differ in that alone: a line a backbone and strategy."""
    plan = facts.study.experiment
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, arm in plan.arms.items():
        if (best := facts.best(name)) is not None:
            family = f"{arm.backbone.removeprefix('timm:')} {arm.strategy.kind}"
            lines.setdefault(family, []).append((arm.fraction, best.accuracy or 0.0))
    lines = {family: points for family, points in lines.items() if len({share for share, _ in points}) > 1}
    if not lines:
        return None
    return Picture(
        "labels",
        "Accuracy and labels used; bars: Wilson, 95 %",
        "Validation error of the best trial against the share of training labels, by backbone and strategy",
        lambda: plots.labels(lines, facts.images),
    )


def _curve(facts: Facts, arm: str) -> list[tuple[float, float]]:
    best = facts.best(arm)
    return next((s.curve for s in facts.states if best is not None and s.id == best.trial), [])


def search(facts: Facts) -> Section | None:
    plan = facts.study.experiment
    spaces = {path: r for arm in plan.arms.values() for path, r in {**plan.space, **arm.space}.items()}
    pictures = [
        Picture(
            f"slice-{name.replace('.', '-')}",
            name,
            f"Validation error against {name}",
            lambda name=name, choices=choices: plots.slices(facts.rows, name, choices, facts.images, facts.looks),
        )
        for name, choices in spaces.items()
        if any(name in r.tuned for r in facts.rows)
    ]
    if facts.importances:
        first = Picture(
            "importance",
            "Importance of the hyperparameters",
            "Share of each hyperparameter in the variation of accuracy, by arm",
            lambda: plots.importances(facts.importances, facts.looks),
        )
        pictures.insert(0, first)
    note = (
        "Hollow marks were pruned. Importance is fANOVA's (Hutter et al., 2014), from finished trials alone; with a "
        "dozen trials an arm it is a hint, no more."
    )
    return Section("Hyperparameters", [Text(note), Gallery(pictures)]) if pictures else None


def _errors(facts: Facts) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    if facts.tested:
        return facts.tested, "test images, the first fresh model of each arm's finalist"
    return facts.errors, "validation images, the best trial of each arm"


def mistakes(facts: Facts) -> Section | None:
    found, where = _errors(facts)
    pictures: list[Picture] = []
    for arm, one in found.items():
        wrong = sum(map(sum, one["confusion"])) - sum(row[i] for i, row in enumerate(one["confusion"]))
        total = sum(map(sum, one["confusion"]))
        pictures.append(
            Picture(
                f"confusion-{arm}",
                f"{arm}: {wrong:,} of {total:,} wrong",
                f"Confusion matrix of {arm} without its diagonal",
                lambda one=one: plots.confusion(one["confusion"], one["classes"]),
            )
        )
    for arm, one in found.items():
        if one["worst"]:
            pictures.append(
                Picture(
                    f"worst-{arm}",
                    f"{arm}: its surest mistakes",
                    f"Images that {arm} got wrong with the highest confidence",
                    lambda one=one: plots.worst(one["worst"], one["classes"]),
                )
            )
    return Section("Mistakes", [Text(f"On the {where}."), Gallery(pictures)]) if pictures else None


def classes(facts: Facts) -> Section | None:
    found, where = _errors(facts)
    if not found:
        return None
    names = facts.study.classes
    figures = {arm: stats.per_class(one["confusion"]) for arm, one in found.items()}
    rows = [
        [name, str(int(next(iter(figures.values()))[i]["count"]))]
        + [
            f"{100 * f[i]['precision']:.1f} / {100 * f[i]['recall']:.1f} / {100 * f[i]['f1']:.1f}"
            for f in figures.values()
        ]
        for i, name in enumerate(names)
    ]
    caption = f"Precision / recall / F1 in percent, on the {where}"
    return Section("Every class", [Table(("class", "images", *figures), rows, caption)])


def calibration(facts: Facts) -> Section | None:
    if not facts.tested:
        return None
    bins = {arm: [stats.Bin(**b) for b in one["bins"]] for arm, one in facts.tested.items()}
    rows = [[arm, percent(one["ece"]), f"{one['loss']:.4f}"] for arm, one in facts.tested.items()]
    picture = Picture(
        "reliability",
        "Reliability on the test images",
        "Accuracy against confidence in bins, with the diagonal of perfect calibration",
        lambda: plots.reliability(bins, facts.looks),
    )
    note = "Expected calibration error over 15 bins of equal width (Guo et al., 2017); 0 is perfect."
    return Section("Calibration", [Text(note), Gallery([picture]), Table(("arm", "ECE", "cross-entropy"), rows)])
