"""What a report says, as plain blocks of text, tables and pictures; how it is laid out is for the templates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from suite.ranking import leaderboard as ranking_leaderboard
from suite.ranking import statistics
from suite.reporting import plots
from suite.reporting.document import Block, Facts, Gallery, Picture, Section, Table, Text, known
from suite.reporting.sections_costs import costs, provenance
from suite.spec import Arm, Bin, Choice, Range

SHOWN = 20  # rows of the leaderboard

COSTS = {  # drawn where known
    "flops": "FLOPs an image",
    "params": "parameters",
    "train_flops": "FLOPs of training",
    "seconds": "time of training",
    "energy": "energy of training",
    "latency": "time for one image",
}


def sections(facts: Facts) -> list[Section]:
    """The report from top to bottom; sections without anything to show are left out."""
    made = [protocol(facts), final(facts), board(facts), pareto(facts), learning(facts), labels(facts), search(facts)]
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
        trained = f"mean of {n} fresh trainings" if n > 1 else "one fresh training"
        return f"Test accuracy, {trained}: {'; '.join(parts)}.{_lead(facts.outcome)}"
    best = [(arm, row) for arm in facts.arms if (row := facts.best(arm)) is not None]
    parts = [f"{arm} {percent(row.accuracy)}" for arm, row in sorted(best, key=lambda b: -(b[1].accuracy or 0))]
    test = (
        "The test images were read, but what came of it is not there: `evaluate --final` has to be run to its end."
        if facts.read
        else "The test images have not been read."
    )
    return (
        f"Best validation accuracy of each arm, optimistic because the search chose by it: {'; '.join(parts)}. {test}"
    )


def _lead(found: Mapping[str, Any]) -> str:
    """By how much the best arm leads the next one, where that can be said."""
    best = sorted((r for r in found["finalists"] if r["represents_arm"]), key=lambda r: -r["test"]["mean"])[:2]
    names = [row["arm"] for row in best]
    for pair in found["comparisons"]:
        t = pair["paired_t"]
        if sorted(names) == sorted((pair["first"], pair["second"])) and t["low"] is not None:
            low, high = sorted(100 * (t[k] if pair["first"] == names[0] else -t[k]) for k in ("low", "high"))
            sure = "" if low > 0 else ", so it may as well be behind"
            return f" {names[0]} leads {names[1]} by {low:.2f} to {high:.2f} points (95 %, paired over seeds){sure}."
    return ""


def _mean(test: Mapping[str, Any]) -> str:
    if test["sd"] is None:
        return percent(test["mean"])
    return f"{percent(test['mean'])} (95 % {interval(test['low'], test['high'])})"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Bounds of an accuracy in percent; none goes beyond 0 and 100, as Student's t would with few seeds."""
    if low is None or high is None:
        return "-"
    return f"{100 * max(0.0, low):.{digits}f} to {100 * min(1.0, high):.{digits}f}"


# --- sections -----------------------------------------------------------------------------------------------------


def protocol(facts: Facts) -> Section:
    plan, kinds = facts.study.experiment, Counter(s.state for s in facts.states)
    ended = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    pruning = "no pruning"
    if plan.pruning is not None:
        pruning = (
            f"pruning by successive halving, one in {plan.pruning.factor} going on from epoch {plan.pruning.first:g}"
        )
    lines = [
        f"{len(facts.states)} trials ({ended}) over {len(plan.arms)} arms in equal shares; {pruning}. Every arm "
        "begins with its own recipe, then Optuna's TPE sampler chooses. One seed for all trials of the search.",
        f"Data: {plan.dataset}. The search sees training and validation images only. Validation is {facts.images:,} of "
        "the official training images, "
        + (f"as this study was cut to {plan.limit:,} images of each split" if plan.limit else "a tenth of them")
        + ", the same share of every class and always the same ones.",
    ]
    readings = facts.outcome["readings"] if facts.outcome else []
    if facts.outcome:
        first = time.strftime("%Y-%m-%d %H:%M", time.localtime(readings[0]["time"]))
        other = readings[-1]["earlier_in_other_studies"]
        lines.append(
            f"Final evaluation: {_best(facts.outcome['top'])} of each arm by validation accuracy, trained again with "
            f"{facts.outcome['seeds']} fresh seeds. The test images were read {_times(len(readings))} for this "
            f"study, first on {first}" + (f", and {_times(other)} by other studies here." if other else ".")
        )
        if late := sum(s.record.ended > readings[0]["time"] for s in facts.states if s.record):
            lines.append(
                f"Careful: {late} trials of the search ended after the test images were first read; whoever went on "
                "searching had seen their figures."
            )
    own = f"pretrained on {plan.pretraining.dataset}" if plan.pretraining else "pretrained"
    arms = [
        [
            name,
            arm.backbone,
            arm.strategy.kind,
            {None: "random", "pretrained": "published", "experiment": own}.get(arm.weights, arm.weights),
            str(arm.size or "native"),
            f"{100 * arm.fraction:g} %",
        ]
        for name, arm in plan.arms.items()
    ]
    table = Table(("arm", "backbone", "strategy", "weights", "input size", "labels used"), arms)
    return Section("Protocol", [*map(Text, lines), table])


def _best(n: int) -> str:
    return "the best" if n == 1 else f"the best {n}"


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
            interval(row["test"]["low"], row["test"]["high"]),
            interval(*row["wilson"]),
            percent(row["search_accuracy"]),
        ]
        for row in found["finalists"]
    ]
    head = ("arm", "trial", "test", "sd", "n", "mean, 95 % interval", "one model, 95 %", "search (optimistic)")
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
    blocks: list[Block] = [known(head, rows), Text(note), Gallery([picture])]
    if pairs:
        caption = "Arms in pairs, over seeds and image by image (first seed); p values by Holm's method"
        blocks.append(known(pair_head, pairs, caption))
    return Section("Final evaluation", blocks)


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def board(facts: Facts) -> Section:
    keys = ("flops", "params", "train_flops", "seconds", "energy", "latency", "tuned")
    shown = [r for r in facts.rows if r.state == "finished"][:SHOWN]
    rows = [
        [ranking_leaderboard.text(r, key) for key in ("rank", "number", "arm", "accuracy")]
        + [interval(r.low, r.high), *(ranking_leaderboard.text(r, key) for key in keys)]
        for r in shown
    ]
    hidden = len(facts.rows) - len(shown)
    note = (
        "By validation accuracy, with Wilson's 95 % interval for its images; optimistic, since the search chose by it. "
        "A star: nothing finished is as accurate for fewer FLOPs an image. FLOPs count a multiply-add as two; latency "
        "is the time for one image."
        + (f" {hidden} more trials are not shown: worse, pruned or failed." if hidden else "")
    )
    head = ["#", "trial", "arm", "accuracy", "95 %", *(ranking_leaderboard.column(k).title for k in keys)]
    return Section("Leaderboard", [Text(note), known(head, rows)])


def pareto(facts: Facts) -> Section | None:
    drawn = [cost for cost in COSTS if cost in facts.fronts]
    if not drawn:
        return None

    def picture(cost: str) -> Picture:
        alt = f"Validation error of every finished trial against {COSTS[cost]}, with the front of the best"
        return Picture(
            f"pareto-{cost}",
            f"Accuracy and {COSTS[cost]}",
            alt,
            lambda: plots.front(facts.rows, facts.fronts[cost], COSTS[cost], facts.images, facts.looks),
        )

    rows: list[list[str]] = []
    for cost in drawn:
        found, show = facts.fronts[cost], ranking_leaderboard.column(cost).text
        for i, point in enumerate(found["points"]):
            rows.append(
                [
                    "" if i else f"{COSTS[cost]} ({found['hypervolume']:.3g})",
                    show(point["cost"]),
                    percent(point["accuracy"]),
                    f"{point['trial'][:4]} {point['arm']}",
                    "-" if point["price"] is None else show(point["price"]),
                    "knee" if point["trial"] == found["knee"] else "",
                ]
            )
    head = ("cost (hypervolume)", "of", "accuracy", "trial", "next 0.1 point costs", "")
    note = (
        "The pictures show the error, on a logarithm: lower is better. The cost of training is that of the trial "
        "alone, without what it stands on: pretraining and the features of frozen backbones are in What it cost. The "
        "staircase joins the trials that nothing beats in accuracy at the same or a lower cost. The knee is the "
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
            "Best trials; bands: Wilson, 95 %",
            "Validation error by epoch of the best trial of each arm",
            lambda: plots.curves(best, facts.images, facts.looks),
        )
    ]
    if facts.final_curves:
        pictures.append(
            Picture(
                "curves-final",
                "Finalists; bands: 95 % over seeds",
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
    return Section("Learning curves", [Gallery(pictures)]) if best else None


def labels(facts: Facts) -> Section | None:
    """Accuracy against the part of the labels used, where arms differ in that alone."""
    plan = facts.study.experiment
    families: dict[str, list[str]] = {}
    for name, arm in plan.arms.items():
        families.setdefault(arm.model_dump_json(exclude={"fraction"}), []).append(name)
    families = {
        _family(plan.arms[arms[0]], arms): arms
        for arms in families.values()
        if len({plan.arms[name].fraction for name in arms}) > 1
    }
    finalists = facts.outcome["finalists"] if facts.outcome else []
    finals = {row["arm"]: row["test"] for row in finalists if row["represents_arm"]}
    searched: dict[str, list[plots.Share]] = {}
    tested: dict[str, list[plots.Share]] = {}
    for family, arms in families.items():
        for arm in sorted(arms, key=lambda name: plan.arms[name].fraction):
            share, best, test = plan.arms[arm].fraction, facts.best(arm), finals.get(arm)
            if best is not None and best.accuracy is not None:
                searched.setdefault(family, []).append((share, best.accuracy, best.low, best.high))
            if test is not None:
                tested.setdefault(family, []).append((share, test["mean"], test["low"], test["high"]))
    kinds = [
        ("labels", "Validation", "best trials; bars: Wilson, 95 %", searched),
        ("labels-test", "Test", "finalists; bars: 95 % over seeds", tested),
    ]
    pictures = [
        Picture(
            name,
            f"{which}, {how}",
            f"{which} error against the share of training labels used, a line a way of training",
            lambda which=which, found=found: plots.labels(found, f"{which.lower()} error, %", facts.images),
        )
        for name, which, how, found in kinds
        if found
    ]
    shares = sorted({share for points in searched.values() for share, *_ in points})
    found = tested or searched
    rows = [
        [family, *("-" if (a := {p[0]: p[1] for p in points}.get(share)) is None else percent(a) for share in shares)]
        for family, points in found.items()
    ]
    caption = f"{'Mean test' if tested else 'Best validation'} accuracy by the share of the training labels used"
    note = "The smaller shares lie within the larger ones, and hold the same part of every class." + (
        f" This study was cut to {plan.limit:,} images, so large shares may be less than they say."
        if plan.limit
        else ""
    )
    table = Table(("arms", *(f"{100 * share:g} %" for share in shares)), rows, caption)
    return Section("Labels used", [Text(note), Gallery(pictures), table]) if pictures else None


def _family(arm: Arm, names: Sequence[str]) -> str:
    """What arms that differ in their share of the labels have in common, as a name."""
    stems = {name.rstrip("0123456789.").rstrip("-_") for name in names}
    return stems.pop() if len(stems) == 1 else f"{arm.backbone.removeprefix('timm:')} {arm.strategy.kind}"


def _curve(facts: Facts, arm: str) -> list[tuple[float, float]]:
    best = facts.best(arm)
    return next((s.curve for s in facts.states if best is not None and s.id == best.trial), [])


def search(facts: Facts) -> Section | None:
    spaces = {arm: space for arm in facts.arms if (space := _tuned(facts, arm))}
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}  # arms by what was tuned in them
    for arm, space in spaces.items():
        alike.setdefault(tuple((name, choices.kind) for name, choices in space.items()), []).append(arm)
    pictures: list[Picture] = []
    if facts.importances:
        pictures.append(
            Picture(
                "importance",
                "Importance of the hyperparameters",
                "Share of each hyperparameter in the variation of accuracy, by arm",
                lambda: plots.importances(facts.importances, facts.looks),
            )
        )
    for i, arms in enumerate(alike.values()):
        whole = {name: joined([spaces[arm][name] for arm in arms]) for name in spaces[arms[0]]}
        looks = {arm: facts.looks[arm] for arm in arms}
        pictures.append(
            Picture(
                f"parallel-{i + 1}" if len(alike) > 1 else "parallel",
                "All trials, from choices to accuracy" + (f": {', '.join(arms)}" if len(alike) > 1 else ""),
                f"Parallel coordinates: a line a trial through {', '.join(whole)} to its validation accuracy",
                lambda whole=whole, looks=looks: plots.parallel(facts.rows, whole, facts.images, looks),
            )
        )
    for name in dict.fromkeys(name for space in spaces.values() for name in space):
        choices = joined([space[name] for space in spaces.values() if name in space])
        pictures.append(
            Picture(
                f"slice-{name.replace('.', '-')}",
                f"Accuracy and {name}",
                f"Validation error against {name}",
                lambda name=name, choices=choices: plots.slices(facts.rows, name, choices, facts.images, facts.looks),
            )
        )
    note = (
        "Faint lines and hollow marks were pruned; the bold line is the best of its arm. Importance is fANOVA's "
        "(Hutter et al., 2014), from finished trials alone; with a dozen trials an arm it is a hint, no more."
    )
    return Section("Hyperparameters", [Text(note), Gallery(pictures)]) if pictures else None


def _tuned(facts: Facts, arm: str) -> dict[str, Range]:
    """What was searched in an arm, as far as a trial that came to something tells of it."""
    plan = facts.study.experiment
    own = [r for r in facts.rows if r.arm == arm and r.accuracy is not None and r.state in ("finished", "pruned")]
    space = {**plan.space, **plan.arms[arm].space}
    return {name: choices for name, choices in space.items() if own and all(name in r.tuned for r in own)}


def joined(ranges: Sequence[Range]) -> Range:
    """One range that holds all those that are of the kind of the first."""
    first = ranges[0]
    if isinstance(first, Choice):
        return Choice(values=tuple(dict.fromkeys(v for r in ranges if isinstance(r, Choice) for v in r.values)))
    alike = [r for r in ranges if isinstance(r, type(first))]
    return first.model_copy(update={"low": min(r.low for r in alike), "high": max(r.high for r in alike)})


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
    figures = {arm: statistics.per_class(one["confusion"]) for arm, one in found.items()}
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
    found, where = _errors(facts)
    found = {arm: one for arm, one in found.items() if one.get("bins")}  # studies of before had none on validation
    if not found:
        return None
    bins = {arm: [Bin(**b) for b in one["bins"]] for arm, one in found.items()}
    rows = [[arm, percent(one["ece"])] for arm, one in found.items()]
    picture = Picture(
        "reliability",
        "Reliability: right as often as sure?",
        "Accuracy against confidence in bins, with the diagonal of perfect calibration",
        lambda: plots.reliability(bins, facts.looks),
    )
    note = (
        f"On the {where}. Marks below the diagonal are too sure of themselves; they grow with the number of images. "
        "The expected calibration error (ECE) is the mean gap over 15 bins of equal width (Guo et al., 2017): 0 is "
        "perfect."
    )
    return Section("Calibration", [Text(note), Gallery([picture]), Table(("arm", "ECE"), rows)])
