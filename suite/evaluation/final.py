"""The final evaluation: finalists are trained again with fresh seeds, then tested.

A search selects by validation accuracy, so its best figure is optimistic. The final evaluation reports the test
accuracy of new trainings of the selected recipes; which recipes, and which one represents its arm, is decided on
validation. Of all that handles studies, this module alone reads test images, and every reading is recorded in
readings.jsonl before a model sees them; `shift` asks it for both. (`bench time-to-99` reads them too, to time recipes
chosen long before.)
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from suite.data.datasets import describe, test_split
from suite.errors import InputError, WorkError
from suite.evaluation.reseeded import fresh_seeds, reseeded
from suite.execution.options import Options
from suite.execution.replay import content, find, replay
from suite.execution.stop import Stop
from suite.hardware import device
from suite.models.assembly import check_weights, load_trained
from suite.models.preprocessing import evaluation_preparer, of_trial
from suite.models.streaming import on_device
from suite.ranking.final import (
    EVALUATION_FILE,
    READINGS_FILE,
    TEST_FILE,
    Comparison,
    FinalEvaluation,
    Finalist,
    McNemarFigures,
    PairedFigures,
    Reading,
    readings,
    tested,
)
from suite.ranking.leaderboard import UNEVEN
from suite.ranking.statistics import balanced_accuracy, holm, mcnemar, paired_t, sample_of_shares, wilson
from suite.spec import HeadOnly, Status, Trial, View
from suite.store.files import read_bytes, write_atomic
from suite.store.finalists import confirmed
from suite.store.provenance import commit, version
from suite.store.study import StudyDir, arms, final_of, finalists_of, repeats, studies
from suite.store.trial import TrialState
from suite.training.checkpoint import save_tensors
from suite.training.evaluation import Examples, evaluate
from suite.training.mistakes import find_mistakes

FRESH_SEED = 1000  # the seeds of final trainings derive from it; those of the search and its finalists do not

ANSWERS_FILE = "test.safetensors"  # of one trial: logits (N, classes) and correct (N,)

OnModel = Callable[[int, int], None]  # called with the models tested so far and the number of all

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

    @property
    def all_trials(self) -> list[Trial]:
        return [trial for trials in self.trials.values() for trial in trials]


def plan(
    results: Path, study: StudyDir, *, top: int, seeds: int, place: str = "auto", workers: int = 1, command: str = ""
) -> Plan:
    """Choose the finalists. Raises InputError where no trial finished, while the search is running, and where starting
    weights are missing."""
    device.pick(place)
    if status := study.live() or finalists_of(study).live():
        raise InputError(
            f"Study '{study.name}' is still being searched (pid {status.pid} on {status.host}). The test images are "
            f"read after the selection: wait for it, or `mnist-suite stop {study.name}`."
        )
    chosen = finalists(study.states(), top, repeats(study))
    if not chosen:
        raise InputError(f"Study '{study.name}' has no finished trial, so there is nothing to evaluate.")
    threads = max(1, device.cores() // workers)
    fresh = fresh_seeds(FRESH_SEED, seeds)
    trials = _without_duplicates({s.id: reseeded(s.trial, fresh, place=place, threads=threads) for s in chosen})
    _check_weights(results, study, trials)
    return Plan(results, study, top, seeds, place, command, chosen, trials)


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
    _test(plan, finished, on_model)
    trained = {k: [runs[key] for t in v if (key := content(t)) in runs] for k, v in plan.trials.items()}
    found = _evaluation(plan, trained)
    write_atomic(directory.path / EVALUATION_FILE, json.dumps(found.model_dump(mode="json"), indent=1) + "\n")
    return found


# --- reading the test images --------------------------------------------------------------------------------------


def _test(plan: Plan, finished: Sequence[TrialState], on_model: OnModel) -> None:
    """Test every model that has not been tested yet, in fp32, as models are exported."""
    directory = final_of(plan.study)
    new = [s for s in finished if not (_is_tested(directory, s.id) and readings(plan.study))]
    if not new:
        return
    dataset = new[0].trial.dataset
    known = describe(dataset).info
    where = device.pick(plan.place)
    for view in {of_trial(state.trial, known).view() for state in new}:
        test_split(dataset, view)  # images that cannot be read are no reading: nothing was learned from them
    # before a model sees the images, so that a crash cannot hide the reading
    record_reading(plan.results, plan.study, plan.command, dataset, [s.id for s in new])
    loaded: dict[View, Examples] = {}
    for done, state in enumerate(new):
        on_model(done, len(new))
        expects = of_trial(state.trial, known)
        view = expects.view()
        if view not in loaded:
            loaded = {view: test_images(dataset, view, where)}
        examples = loaded[view]
        assembled = load_trained(directory.trial(state.id), state.trial, expects, len(known.classes), plan.results)
        prepare = evaluation_preparer(expects, where)
        scores = evaluate(assembled.model.to(where), examples, prepare, where, torch.float32)
        path = directory.trial(state.id).path
        correct = scores.logits.argmax(1) == examples.labels.cpu()
        save_tensors(path / ANSWERS_FILE, {"logits": scores.logits, "correct": correct})
        facts = {
            "accuracy": scores.accuracy,
            "loss": scores.loss,
            "images": len(examples),
            "test_sha256": _digest(examples),
            **find_mistakes(scores.logits, examples, known.classes).model_dump(mode="json"),
        }
        write_atomic(path / TEST_FILE, json.dumps(facts))


def test_images(dataset: str, view: View, where: torch.device) -> Examples:
    """The official test images on a device. Whoever asks calls `record_reading` before a model sees them."""
    test = test_split(dataset, view)
    return Examples(on_device(test.images, where), torch.from_numpy(test.labels).to(where))


def _digest(examples: Examples) -> str:
    """SHA-256 over the images and the labels."""
    digest = hashlib.sha256()
    for start in range(0, len(examples), 1000):
        digest.update(examples.inputs[start : start + 1000].cpu().numpy().data)
    digest.update(examples.labels.cpu().numpy().data)
    return digest.hexdigest()


def record_reading(results: Path, study: StudyDir, command: str, dataset: str, models: Sequence[str]) -> None:
    """Append a line to readings.jsonl. `models` are ids of trainings of the final evaluation."""
    elsewhere = sum(
        reading.dataset == dataset
        for other in studies(results)
        if other.name != study.name
        for reading in readings(other)
    )
    reading = Reading(
        time=time.time(),
        command=command,
        version=version(),
        commit=commit(),
        dataset=dataset,
        models=tuple(models),
        earlier=len(readings(study)),
        earlier_in_other_studies=elsewhere,
    )
    with open(final_of(study).path / READINGS_FILE, "a") as file:
        file.write("\n" + reading.model_dump_json() + "\n")  # the first ends a line that may have been torn
        file.flush()
        os.fsync(file.fileno())


def _is_tested(directory: StudyDir, trial_id: str) -> bool:
    """Whether the files of an earlier reading are there and whole."""
    try:
        _correct_answers(directory, trial_id)
        return tested(directory, trial_id) is not None
    except (OSError, SafetensorError, KeyError, InputError):
        return False


def _correct_answers(directory: StudyDir, trial_id: str) -> Tensor:
    """Which test images a model answered correctly: (N,) bool."""
    path = directory.trial(trial_id).path / ANSWERS_FILE
    return load(read_bytes(path))["correct"].bool()  # `load_file` takes no path that is not UTF-8


# --- figures ------------------------------------------------------------------------------------------------------


def _evaluation(plan: Plan, runs: dict[str, list[TrialState]]) -> FinalEvaluation:
    """Figures of every finalist, and the arms' representatives in pairs. `runs` are by the finalist's id."""
    directory = final_of(plan.study)
    found = [_finalist(directory, state, runs[state.id]) for state in plan.chosen if state.id in runs]
    rows = _with_representatives([row for row in found if row is not None])
    pairs = [_compared(directory, a, b) for a, b in combinations([row for row in rows if row.represents_arm], 2)]
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
        ),
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
    return _correct_answers(directory, row.runs[row.seeds.index(seed)])


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


# --- for the terminal ---------------------------------------------------------------------------------------------


def as_text(found: FinalEvaluation) -> str:
    """The evaluation for a terminal."""
    lines = [f"Test accuracy on {found.dataset}, {found.seeds} fresh seeds a finalist (* represents its arm)", ""]
    lines += [_finalist_line(row) for row in found.finalists]
    lines.append("")
    lines += [_comparison_line(pair) for pair in found.comparisons]
    count, last = len(found.readings), found.readings[-1]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last.time))
    other = f", by other studies here: {n}" if (n := last.earlier_in_other_studies) else ""
    lines.append(f"\nReadings of the test images of {found.dataset} by this study: {count}, last {when}{other}.")
    return "\n".join(lines)


def _finalist_line(row: Finalist) -> str:
    test, mark = row.test, "*" if row.represents_arm else " "
    spread = ""
    if test.sd is not None and test.low is not None and test.high is not None:
        spread = f" sd {100 * test.sd:.3f}, 95% of the mean {100 * test.low:.2f} to {100 * test.high:.2f},"
    low, high = (100 * bound for bound in row.wilson)
    uneven = row.balanced is not None and abs(row.balanced.mean - test.mean) > UNEVEN
    balanced = f" (balanced {100 * row.balanced.mean:.2f}%)" if row.balanced is not None and uneven else ""
    return (
        f"{mark} {row.arm} {row.trial}: {100 * test.mean:.3f}%{balanced}{spread} n {test.n}; one model "
        f"{low:.2f} to {high:.2f}; in the search {100 * row.search_accuracy:.2f}% on validation (optimistic)"
    )


def _comparison_line(pair: Comparison) -> str:
    mc, t = pair.mcnemar, pair.paired_t
    p = f"p {t.p:.3g} (Holm {t.p_holm:.3g})" if t.p is not None and t.p_holm is not None else "p unknown"
    gap = f"{100 * t.difference:+.3f} points over {t.n} seeds, {p}" if t.difference is not None else "no seed in common"
    mid = f"mid-p {mc.mid:.3g} (Holm {mc.mid_holm or 0.0:.3g})"
    return f"{pair.first} - {pair.second}: {gap}; McNemar {mc.only_first}:{mc.only_second}, {mid}"
