"""The final evaluation: finalists trained again with fresh seeds, and the test images read for them, once.

A search chooses by validation accuracy, so its best figure is optimistic. What is reported here is the test accuracy
of new trainings of the chosen recipes; the finalists, and the one that stands for its arm, are chosen on validation.
This module alone reads the test images of a study, and it takes every reading down before it opens them.
Beside it `bench time-to-99` reads them, to say what recipes long chosen reach.
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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from suite.data.datasets import test_split
from suite.errors import InputError, WorkError
from suite.execution.replay import content, find, replay
from suite.execution.stop import Stop
from suite.hardware import device
from suite.models.assembly import load_trained
from suite.models.preprocessing import evaluation_preparer
from suite.ranking import statistics
from suite.ranking.final import ERRORS, OUTCOME, READINGS, readings, tested_facts
from suite.ranking.statistics import wilson
from suite.spec import Status, Trial
from suite.spec.seeds import mix
from suite.store.files import read_bytes, write_atomic
from suite.store.provenance import commit, version
from suite.store.study import StudyDir, arms, final_of, studies
from suite.store.trial import TrialState
from suite.training.checkpoint import save_tensors
from suite.training.evaluation import Examples, evaluate
from suite.training.mistakes import find_mistakes

FRESH = 1000  # seeds of the final training are drawn from here on; the search's own is never among them

ANSWERS = "test.safetensors"  # of one trial: logits (N, classes), and which are correct (N,)

OnModel = Callable[[int, int], None]  # tested so far, in all

APART = (
    "The test set is kept apart: whoever looks at it while choosing ends up fitted to it, and every figure after that "
    "is too good. Search and pruning use the validation split. When the choosing is over, `mnist-suite evaluate "
    "{study} --final` trains the finalists again with fresh seeds, reads the test images once and takes that down."
)


def finalists(states: Sequence[TrialState], top: int) -> list[TrialState]:
    """The `top` finished trials of every arm by validation accuracy; the earlier one on a tie."""
    chosen: list[TrialState] = []
    for arm in arms(states):
        done = [s for s in states if s.trial.arm == arm and s.state == "finished" and s.best is not None]
        chosen += sorted(done, key=lambda s: (-(s.best or 0.0), s.trial.number))[:top]
    return chosen


def again(state: TrialState, seeds: int, *, place: str, threads: int) -> list[Trial]:
    """The same recipe under fresh seeds, which are the same for every finalist, so that runs can be paired."""
    changes = {"rungs": (), "caps": None, "device": place, "threads": threads}
    return [state.trial.model_copy(update={**changes, "seed": mix(FRESH, k) % 2**31}) for k in range(seeds)]


@dataclass(frozen=True)
class Plan:
    """A final evaluation to be: whom, and under which seeds."""

    results: Path
    study: StudyDir
    top: int
    seeds: int
    place: str  # device
    command: str
    chosen: list[TrialState]
    trials: dict[str, list[Trial]]  # by the finalist's id

    @property
    def every(self) -> list[Trial]:
        return [trial for trials in self.trials.values() for trial in trials]


def plan(
    results: Path, study: StudyDir, *, top: int, seeds: int, place: str = "auto", workers: int = 1, command: str = ""
) -> Plan:
    """Choose the finalists. Raises InputError where there are none, or while the search goes on choosing."""
    device.pick(place)
    if status := study.live():
        raise InputError(
            f"Study '{study.name}' is still being searched (pid {status.pid} on {status.host}). The test images are "
            f"read when the choosing is over: wait for it, or `mnist-suite stop {study.name}`."
        )
    chosen = finalists(study.states(), top)
    if not chosen:
        raise InputError(f"Study '{study.name}' has no finished trial, so there is nothing to evaluate.")
    threads = max(1, device.cores() // workers)
    trials = _without_twins({s.id: again(s, seeds, place=place, threads=threads) for s in chosen})
    return Plan(results, study, top, seeds, place, command, chosen, trials)


def train(plan: Plan, *, stop: Stop, workers: int = 1) -> Iterator[Status]:
    """Train the finalists under their fresh seeds; what is there already is not trained again. Raises WorkError."""
    directory = final_of(plan.study)
    yield from replay(plan.every, directory, plan.results, stop=stop, workers=workers, command=plan.command)


def judge(plan: Plan, *, on_model: OnModel = lambda *_: None) -> dict[str, Any]:
    """Read the test images for the trained finalists and report; also written to evaluation.json. Raises WorkError."""
    directory = final_of(plan.study)
    runs = find(directory, plan.every)
    finished = [s for s in runs.values() if s.state == "finished"]
    if not finished:
        reasons = {s.reason for s in runs.values() if s.reason}
        raise WorkError(f"None of the final trainings finished: {'; '.join(sorted(reasons))}.")
    read(plan, finished, on_model)
    trained = {k: [runs[key] for t in v if (key := content(t)) in runs] for k, v in plan.trials.items()}
    found = outcome_of(plan, trained)
    write_atomic(directory.path / OUTCOME, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def _without_twins(plans: dict[str, list[Trial]]) -> dict[str, list[Trial]]:
    """Two finalists of the same arm and parameters would be one training twice; the first stays."""
    seen: set[str] = set()
    kept: dict[str, list[Trial]] = {}
    for name, trials in plans.items():
        if (key := content(trials[0])) not in seen:
            seen.add(key)
            kept[name] = trials
    return kept


def read(plan: Plan, finished: Sequence[TrialState], on_model: OnModel) -> None:
    """Let every model that has not been tested yet answer all test images; models that have are left alone.

    Models run in fp32, as they are exported. The reading is taken down first, so that a crash cannot hide it.
    """
    results, study, place = plan.results, plan.study, plan.place
    directory = final_of(study)
    new = [s for s in finished if not (_tested(directory, s.id) and readings(study))]
    if not new:
        return
    dataset = new[0].trial.dataset
    elsewhere = sum(
        reading["dataset"] == dataset
        for other in studies(results)
        if other.name != study.name
        for reading in readings(other)
    )
    reading = {
        "time": time.time(),
        "command": plan.command,
        "version": version(),
        "commit": commit(),
        "dataset": dataset,
        "models": [s.id for s in new],
        "earlier": len(readings(study)),
        "earlier_in_other_studies": elsewhere,
    }
    with open(directory.path / READINGS, "a") as file:
        file.write("\n" + json.dumps(reading) + "\n")  # first the end of a line that may have been torn
        file.flush()
        os.fsync(file.fileno())
    test, info = test_split(dataset)
    digest = hashlib.sha256(test.images.tobytes() + test.labels.tobytes()).hexdigest()
    where = device.pick(place)
    examples = Examples(torch.from_numpy(test.images).to(where), torch.from_numpy(test.labels).to(where))
    for done, state in enumerate(new):
        on_model(done, len(new))
        assembled = load_trained(directory.trial(state.id), state.trial, info, results)
        prepare = evaluation_preparer(assembled.expects, where)
        scores = evaluate(assembled.model.to(where), examples, prepare, where, torch.float32)
        path = directory.trial(state.id).path
        correct = scores.logits.argmax(1) == examples.labels.cpu()
        save_tensors(path / ANSWERS, {"logits": scores.logits, "correct": correct})
        facts = {
            "accuracy": scores.accuracy,
            "loss": scores.loss,
            "images": len(examples),
            "test_sha256": digest,
            **find_mistakes(scores.logits, examples, info.classes).model_dump(mode="json"),
        }
        write_atomic(path / ERRORS, json.dumps(facts))


def _tested(directory: StudyDir, trial_id: str) -> bool:
    """Whether the answers of an earlier reading are there, and whole."""
    try:
        _answers(directory, trial_id)
    except (OSError, SafetensorError, KeyError):
        return False
    return tested_facts(directory, trial_id) is not None


def _answers(directory: StudyDir, trial_id: str) -> Tensor:
    """Which test images a model got right: (N,) bool."""
    path = directory.trial(trial_id).path / ANSWERS
    return load(read_bytes(path))["correct"].bool()  # `load_file` takes no path that is not UTF-8


def outcome_of(plan: Plan, runs: dict[str, list[TrialState]]) -> dict[str, Any]:
    """Figures of every finalist, and the arms' best compared in pairs. `runs` by the finalist's id."""
    study, chosen = plan.study, plan.chosen
    directory = final_of(study)
    rows = [_finalist(directory, state, runs[state.id]) for state in chosen if state.id in runs]
    rows = [row for row in rows if row["runs"]]
    for arm in arms(chosen):
        # by validation, never by test: the choice must not see what it will be judged by
        own = [row for row in rows if row["arm"] == arm]
        if own:
            max(own, key=lambda row: row["validation"]["mean"])["represents_arm"] = True
    best = [row for row in rows if row["represents_arm"]]
    pairs = [_compared(directory, a, b) for a, b in combinations(best, 2)]
    for pair, raised in zip(pairs, statistics.holm([p["mcnemar"]["mid"] for p in pairs])):
        pair["mcnemar"]["mid_holm"] = raised
    for pair, raised in zip(pairs, statistics.holm([p["paired_t"]["p"] for p in pairs])):
        pair["paired_t"]["p_holm"] = raised
    return {
        "study": study.name,
        "dataset": chosen[0].trial.dataset,
        "made": time.time(),
        "top": plan.top,
        "seeds": plan.seeds,
        "finalists": rows,
        "comparisons": pairs,
        "readings": readings(study),
        "notes": [
            "search_accuracy is the search's own best on validation: optimistic, since the search chose by it.",
            "Intervals over seeds are Student's t for the mean; the Wilson interval is for the first seed's model.",
            "McNemar compares the two arms' first models image by image, mid-p; the paired t test their seeds.",
            "Seeds vary the training; models that stand on the same weights share them.",
        ],
    }


def _finalist(directory: StudyDir, state: TrialState, runs: Sequence[TrialState]) -> dict[str, Any]:
    tested = [(s, facts) for s in runs if (facts := tested_facts(directory, s.id)) is not None]
    row: dict[str, Any] = {
        "arm": state.trial.arm,
        "trial": state.id,
        "params": state.trial.params,
        "search_accuracy": state.best,
        "represents_arm": False,
        "runs": [s.id for s, _ in tested],
        "seeds": [s.trial.seed for s, _ in tested],
        "failed": len(runs) - len(tested),
    }
    if tested:
        images = tested[0][1]["images"]
        accuracies = [facts["accuracy"] for _, facts in tested]
        row |= {
            "images": images,
            "accuracies": accuracies,
            "test": asdict(statistics.sample(accuracies)),
            "validation": asdict(statistics.sample([s.best or 0.0 for s, _ in tested])),
            "wilson": wilson(accuracies[0], images),
            "ece": asdict(statistics.sample([facts["ece"] for _, facts in tested])),
            "test_sha256": tested[0][1]["test_sha256"],
        }
    return row


def _compared(directory: StudyDir, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    shared = [seed for seed in a["seeds"] if seed in b["seeds"]]
    first, second = ([row["accuracies"][row["seeds"].index(seed)] for seed in shared] for row in (a, b))
    nothing = dict.fromkeys(("difference", "low", "high", "t", "p"))
    one, two = (_correct(directory, row, shared[0] if shared else row["seeds"][0]) for row in (a, b))
    return {
        "first": a["arm"],
        "second": b["arm"],
        "mcnemar": asdict(statistics.mcnemar(int((one & ~two).sum()), int((two & ~one).sum()))),
        "paired_t": asdict(statistics.paired_t(first, second)) if shared else {**nothing, "n": 0},
    }


def _correct(directory: StudyDir, row: dict[str, Any], seed: int) -> Tensor:
    """Which test images a finalist's model of this seed got right: (N,) bool."""
    trial_id = row["runs"][row["seeds"].index(seed)]
    return _answers(directory, trial_id)


def as_text(found: dict[str, Any]) -> str:
    """The outcome for a terminal."""
    lines = [f"Test accuracy on {found['dataset']}, {found['seeds']} fresh seeds a finalist (* stands for its arm)", ""]
    for row in found["finalists"]:
        test, mark = row["test"], "*" if row["represents_arm"] else " "
        spread = ""
        if test["sd"] is not None:
            spread = f" sd {100 * test['sd']:.3f}, 95% of the mean {100 * test['low']:.2f} to {100 * test['high']:.2f},"
        low, high = (100 * bound for bound in row["wilson"])
        lines.append(
            f"{mark} {row['arm']} {row['trial']}: {100 * test['mean']:.3f}%{spread} n {test['n']}; one model "
            f"{low:.2f} to {high:.2f}; in the search {100 * row['search_accuracy']:.2f}% on validation (optimistic)"
        )
    lines.append("")
    for pair in found["comparisons"]:
        mc, t = pair["mcnemar"], pair["paired_t"]
        p = f"p {t['p']:.3g} (Holm {t['p_holm']:.3g})" if t["p"] is not None else "p unknown"
        gap = f"{100 * t['difference']:+.3f} points over {t['n']} seeds, {p}" if t["n"] else "no seed in common"
        lines.append(
            f"{pair['first']} - {pair['second']}: {gap}; "
            f"McNemar {mc['only_first']}:{mc['only_second']}, mid-p {mc['mid']:.3g} (Holm {mc['mid_holm']:.3g})"
        )
    count, last = len(found["readings"]), found["readings"][-1]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["time"]))
    other = f", by other studies here: {n}" if (n := last["earlier_in_other_studies"]) else ""
    lines.append(f"\nReadings of the test images of {found['dataset']} by this study: {count}, last {when}{other}.")
    return "\n".join(lines)
