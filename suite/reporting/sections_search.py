"""How the search went: learning curves, accuracy by training labels, hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence

from suite.reporting import plots_accuracy, plots_search
from suite.reporting.document import Gallery, Picture, Section, Table, Text
from suite.reporting.facts import Curve, Facts
from suite.reporting.plots_accuracy import Share
from suite.reporting.spaces import contains, joined
from suite.reporting.text import percent
from suite.spec import Arm, Range

Lines = dict[str, list[Share]]  # by family of arms


def learning(facts: Facts) -> Section | None:
    best = {arm: [curve] for arm in facts.arms if (curve := _curve(facts, arm))}
    if not best:
        return None
    pictures = [
        Picture(
            "curves-best",
            "Best trials; bands: Wilson, 95 %",
            "Validation error by epoch of the best trial of each arm",
            lambda: plots_accuracy.curves(best, facts.images, facts.looks),
        )
    ]
    if facts.final_curves:
        pictures.append(
            Picture(
                "curves-final",
                "Finalists; bands: 95 % over seeds",
                "Validation error by epoch, averaged over fresh seeds",
                lambda: plots_accuracy.curves(facts.final_curves, facts.images, facts.looks),
            )
        )
    pictures.append(
        Picture(
            "history",
            "Trials in the order of the search",
            "Validation error of every trial by its number, and the best of each arm up to it",
            lambda: plots_accuracy.history(facts.rows, facts.images, facts.looks),
        )
    )
    return Section("Learning curves", [Gallery(pictures)])


def _curve(facts: Facts, arm: str) -> Curve:
    """The learning curve of the arm's best trial."""
    best = facts.best(arm)
    return next((s.curve for s in facts.states if best is not None and s.id == best.trial), [])


# --- training labels ----------------------------------------------------------------------------------------------


def labels(facts: Facts) -> Section | None:
    """Accuracy against the share of labels used, where arms differ in that alone."""
    searched, tested = _by_labels(facts)
    kinds = [
        ("labels", "Validation", "best trials; bars: Wilson, 95 %", searched),
        ("labels-test", "Test", "finalists; bars: 95 % over seeds", tested),
    ]
    pictures = [
        Picture(
            name,
            f"{which}, {how}",
            f"{which} error against the share of training labels used, a line a way of training",
            lambda which=which, found=found: plots_accuracy.labels(found, f"{which.lower()} error, %", facts.images),
        )
        for name, which, how, found in kinds
        if found
    ]
    if not pictures:
        return None
    shares = sorted({share for points in searched.values() for share, *_ in points})
    rows = [
        [family, *(percent({share: accuracy for share, accuracy, *_ in points}.get(share)) for share in shares)]
        for family, points in (tested or searched).items()
    ]
    caption = f"{'Mean test' if tested else 'Best validation'} accuracy by the share of the training labels used"
    note = "The smaller shares are subsets of the larger ones, with the same part of every class."
    if limit := facts.study.experiment.limit:
        note += f" This study was limited to {limit:,} training images, so large shares may be smaller than they say."
    table = Table(("arms", *(f"{100 * share:g} %" for share in shares)), rows, caption)
    return Section("Labels used", [Text(note), Gallery(pictures), table])


def _by_labels(facts: Facts) -> tuple[Lines, Lines]:
    """Accuracies on validation and on test by share of labels, for families of arms that differ in that alone."""
    plan, searched, tested = facts.study.experiment, Lines(), Lines()
    families: dict[str, list[str]] = {}
    for name, arm in plan.arms.items():
        families.setdefault(arm.model_dump_json(exclude={"fraction"}), []).append(name)
    finals = {row.arm: row.test for row in facts.evaluation.representatives} if facts.evaluation else {}
    for arms in families.values():
        if len({plan.arms[name].fraction for name in arms}) == 1:
            continue
        family = _family(plan.arms[arms[0]], arms)
        for arm in sorted(arms, key=lambda name: plan.arms[name].fraction):
            share, best, test = plan.arms[arm].fraction, facts.best(arm), finals.get(arm)
            if best is not None and best.accuracy is not None:
                searched.setdefault(family, []).append((share, best.accuracy, best.low, best.high))
            if test is not None:
                tested.setdefault(family, []).append((share, test.mean, test.low, test.high))
    return searched, tested


def _family(arm: Arm, names: Sequence[str]) -> str:
    """A name for arms that differ in their share of the labels: what their own names have in common."""
    stems = {name.rstrip("0123456789.").rstrip("-_") for name in names}
    return stems.pop() if len(stems) == 1 else f"{arm.backbone.removeprefix('timm:')} {arm.strategy.kind}"


# --- hyperparameters ----------------------------------------------------------------------------------------------


def hyperparameters(facts: Facts) -> Section | None:
    spaces = {arm: space for arm in facts.arms if (space := _tuned(facts, arm))}
    pictures: list[Picture] = []
    if facts.importances:
        pictures.append(
            Picture(
                "importance",
                "Importance of the hyperparameters",
                "Share of each hyperparameter in the variance of accuracy, by arm",
                lambda: plots_search.importances(facts.importances, facts.looks),
            )
        )
    pictures += _parallel(facts, spaces)
    for name in dict.fromkeys(name for space in spaces.values() for name in space):
        choices = joined([space[name] for space in spaces.values() if name in space])
        pictures.append(
            Picture(
                f"slice-{name.replace('.', '-')}",
                f"Accuracy and {name}",
                f"Validation error against {name}",
                lambda name=name, choices=choices: plots_search.slices(
                    facts.rows, name, choices, facts.images, facts.looks
                ),
            )
        )
    note = (
        "Faint lines and hollow marks were pruned, most of them after a shorter training, which their accuracy is of; "
        "the bold line is the best of its arm. Importance is fANOVA's "
        "(Hutter et al., 2014), from finished trials alone; with a dozen trials an arm it is no more than a hint."
    )
    return Section("Hyperparameters", [Text(note), Gallery(pictures)]) if pictures else None


def _parallel(facts: Facts, spaces: dict[str, dict[str, Range]]) -> list[Picture]:
    """Parallel coordinates, one picture for all arms with the same hyperparameters."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for arm, space in spaces.items():
        alike.setdefault(tuple((name, choices.kind) for name, choices in space.items()), []).append(arm)
    pictures: list[Picture] = []
    for i, arms in enumerate(alike.values()):
        whole = {name: joined([spaces[arm][name] for arm in arms]) for name in spaces[arms[0]]}
        looks = {arm: facts.looks[arm] for arm in arms}
        pictures.append(
            Picture(
                f"parallel-{i + 1}" if len(alike) > 1 else "parallel",
                "All trials, from hyperparameters to accuracy" + (f": {', '.join(arms)}" if len(alike) > 1 else ""),
                f"Parallel coordinates: a line a trial through {', '.join(whole)} to its validation accuracy",
                lambda whole=whole, looks=looks: plots_search.parallel(facts.rows, whole, facts.images, looks),
            )
        )
    return pictures


def _tuned(facts: Facts, arm: str) -> dict[str, Range]:
    """The part of the arm's space in which every one of its finished and pruned trials has a value."""
    plan = facts.study.experiment
    own = [r for r in facts.rows if r.arm == arm and r.accuracy is not None and r.state in ("finished", "pruned")]
    space = {**plan.space, **plan.arms[arm].space}
    return {
        name: choices
        for name, choices in space.items()
        if own and all(name in r.tuned and contains(choices, r.tuned[name]) for r in own)
    }
