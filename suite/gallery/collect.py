"""The figures of a page, out of a study that has had its final evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from suite.errors import InputError
from suite.gallery.figures import STUDY, Figure, Figures
from suite.ranking.final import Comparison, EnsembleFigures, FinalEvaluation, Finalist, PairedFigures
from suite.ranking.formats import hyperparameters
from suite.ranking.statistics import bonferroni, simultaneous
from suite.reporting.facts import Facts, gather
from suite.reporting.sections_protocol import choice, pruning
from suite.reporting.text import distinct
from suite.spec import Arm, Choice, HeadOnly, Params, Provenance, Range, Space
from suite.store.study import StudyDir, final_of
from suite.store.trial import TrialState


def collect(results: Path, study: StudyDir) -> Figures:
    """Read a study. Raises InputError where it has no final evaluation, nothing has finished or files are damaged."""
    facts = gather(results, study)
    if facts.evaluation is None:
        raise InputError(
            f"Study '{study.name}' has no final evaluation, and a page publishes its figures: "
            f"`mnist-suite evaluate {study.name} --final`."
        )
    plan, again = facts.study.experiment, final_of(study).states()
    found = [*_study(facts, facts.evaluation, again)]
    ordered = sorted(facts.evaluation.representatives, key=lambda row: facts.arms.index(row.arm))
    combined = len(ordered) + len(facts.evaluation.ensembles)
    for row in ordered:
        runs = [state for state in again if state.id in row.runs]
        found += _arm(plan.arms[row.arm], plan.space_of(row.arm), row, runs)
        found += _combined(row, combined)
    for pair in facts.evaluation.comparisons:
        found += _pair(pair, len(facts.evaluation.comparisons))
    for one in facts.evaluation.ensembles:
        found += _ensemble(" + ".join(one.arms), one.plain, one.viewed, combined)
    return Figures(study.name, found)


# --- the study ----------------------------------------------------------------------------------------------------


def _study(facts: Facts, found: FinalEvaluation, again: Sequence[TrialState]) -> Iterator[Figure]:
    plan, trials = facts.study.experiment, facts.states
    outcomes = {kind: sum(s.state == kind for s in trials) for kind in ("finished", "pruned", "failed")}
    texts = {
        "question": plan.question,
        "data set": plan.dataset,
        "search command": distinct(p.command for p in _provenance(trials)),
        "final command": found.readings[-1].command,
        "machine": distinct(p.hardware for p in _provenance((*trials, *again))),
        "packages": ", ".join(f"{name} {version}" for name, version in facts.study.packages.items()),
        "search code": distinct(_code(p) for p in _provenance(trials)),
        "final code": distinct(_code(p) for p in _provenance(again)),
        "choice": choice(facts),
        "pruning": pruning(facts),
        "date": _day(max(s.record.ended for s in (*trials, *again) if s.record)),
    }
    yield from (Figure(STUDY, name, text=text) for name, text in texts.items())
    cost = facts.costs
    numbers = {
        "arms": len(plan.arms),
        "trials": len(trials),
        **{f"trials {kind}": n for kind, n in outcomes.items()},
        "seeds": found.seeds,
        "final trainings": cost.final.trials,
        "validation images": facts.images,
        "test images": found.finalists[0].images,
        "readings of test": len(found.readings),
        "earlier readings by other studies": found.readings[0].earlier_in_other_studies,
        "comparisons": len(found.comparisons),
    }
    yield from (Figure(STUDY, name, float(value)) for name, value in numbers.items())
    for name, states, total in (("the search", trials, cost.search), ("the final evaluation", again, cost.final)):
        yield Figure(f"cost of {name}", "elapsed", _elapsed(states))
        yield Figure(f"cost of {name}", "seconds of training", total.train_seconds)
        yield Figure(f"cost of {name}", "FLOPs of training", total.flops)
    features = sum(s.record.cost.setup_flops for s in trials if s.record and s.record.cost)
    if features:
        yield Figure("cost of features", "FLOPs of training", float(features))
    if pretrained := [one.cost for one in cost.pretraining if one.cost]:
        yield Figure("cost of pretraining", "seconds of training", sum(one.train_seconds for one in pretrained))
        yield Figure("cost of pretraining", "FLOPs of training", sum(one.flops for one in pretrained))


def _provenance(states: Sequence[TrialState]) -> list[Provenance]:
    return [record.provenance for s in states if (record := s.record) and record.provenance]


def _code(made: Provenance) -> str:
    return f"{made.version} ({made.commit or 'no commit'})"


def _day(seconds: float) -> str:
    return time.strftime("%d %B %Y", time.localtime(seconds)).lstrip("0")


def _elapsed(states: Sequence[TrialState]) -> float:
    """Seconds from the first start to the last end."""
    records = [s.record for s in states if s.record]
    return max(r.ended for r in records) - min(r.started for r in records) if records else 0.0


# --- arms ---------------------------------------------------------------------------------------------------------


def _arm(arm: Arm, space: Space, row: Finalist, runs: Sequence[TrialState]) -> Iterator[Figure]:
    test, checked = row.test, row.validation
    if test.n > 1 and len(set(row.accuracies)) == 1:  # solved or converted, not trained: seeds change nothing
        yield Figure(row.arm, "test", test.mean, *row.wilson, 1)
        yield Figure(row.arm, "validation", checked.mean, n=1)
    else:
        yield Figure(row.arm, "test", test.mean, test.low, test.high, test.n)
        yield Figure(row.arm, "validation", checked.mean, checked.low, checked.high, checked.n)
    yield Figure(row.arm, "one model", row.accuracies[0], *row.wilson, 1)
    yield Figure(row.arm, "search", row.search_accuracy)
    costs = [s.record.cost for s in runs if s.record and s.record.cost]
    for name, read in COSTS.items():
        if costs:
            yield Figure(row.arm, name, fmean(read(cost) for cost in costs), n=len(costs))
    yield Figure(row.arm, "labels", arm.fraction)
    texts = {
        "backbone": arm.backbone,
        "strategy": _strategy(arm),
        "recipe": _recipe(runs[0]) if runs else "",
        "weights": arm.weights or "random",
        "teacher": arm.teacher or "",
        "tuned": _tuned(row.params, space),
        "test of each": " ".join(f"{100 * value:.2f}" for value in row.accuracies),
    }
    yield from (Figure(row.arm, name, text=text) for name, text in texts.items() if text)


def _combined(row: Finalist, comparisons: int) -> Iterator[Figure]:
    """The trainings of an arm as one ensemble, and with test-time augmentation."""
    if row.ensemble:
        yield from _ensemble(row.arm, row.ensemble, row.viewed.ensemble if row.viewed else None, comparisons)
        yield Figure(row.arm, "gain of the ensemble", row.ensemble.accuracy - row.test.mean)
    if row.viewed:
        test, t = row.viewed.test, row.viewed.paired_t
        yield Figure(row.arm, "test-time augmentation", test.mean, test.low, test.high, test.n)
        if t.difference is not None:
            yield Figure(row.arm, "gain of views", t.difference, *_adjusted(t, comparisons), t.n)


def _ensemble(about: str, plain: EnsembleFigures, viewed: EnsembleFigures | None, comparisons: int) -> Iterator[Figure]:
    """Ensembles; n is the number of their models, the interval is that of the images."""
    yield Figure(about, "ensemble", plain.accuracy, *plain.wilson, plain.members)
    mc = plain.against_first
    yield Figure(
        about,
        "ensemble p",
        bonferroni(mc.mid, comparisons),
        n=plain.members,
        text=f"{mc.only_first} : {mc.only_second}",
    )
    if viewed:
        yield Figure(about, "ensemble with views", viewed.accuracy, *viewed.wilson, viewed.members)


def _tuned(params: Params, space: Space) -> str:
    """What the search chose, and from which range."""
    chosen = [
        f"{hyperparameters({name: value})} of {_range(space[name])}" for name, value in params.items() if name in space
    ]
    return ", ".join(chosen)


def _range(values: Range) -> str:
    if isinstance(values, Choice):
        return "/".join(map(str, values.values))
    return f"{values.low:.3g} to {values.high:.3g}"


def _strategy(arm: Arm) -> str:
    return f"{arm.strategy.head.kind} head" if isinstance(arm.strategy, HeadOnly) else arm.strategy.kind


def _recipe(run: TrialState) -> str:
    """How an arm's representative was trained, in a line; nothing where nothing was trained by gradient descent."""
    recipe, strategy = run.trial.recipe, run.trial.strategy
    if strategy.kind == "int8" or (isinstance(strategy, HeadOnly) and strategy.head.kind not in ("linear", "mlp")):
        return ""
    augment = ", ".join(f"{k} {v:g}" for k, v in recipe.augment.model_dump(exclude_defaults=True).items())
    parts = [
        f"{recipe.optimizer} {recipe.lr:.3g}",
        f"momentum {recipe.momentum:.3g}{' Nesterov' if recipe.nesterov else ''}",
        f"batch {recipe.batch_size}",
        f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}",
        recipe.schedule,
        f"smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else "",
        augment,
        run.record.provenance.precision if run.record and run.record.provenance else "",
    ]
    return ", ".join(part for part in parts if part)


COSTS = {
    "parameters": lambda cost: cost.parameters,
    "trained parameters": lambda cost: cost.trainable,
    "FLOPs an image": lambda cost: cost.forward_flops,
    "FLOPs of training": lambda cost: cost.training_flops,
    "seconds of training": lambda cost: cost.train_seconds,
    "memory": lambda cost: cost.peak_memory_bytes,
}


# --- pairs of arms ------------------------------------------------------------------------------------------------


def _pair(pair: Comparison, comparisons: int) -> Iterator[Figure]:
    """A comparison, with the interval and p of the paired t test adjusted for all comparisons, by Bonferroni."""
    name, t = f"{pair.first} - {pair.second}", pair.paired_t
    if t.difference is None:
        return
    yield Figure(name, "difference", t.difference, *_adjusted(t, comparisons), t.n)
    if t.p is not None:
        yield Figure(name, "p", bonferroni(t.p, comparisons), n=t.n)
    answers = f"{pair.mcnemar.only_first} : {pair.mcnemar.only_second}"
    yield Figure(name, "McNemar p", pair.mcnemar.mid_holm, text=answers)


def _adjusted(t: PairedFigures, comparisons: int) -> tuple[float | None, float | None]:
    """The interval of a difference that holds together with those of the other comparisons."""
    if t.low is None or t.high is None or t.low == t.high:
        return None, None
    low, high = simultaneous(t.low, t.high, t.n, comparisons)
    return max(-1.0, low), min(1.0, high)
