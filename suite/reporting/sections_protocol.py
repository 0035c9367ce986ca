"""The answer in a sentence, the protocol, and the final evaluation on the test images."""

from __future__ import annotations

from collections import Counter

from suite.ranking.final import Comparison, EnsembleFigures, FinalEvaluation, Finalist, PairedFigures
from suite.ranking.statistics import Sample, bonferroni, paired_difference, simultaneous
from suite.reporting import plots_accuracy
from suite.reporting.document import Block, Gallery, Picture, Section, Table, Text, known
from suite.reporting.facts import Facts
from suite.reporting.text import interval, moment, p_value, percent, points, times


def summary(facts: Facts) -> str:
    """The answer in a sentence or two."""
    if (found := facts.evaluation) is not None:
        rows = sorted(found.representatives, key=lambda row: -row.test.mean)
        parts = [f"{row.arm} {_mean(row.test)}" for row in rows]
        trained = f"mean of {found.seeds} fresh trainings" if found.seeds > 1 else "one fresh training"
        return " ".join([f"Test accuracy, {trained}: {'; '.join(parts)}.", *_lead(found)])
    fresh = {arm: one.fresh for arm, one in facts.gains.items() if one.fresh}
    if fresh.keys() == facts.gains.keys():
        what = "Mean validation accuracy of the winner of each arm over fresh seeds"
        parts = [f"{arm} {_mean(mean)}" for arm, mean in sorted(fresh.items(), key=lambda b: -b[1].mean)]
    else:
        what = "Best validation accuracy of each arm, optimistic because the search selects by it"
        best = sorted(facts.gains.items(), key=lambda b: -b[1].accuracy)
        parts = [f"{arm} {percent(one.accuracy)}" for arm, one in best]
    test = "The test images have not been read."
    if facts.test_was_read:
        test = "The test images were read, but the results are missing: run `evaluate --final` again to complete them."
    return f"{what}: {'; '.join(parts)}. {test}"


def _mean(test: Sample) -> str:
    if test.sd is None:
        return percent(test.mean)
    return f"{percent(test.mean)} (95 % {interval(test.low, test.high)})"


def _lead(found: FinalEvaluation) -> list[str]:
    """Whether the arm that is first by validation leads the second one on test; nothing where that is not known.

    Validation picks the pair: a pair picked by its test accuracies would have a gap that is too large.
    """
    names = [row.arm for row in found.representatives[:2]]
    pair = next((pair for pair in found.comparisons if sorted((pair.first, pair.second)) == sorted(names)), None)
    adjusted = _simultaneous(pair.paired_t, len(found.comparisons)) if pair else None
    if pair is None or adjusted is None or pair.paired_t.difference is None:
        return []
    sign = 1 if pair.first == names[0] else -1
    low, high = sorted(sign * bound for bound in adjusted)
    settled = f"{names[0]} is ahead" if low > 0 else f"{names[1]} is ahead" if high < 0 else "which is ahead is open"
    others = f", adjusted for {len(found.comparisons)} comparisons" if len(found.comparisons) > 1 else ""
    p = _adjusted_p(pair.paired_t, len(found.comparisons))
    return [
        f"{names[0]}, first by validation accuracy, minus {names[1]}, the second: "
        f"{points(sign * pair.paired_t.difference)} points on test (95 % {points(low)} to {points(high)}, paired over "
        f"seeds{others}{f'; p {p}' if p != '-' else ''}), so {settled}."
    ]


def _adjusted(t: PairedFigures, comparisons: int) -> list[str]:
    """Interval and p value, each adjusted for the number of comparisons."""
    bounds = _simultaneous(t, comparisons)
    return ["-" if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}", _adjusted_p(t, comparisons)]


def _simultaneous(t: PairedFigures, comparisons: int) -> tuple[float, float] | None:
    """The interval of a difference of test accuracies that holds together with those of the other comparisons."""
    if t.low is None or t.high is None:
        return None
    low, high = simultaneous(t.low, t.high, t.n, comparisons)
    return max(-1.0, low), min(1.0, high)


def _adjusted_p(t: PairedFigures, comparisons: int) -> str:
    """By Bonferroni, as the interval: below 0.05 exactly where the interval excludes zero."""
    return p_value(None if t.p is None else bonferroni(t.p, comparisons))


def protocol(facts: Facts) -> Section:
    plan, kinds = facts.study.experiment, Counter(s.state for s in facts.states)
    ended = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    share = f"at most {plan.limit:,}, the limit for both splits" if plan.limit else "a tenth"
    lines = [
        f"{len(facts.states)} trials ({ended}) over {len(plan.arms)} arms in equal shares. {choice(facts)} All trials "
        "of the search use one seed.",
        pruning(facts),
        f"Data: {plan.dataset}. The search uses training and validation images only. The validation split is "
        f"{facts.images:,} of the official training images ({share}), the same share of every class and the same "
        "images in every study.",
        *_readings(facts),
    ]
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


def _by_older_rule(facts: Facts) -> bool:
    """Whether a version of the suite that judged trials in the middle of their training made any of them."""
    return facts.study.experiment.pruner is None and any(s.trial.rungs for s in facts.states)


def choice(facts: Facts) -> str:
    """How the search chose parameters."""
    plan = facts.study.experiment
    if plan.sampler is not None:
        others = f"by Optuna's {plan.sampler.name}"
    elif _by_older_rule(facts):
        others = "by Optuna's TPE sampler"
    else:
        others = "from a quasi-random sequence that covers the space evenly (scrambled Sobol points)"
    return f"The first trial of every arm uses its own recipe, the others are chosen {others}."


def pruning(facts: Facts) -> str:
    """Which trials were trained to the end."""
    plan = facts.study.experiment
    if plan.pruner is not None:
        return f"Pruning: Optuna's {plan.pruner.name}, asked after every epoch."
    if plan.pruning is None:
        return "Pruning: none; every trial is trained over all its epochs."
    one = f"one in {plan.pruning.factor}"
    if _by_older_rule(facts):
        first = f" from epoch {plan.pruning.first:g}" if plan.pruning.first else ""
        return f"Pruning: successive halving within the training{first}, keeping {one}."
    lengths = sorted({length for s in facts.states for length in s.trial.stages})
    if not lengths:
        return "Pruning: none; the trainings are too short for it."
    return (
        f"Pruning: successive halving. A trial is first trained completely, whole schedule included, over "
        f"{', then '.join(f'{length:.3g}' for length in lengths)} epochs. After that the best {one} of each batch of "
        f"{plan.pruning.batch} trials of the arm go on, with a training anew over {plan.pruning.factor} times the "
        "epochs, the last time over all. The accuracy and the curve of a pruned trial are those of its last training; "
        "costs count all trainings of a trial."
    )


def _readings(facts: Facts) -> list[str]:
    """How often the test images were read, and whether the search went on after that."""
    found = facts.evaluation
    if found is None:
        return []
    first, other = found.readings[0].time, found.readings[-1].earlier_in_other_studies
    best = "the best" if found.top == 1 else f"the best {found.top}"
    lines = [
        f"Final evaluation: {best} of each arm by validation accuracy, trained again with {found.seeds} fresh seeds. "
        f"The test images were read {times(len(found.readings))} for this study, first on {moment(first)}"
        + (f", and {times(other)} by other studies here." if other else ".")
    ]
    if late := sum(s.record.ended > first for s in facts.states if s.record):
        lines.append(
            f"Careful: {late} trials of the search ended after the test images were first read, so they are not "
            "independent of that reading."
        )
    return lines


def final(facts: Facts) -> Section | None:
    found = facts.evaluation
    if found is None:
        return None
    head = ("arm", "trial", "test", "sd", "n", "mean, 95 % interval", "one model, 95 %", "search (optimistic)")
    picture = Picture(
        "final",
        "Finalists on the test images",
        "Test accuracy of each finalist with the interval over seeds",
        lambda: plots_accuracy.finals(found.finalists, facts.looks),
    )
    note = (
        "A star marks the finalist that represents its arm: the best by mean validation accuracy of the new trainings, "
        "never by test. The interval of the mean is Student's t over seeds, cut to 0 to 100 %; that of one model is "
        "Wilson's, for the first seed. Seeds vary the training; pretrained weights are the same for all seeds."
    )
    rows = [_finalist_cells(row) for row in found.finalists]
    blocks: list[Block] = [known(head, rows), Text(note), Gallery([picture])]
    if n := len(found.comparisons):
        pair_head = ("arms", "difference, points", "95 %", "paired t, p", "only one right", "McNemar mid-p, p")
        caption = "Arms in pairs, over seeds and image by image (first seed)"
        if n > 1:
            caption += (
                f"; interval and p of the paired t test are adjusted for {n} comparisons by Bonferroni's method, p of "
                "McNemar's test by Holm's"
            )
        blocks.append(known(pair_head, [_pair_cells(pair, n) for pair in found.comparisons], caption))
    return Section("Final evaluation", [*blocks, *_views(found), *_ensembles(found)])


def _views(found: FinalEvaluation) -> list[Block]:
    """What test-time augmentation gains; nothing where it was not asked for."""
    rows = [(row, row.viewed) for row in found.finalists if row.viewed is not None]
    if not rows:
        return []
    head = ("arm", "trial", "test", "sd", "n", "mean, 95 % interval", "gain, points", "gain, 95 %", "paired t, p")
    cells = [
        [
            *_names(row),
            *_over_seeds(seen.test),
            "-" if seen.paired_t.difference is None else points(seen.paired_t.difference, 3),
            *_adjusted(seen.paired_t, len(rows)),
        ]
        for row, seen in rows
    ]
    caption = (
        f"Test-time augmentation ({', '.join(found.views)}): each model answers with the mean of its probabilities "
        "over these views of the image. The gain is that over its answers to the images as they are, paired over seeds"
    )
    adjusted = f"; interval and p are adjusted for {len(rows)} comparisons by Bonferroni's method"
    return [known(head, cells, caption + (adjusted if len(rows) > 1 else ""))]


def _ensembles(found: FinalEvaluation) -> list[Block]:
    """Several trainings as one model; nothing where none were combined."""
    views = f", {' and '.join(found.views)}"
    named: list[tuple[str, EnsembleFigures | None]] = []
    for row in found.representatives:
        named += [(row.arm, row.ensemble), (row.arm + views, row.viewed and row.viewed.ensemble)]
    for one in found.ensembles:
        name = " + ".join(one.arms) + ("" if one.planned else " (asked for after the first reading)")
        named += [(name, one.plain), (name + views, one.viewed)]
    known_ones = [(name, one) for name, one in named if one is not None]
    if not known_ones:
        return []
    head = ("ensemble of", "models", "test", "95 %", "gain, points", "gain, 95 %", "only one right", "McNemar mid-p, p")
    caption = (
        "Ensembles: the mean of the probabilities of all trainings of an arm's representative, or of several arms'. "
        "Intervals are for these models on other images: Wilson's, and for the gain over the first model alone, "
        "without views, Newcombe's for paired proportions"
    )
    n = len(known_ones)
    adjusted = f"; p is adjusted for {n} comparisons by Bonferroni's method, the intervals are not"
    rows = [_ensemble_cells(name, one, n) for name, one in known_ones]
    return [known(head, rows, caption + (adjusted if n > 1 else ""))]


def _ensemble_cells(name: str, one: EnsembleFigures, comparisons: int) -> list[str]:
    mc = one.against_first
    both = round(one.accuracy * one.images) - mc.only_first
    low, high = paired_difference(both, mc.only_first, mc.only_second, one.images)
    return [
        name,
        str(one.members),
        percent(one.accuracy, 3),
        interval(*one.wilson),
        points((mc.only_first - mc.only_second) / one.images, 3),
        f"{points(low)} to {points(high)}",
        f"{mc.only_first} : {mc.only_second}",
        p_value(bonferroni(mc.mid, comparisons)),
    ]


def _finalist_cells(row: Finalist) -> list[str]:
    return [*_names(row), *_over_seeds(row.test), interval(*row.wilson), percent(row.search_accuracy)]


def _names(row: Finalist) -> list[str]:
    return [("* " if row.represents_arm else "") + row.arm, row.trial[:4]]


def _over_seeds(test: Sample) -> list[str]:
    """Mean, standard deviation, number, and the interval of the mean."""
    return [
        percent(test.mean, 3),
        "-" if test.sd is None else f"{100 * test.sd:.3f}",
        str(test.n),
        interval(test.low, test.high),
    ]


def _pair_cells(pair: Comparison, comparisons: int) -> list[str]:
    difference = pair.paired_t.difference
    return [
        f"{pair.first} - {pair.second}",
        "-" if difference is None else points(difference, 3),
        *_adjusted(pair.paired_t, comparisons),
        f"{pair.mcnemar.only_first} : {pair.mcnemar.only_second}",
        p_value(pair.mcnemar.mid_holm),
    ]
