"""Robustness: accuracy of trained models on corrupted pictures, and on characters drawn in fonts.

Validation images are the default, as the figures may inform a choice. Test images are read for models that the final
evaluation has tested already, and that is recorded as one more reading of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.corruptions import CORRUPTIONS, Corruption, Edge, corrupted
from suite.data.datasets import describe, search_splits
from suite.data.rendered import rendered
from suite.data.splits import Splits
from suite.errors import InputError
from suite.evaluation import reading
from suite.hardware import device
from suite.models.assembly import load_trained
from suite.models.preprocessing import evaluation_preparer, of_trial
from suite.models.streaming import on_device
from suite.ranking.final import final_evaluation
from suite.ranking.gains import study_gains
from suite.ranking.shift import Corrupted, FontAnswers, Level, Part, Shift, shifts, write_shift
from suite.ranking.statistics import sample_of_shares, wilson
from suite.spec import Preprocess
from suite.store.provenance import commit, version
from suite.store.study import StudyDir, final_of, find_trial
from suite.store.trial import TrialState
from suite.training.evaluation import Examples, evaluate

OnStep = Callable[[int, int], None]  # called with the sets of pictures answered so far and the number of all


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained model and the pictures that it is to answer."""

    trial: str  # id in the search
    arm: str
    run: str | None = None  # training of the final evaluation, on test
    weights_sha256: str | None
    dataset: str
    part: Part
    classes: tuple[str, ...]
    expects: Preprocess
    model: nn.Module
    examples: Examples
    where: torch.device

    @property
    def kinds(self) -> dict[str, Corruption]:
        """The corruptions that make sense for its pictures: those of strokes for glyphs only."""
        strokes = self.expects.placement == "centred"
        return {name: kind for name, kind in CORRUPTIONS.items() if strokes or not kind.strokes}

    @property
    def edge(self) -> Edge:
        """What lies outside of its pictures: those of single things on dark ground have more of it."""
        return "border" if self.expects.placement is None else "zeros"

    @property
    def has_fonts(self) -> bool:
        """Whether its classes are letters and digits, in the form of MNIST."""
        characters = all(len(name) == 1 and name.isascii() and name.isalnum() for name in self.classes)
        return self.expects.placement == "centred" and characters

    @property
    def steps(self) -> int:
        """Sets of pictures that it answers."""
        return 1 + sum(len(kind.levels) for kind in self.kinds.values()) + self.has_fonts

    def known(self, found: Shift | None) -> bool:
        """Whether `found` is what measuring it again would find."""
        if found is None or (found.run, found.weights_sha256) != (self.run, self.weights_sha256):
            return False
        levels = {one.name: tuple(level.level for level in one.levels) for one in found.corruptions}
        return levels == {name: kind.levels for name, kind in self.kinds.items()}


# --- which models, and which pictures -------------------------------------------------------------------------------


def on_validation(
    results: Path, study: StudyDir, trial_id: str | None, *, limit: int | None = None, place: str = "auto"
) -> list[Subject]:
    """One trial, or the best one of each arm, with its validation images.

    Args:
        trial_id: id or number; None: of each arm the trial that the leaderboard has as its best.
        limit: the most images, taken evenly from the classes; None: as in the search.
        place: device, as on the command line.

    Raises InputError where there is no such trial, it has no model, or the data have changed since.
    """
    where = device.pick(place)
    states = study.states()
    if trial_id is not None:
        chosen = [find_trial(study, trial_id)]
    else:
        by_id = {state.id: state for state in states}
        chosen = [by_id[one.winner] for one in study_gains(study, states)]
    if not chosen:
        raise InputError(f"Study '{study.name}' has no finished trial yet, so there is no model to measure.")
    return [_on_validation(results, study, state, limit, where) for state in chosen]


def _on_validation(
    results: Path, study: StudyDir, state: TrialState, limit: int | None, where: torch.device
) -> Subject:
    trial = state.trial
    info = describe(trial.dataset, limit=trial.limit).info
    if info.data_hash != trial.data_hash:
        raise InputError(f"The data of '{trial.dataset}' are not the ones that trial {state.id} was trained on.")
    expects = of_trial(trial, info)
    model = load_trained(study.trial(state.id), trial, expects, len(info.classes), results).model
    return exported(
        model,
        expects,
        dataset=trial.dataset,
        trial=state.id,
        arm=trial.arm,
        weights_sha256=state.record.artifact_sha256 if state.record else None,
        limit=trial.limit if limit is None else limit,
        where=where,
    )


def exported(
    model: nn.Module,
    expects: Preprocess,
    *,
    dataset: str,
    trial: str,
    arm: str,
    weights_sha256: str | None,
    limit: int | None,
    where: torch.device,
) -> Subject:
    """Any model with the validation images of a data set. Raises InputError where they cannot be read."""
    splits: Splits = search_splits(dataset, limit=limit, view=expects.view())
    images = on_device(splits.validation.images, where)
    return Subject(
        trial=trial,
        arm=arm,
        weights_sha256=weights_sha256,
        dataset=dataset,
        part="validation",
        classes=splits.info.classes,
        expects=expects,
        model=model,
        examples=Examples(images, torch.from_numpy(splits.validation.labels).to(where)),
        where=where,
    )


def on_test(
    results: Path, study: StudyDir, trial_id: str | None, *, command: str, place: str = "auto"
) -> list[Subject]:
    """The models of the final evaluation that represent the arms, or that of one finalist, with the test images.

    Of each finalist it is the first training. The reading is recorded here, before a model sees the images; models
    that have been measured on them before are no reading. Raises InputError where the final evaluation has not tested
    the trial.
    """
    where, file = device.pick(place), study.study()
    done = final_evaluation(study, list(file.experiment.arms)) if file is not None else None
    if done is None:
        raise InputError(
            f"Study '{study.name}' has no final evaluation yet. --test measures models whose test accuracy is known: "
            f"`mnist-suite evaluate {study.name} --final` comes first. Without --test, validation images are taken."
        )
    rows = done.representatives
    if trial_id is not None:
        wanted = find_trial(study, trial_id).id
        rows = [row for row in done.finalists if row.trial == wanted]
        if not rows:
            tested = ", ".join(row.trial for row in done.finalists)
            raise InputError(f"Trial {wanted} was not tested by the final evaluation; these were: {tested}.")
    runs = {state.id: state for state in final_of(study).states()}
    gone = [row.runs[0] for row in rows if row.runs[0] not in runs]
    if gone:
        raise InputError(f"Training {gone[0]} of the final evaluation is gone from {final_of(study).path}.")
    subjects = [_on_test(results, study, row.trial, runs[row.runs[0]], where) for row in rows]
    before = shifts(study, "test")
    if new := [one.run or "" for one in subjects if not one.known(before.get(one.trial))]:
        reading.record_reading(results, study, command, subjects[0].dataset, new)
    return subjects


def _on_test(results: Path, study: StudyDir, searched: str, state: TrialState, where: torch.device) -> Subject:
    trial, directory = state.trial, final_of(study).trial(state.id)
    info = describe(trial.dataset, limit=trial.limit).info
    expects = of_trial(trial, info)
    return Subject(
        trial=searched,
        arm=trial.arm,
        run=state.id,
        weights_sha256=state.record.artifact_sha256 if state.record else None,
        dataset=trial.dataset,
        part="test",
        classes=info.classes,
        expects=expects,
        model=load_trained(directory, trial, expects, len(info.classes), results).model,
        examples=reading.test_images(trial.dataset, expects.view(), where),
        where=where,
    )


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(subjects: Sequence[Subject], study: StudyDir | None, *, on_step: OnStep = lambda *_: None) -> list[Shift]:
    """Measure the models one after the other; each result is written to the study before the next one begins.

    On test, models that have been measured before are not measured again. `study` None: nothing is written.
    """
    before = shifts(study, "test") if study is not None else {}
    done, total = 0, sum(one.steps for one in subjects)
    found: list[Shift] = []
    for one in subjects:
        last = before.get(one.trial)
        if one.part == "test" and last is not None and one.known(last):
            found.append(last)
        else:
            found.append(_measured(one, lambda step, done=done: on_step(done + step, total)))
            if study is not None:
                write_shift(study, found[-1])
        done += one.steps
    on_step(total, total)
    return found


def _measured(one: Subject, on_step: Callable[[int], None]) -> Shift:
    """One model on all sets of pictures."""
    on_step(0)
    clean, steps = _right(one, one.examples), 1
    answers: list[Corrupted] = []
    share = np.zeros(len(clean))  # of the levels that each picture is answered correctly at, weighted as in the mean
    for name, kind in one.kinds.items():
        levels: list[Level] = []
        for level in kind.levels:
            on_step(steps)
            hit = _right(one, one.examples, partial(corrupted, name=name, level=level, edge=one.edge))
            share += hit / (len(kind.levels) * len(one.kinds))
            lost, gained = int((clean & ~hit).sum()), int((~clean & hit).sum())
            levels.append(Level(level=level, right=int(hit.sum()), lost=lost, gained=gained))
            steps += 1
        answers.append(Corrupted(name=name, unit=kind.unit, levels=tuple(levels)))
    on_step(steps)
    return Shift(
        trial=one.trial,
        arm=one.arm,
        run=one.run,
        weights_sha256=one.weights_sha256,
        dataset=one.dataset,
        part=one.part,
        images=len(clean),
        right=int(clean.sum()),
        corruptions=tuple(answers),
        interval=_interval(share),
        fonts=_fonts(one) if one.has_fonts else (),
        classes=len(one.classes),
        version=version(),
        commit=commit(),
    )


def _right(one: Subject, examples: Examples, change: Callable[[Tensor], Tensor] = lambda x: x) -> np.ndarray:
    """(N,) bool: which pictures, changed on the CPU, the model answers correctly; in fp32, as models are exported."""
    prepare = evaluation_preparer(one.expects, one.where)

    def prepared(images: Tensor) -> Tensor:
        return prepare(change(images.cpu()).to(one.where))

    logits = evaluate(one.model.to(one.where), examples, prepared, one.where, torch.float32).logits
    return (logits.argmax(1) == examples.labels.cpu()).numpy()


def _interval(share: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean over the pictures: Student's t; Wilson's where all pictures are answered alike."""
    found = sample_of_shares(share.tolist())
    if not found.sd or found.low is None or found.high is None:
        return wilson(min(1.0, found.mean), found.n)
    return found.low, found.high


def _fonts(one: Subject) -> tuple[FontAnswers, ...]:
    if not (fonts := rendered(one.classes, one.expects.stored)):
        return ()
    pictures = torch.from_numpy(np.concatenate([font.pictures for font in fonts])).to(one.where)
    labels = torch.arange(len(one.classes), device=one.where).repeat(len(fonts))
    hits = _right(one, Examples(pictures, labels)).reshape(len(fonts), -1)
    return tuple(
        FontAnswers(name=font.name, wrong=tuple(name for name, hit in zip(one.classes, line, strict=True) if not hit))
        for font, line in zip(fonts, hits, strict=True)
    )
