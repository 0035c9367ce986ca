"""The final evaluation: finalists are trained again with fresh seeds, then tested.

A search selects by validation accuracy, so its best figure is optimistic. The final evaluation reports the test
accuracy of new trainings of the selected recipes; which recipes, and which one represents its arm, is decided on
validation. `reading` tests the models, `ensembles` combines their answers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from suite.errors import InputError, WorkError
from suite.evaluation import reading
from suite.evaluation.ensembles import ensemble, viewed
from suite.evaluation.reading import OnModel
from suite.evaluation.reseeded import fresh_seeds, reseeded
from suite.execution.options import Options
from suite.execution.replay import content, find, replay
from suite.execution.stop import Stop
from suite.hardware import device
from suite.models.assembly import check_weights
from suite.models.ensembles import Views
from suite.ranking.final import (
    EVALUATION_FILE,
    ArmsEnsemble,
    Comparison,
    FinalEvaluation,
    Finalist,
    McNemarFigures,
    PairedFigures,
    readings,
    tested,
)
from suite.ranking.statistics import balanced_accuracy, holm, mcnemar, paired_t, sample_of_shares, wilson
from suite.spec import HeadOnly, Status, Trial, every_pair
from suite.store.files import write_atomic
from suite.store.finalists import confirmed
from suite.store.study import StudyDir, arms, final_of, finalists_of, repeats
from suite.store.trial import TrialState

FRESH_SEED = 1000  # the seeds of final trainings derive from it; those of the search and its finalists do not

APART = (
    "The test set is kept apart: selecting by it fits the selection to it, and every test accuracy after that is too "
    "good. Search and pruning use the validation split. When the selection is over, `mnist-suite evaluate {study} "
    "--final` trains the finalists again with fresh seeds, reads the test images once and records that it did."
)


def finalists(states: Sequence[TrialState], top: int, runs: Sequence[TrialState] = ()) -> list[TrialState]:
    """The `top` finished trials of every arm by validation accuracy; the earlier one on a tie.

    `runs` are the trainings of the search's own finalists: the winner among them comes first.
    """
    winners = {found[0].state.id for found in confirmed(states, runs).values()}
    chosen: list[TrialState] = []
    for arm in arms(states):
        done = [s for s in states if s.trial.arm == arm and s.state == "finished" and s.best is not None]
        chosen += sorted(done, key=lambda s: (s.id not in winners, -(s.best or 0.0), s.trial.number))[:top]
    return chosen


@dataclass(frozen=True)
class Plan:
    """A final evaluation before it begins: the finalists and their new trainings."""

    results: Path
    study: StudyDir
    top: int
    seeds: int
    place: str  # device
    command: str
    chosen: list[TrialState]
    trials: dict[str, list[Trial]]  # new trainings by the finalist's id
    views: tuple[Views, ...] = ()  # of test-time augmentation
    ensembles: tuple[tuple[str, ...], ...] = ()  # arms whose representatives make one ensemble

    @property
    def all_trials(self) -> list[Trial]:
        return [trial for trials in self.trials.values() for trial in trials]


def plan(
    results: Path,
    study: StudyDir,
    *,
    top: int,
    seeds: int,
    place: str = "auto",
    workers: int = 1,
    command: str = "",
    views: tuple[Views, ...] = (),
    ensembles: Sequence[Sequence[str]] = (),
) -> Plan:
    """Choose the finalists. Raises InputError where no trial finished, while the search is running, where starting
    weights are missing, and for ensembles of unknown arms."""
    device.pick(place)
    if status := study.live() or finalists_of(study).live():
        raise InputError(
            f"Study '{study.name}' is still being searched (pid {status.pid} on {status.host}). The test images are "
            f"read after the selection: wait for it, or `mnist-suite stop {study.name}`."
        )
    chosen = finalists(study.states(), top, repeats(study))
    if not chosen:
        raise InputError(f"Study '{study.name}' has no finished trial, so there is nothing to evaluate.")
    together = _known(ensembles, list(dict.fromkeys(s.trial.arm for s in chosen)))
    threads = max(1, device.cores() // workers)
    fresh = fresh_seeds(FRESH_SEED, seeds)
    trials = _without_duplicates({s.id: reseeded(s.trial, fresh, place=place, threads=threads) for s in chosen})
    _check_weights(results, study, trials)
    return Plan(results, study, top, seeds, place, command, chosen, trials, views, together)


def _known(ensembles: Sequence[Sequence[str]], arms: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The ensembles that are asked for, each once. Raises InputError for arms without a finalist, and for fewer than
    two."""
    for wanted in ensembles:
        if unknown := [arm for arm in wanted if arm not in arms]:
            raise InputError(f"--ensemble names '{unknown[0]}', which is no arm with a finalist: {', '.join(arms)}.")
        if len(set(wanted)) < max(2, len(wanted)):
            raise InputError(
                f"--ensemble {','.join(wanted)} is no ensemble of several arms: name at least two different ones. The "
                "seeds of each arm alone are always combined."
            )
    return tuple(dict.fromkeys(tuple(wanted) for wanted in ensembles))


def _check_weights(results: Path, study: StudyDir, plans: dict[str, list[Trial]]) -> None:
    """Refuse before anything is trained: raises InputError where the weights that a finalist needs are gone.

    A finalist whose trainings have all finished needs none, unless it is a head on the features of a backbone.
    """
    done = find(final_of(study), [trial for trials in plans.values() for trial in trials])
    for trials in plans.values():
        finished = all((state := done.get(content(trial))) and state.state == "finished" for trial in trials)
        if not finished or isinstance(trials[0].strategy, HeadOnly):
            check_weights(trials[0], results)


def _without_duplicates(plans: dict[str, list[Trial]]) -> dict[str, list[Trial]]:
    """Without finalists of the same arm and parameters as an earlier one: their trainings would be the same."""
    seen: set[str] = set()
    kept: dict[str, list[Trial]] = {}
    for name, trials in plans.items():
        if (key := content(trials[0])) not in seen:
            seen.add(key)
            kept[name] = trials
    return kept


def train(plan: Plan, *, stop: Stop, workers: int = 1) -> Iterator[Status]:
    """Train the finalists under their fresh seeds; trainings that finished before are not repeated, failed ones are.

    Raises WorkError where a training keeps losing its worker, InputError where another process evaluates the study.
    """
    options = Options(workers=workers, device=plan.place, command=plan.command)
    yield from replay(plan.all_trials, final_of(plan.study), plan.results, stop=stop, options=options)


def trained(plan: Plan) -> list[TrialState]:
    """The new trainings as they are on disk."""
    return list(find(final_of(plan.study), plan.all_trials).values())


def judge(plan: Plan, *, on_model: OnModel = lambda *_: None) -> FinalEvaluation:
    """Test the trained finalists and write evaluation.json. Raises WorkError where no final training finished."""
    directory = final_of(plan.study)
    runs = find(directory, plan.all_trials)
    finished = [s for s in runs.values() if s.state == "finished"]
    if not finished:
        reasons = {s.reason for s in runs.values() if s.reason}
        raise WorkError(
            f"None of the final trainings finished: {'; '.join(sorted(r.rstrip('.') for r in reasons))}. When that is "
            f"mended, the same command trains them again."
        )
    reading.read(
        plan.results,
        plan.study,
        finished,
        place=plan.place,
        command=plan.command,
        views=plan.views,
        ensembles=plan.ensembles,
        on_model=on_model,
    )
    trained = {k: [runs[key] for t in v if (key := content(t)) in runs] for k, v in plan.trials.items()}
    found = _evaluation(plan, trained)
    write_atomic(directory.path / EVALUATION_FILE, json.dumps(found.model_dump(mode="json"), indent=1) + "\n")
    return found


# --- figures ------------------------------------------------------------------------------------------------------


def _evaluation(plan: Plan, runs: dict[str, list[TrialState]]) -> FinalEvaluation:
    """Figures of every finalist, and the arms' representatives in pairs. `runs` are by the finalist's id."""
    directory = final_of(plan.study)
    found = [_finalist(directory, state, runs[state.id]) for state in plan.chosen if state.id in runs]
    rows = [
        _combined(directory, row, plan.views)
        for row in _with_representatives([row for row in found if row is not None])
    ]
    of_arm = {row.arm: row for row in rows if row.represents_arm}
    file = plan.study.study()
    planned = file.experiment.comparisons() if file is not None else every_pair(of_arm)
    pairs = [_compared(directory, of_arm[a], of_arm[b]) for a, b in planned if a in of_arm and b in of_arm]
    return FinalEvaluation(
        study=plan.study.name,
        dataset=plan.chosen[0].trial.dataset,
        made=time.time(),
        top=plan.top,
        seeds=plan.seeds,
        finalists=tuple(rows),
        comparisons=_adjusted(pairs),
        readings=tuple(readings(plan.study)),
        notes=(
            "search_accuracy is the search's own best on validation: optimistic, since the search chose by it.",
            "Intervals over seeds are Student's t for the mean, cut to 0..100 %; the Wilson interval is for the first "
            "seed's model.",
            "McNemar compares the two arms' first models image by image, mid-p; the paired t test their seeds.",
            "Seeds vary the training; models with the same initial weights share them.",
            "An ensemble answers with the mean of its members' probabilities; McNemar's test compares it with the "
            "first member.",
        ),
        views=plan.views,
        ensembles=tuple(one for arms in plan.ensembles if (one := _of_arms(plan, of_arm, arms)) is not None),
    )


def _combined(directory: StudyDir, row: Finalist, views: tuple[Views, ...]) -> Finalist:
    """With the ensemble of the runs of a representative, and with test-time augmentation where it is asked for."""
    if not (row.represents_arm or views):
        return row
    runs = [reading.answers(directory, run) for run in row.runs]
    return row.model_copy(
        update={
            "ensemble": ensemble(runs) if row.represents_arm else None,
            "viewed": viewed(row, runs, views) if views else None,
        }
    )


def _of_arms(plan: Plan, of_arm: Mapping[str, Finalist], arms: tuple[str, ...]) -> ArmsEnsemble | None:
    """The representatives of several arms as one ensemble; None where no training of one of them was tested."""
    if not of_arm.keys() >= set(arms):
        return None
    runs = [reading.answers(final_of(plan.study), run) for arm in arms for run in of_arm[arm].runs]
    if (plain := ensemble(runs)) is None:
        return None
    return ArmsEnsemble(
        arms=arms,
        plain=plain,
        viewed=ensemble(runs, plan.views) if plan.views else None,
        planned=set(arms) in map(set, readings(plan.study)[0].ensembles),
    )


def _finalist(directory: StudyDir, state: TrialState, runs: Sequence[TrialState]) -> Finalist | None:
    """The figures of one finalist; None where none of its runs was tested."""
    done = [(s, facts) for s in runs if (facts := tested(directory, s.id)) is not None]
    if not done:
        return None
    accuracies = [facts.accuracy for _, facts in done]
    first = done[0][1]
    return Finalist(
        arm=state.trial.arm,
        trial=state.id,
        params=state.trial.params,
        search_accuracy=state.best or 0.0,
        represents_arm=False,
        runs=tuple(s.id for s, _ in done),
        seeds=tuple(s.trial.seed for s, _ in done),
        failed=len(runs) - len(done),
        images=first.images,
        accuracies=tuple(accuracies),
        test=sample_of_shares(accuracies),
        validation=sample_of_shares([s.best or 0.0 for s, _ in done]),
        wilson=wilson(accuracies[0], first.images),
        ece=sample_of_shares([facts.ece for _, facts in done if facts.ece is not None]),
        balanced=sample_of_shares([balanced_accuracy(facts.confusion) for _, facts in done]),
        test_sha256=first.test_sha256,
    )


def _with_representatives(rows: Sequence[Finalist]) -> list[Finalist]:
    """Mark the finalist of every arm with the best mean validation accuracy. Test accuracy has no part in it."""
    best: dict[str, Finalist] = {}
    for row in rows:
        if row.arm not in best or row.validation.mean > best[row.arm].validation.mean:
            best[row.arm] = row
    return [row.model_copy(update={"represents_arm": best[row.arm] is row}) for row in rows]


def _compared(directory: StudyDir, a: Finalist, b: Finalist) -> Comparison:
    """Two finalists on the same images and over their common seeds."""
    shared = [seed for seed in a.seeds if seed in b.seeds]
    first, second = ([row.accuracies[row.seeds.index(seed)] for seed in shared] for row in (a, b))
    one, two = (_correct(directory, row, shared[0] if shared else row.seeds[0]) for row in (a, b))
    unknown = PairedFigures(difference=None, low=None, high=None, t=None, p=None, n=0)
    return Comparison(
        first=a.arm,
        second=b.arm,
        mcnemar=McNemarFigures(**asdict(mcnemar(int((one & ~two).sum()), int((two & ~one).sum())))),
        paired_t=PairedFigures(**asdict(paired_t(first, second))) if shared else unknown,
    )


def _correct(directory: StudyDir, row: Finalist, seed: int) -> Tensor:
    """Which test images a finalist's model of this seed answered correctly: (N,) bool."""
    return reading.answers(directory, row.runs[row.seeds.index(seed)])["correct"].bool()


def _adjusted(pairs: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with the p values of each test adjusted by Holm's method."""
    mid = holm([pair.mcnemar.mid for pair in pairs])
    p = holm([pair.paired_t.p for pair in pairs])
    return tuple(
        pair.model_copy(
            update={
                "mcnemar": pair.mcnemar.model_copy(update={"mid_holm": mid[i]}),
                "paired_t": pair.paired_t.model_copy(update={"p_holm": p[i]}),
            }
        )
        for i, pair in enumerate(pairs)
    )
