"""Ensembles of trained trials as exported models: which trials, as one module, and how accurate it is.

The same module serves a single trial that answers by several views of a picture (test-time augmentation).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from suite.data.datasets import search_splits
from suite.data.registry import is_own
from suite.data.splits import Labelled
from suite.errors import InputError
from suite.export.card import Card, Member
from suite.export.trained import Trained, trained
from suite.hardware import activations, flops, latency
from suite.hardware.budget import result
from suite.models.ensembles import Ensemble, Views, mean_of, same_pictures, shared_input
from suite.models.preprocessing import evaluation_preparer
from suite.models.streaming import on_device
from suite.ranking.statistics import wilson
from suite.spec import Cost, Int8, Preprocess, Record, Trial
from suite.store.finalists import recipe_of
from suite.store.study import StudyDir, final_of, finalists_of, find_trial, open_study, split_reference
from suite.store.trial import TrialState

CPU = torch.device("cpu")

MOST = 250  # pictures in a batch

Say = Callable[[str], None]

SAID_SECONDS = 2.0  # between two words on how far a measurement is


def silent(_: str) -> None:
    """Reports no progress."""


@dataclass(frozen=True)
class Wanted:
    """What a user asks for."""

    references: tuple[str, ...] = ()  # "STUDY" or "STUDY/TRIAL"; none: the newest study
    count: int | None = None  # the best trials of one study, or trainings of one trial with different seeds
    views: tuple[Views, ...] = ()


class Built(NamedTuple):
    """An ensemble that is ready to be exported."""

    model: Ensemble
    card: Card  # without the SHA-256 of the weights
    trials: tuple[Trial, ...]
    left_out: tuple[str, ...]  # better trials that do not see the same pictures as the best one


def build(results: Path, wanted: Wanted, say: Say = silent) -> Built:
    """Load the trials that are asked for as one model, and measure it on the validation pictures.

    `say` is told what begins and how far it is, where it takes seconds.

    Raises:
        InputError: there are no such trials, they do not go together, or the pictures are gone or have changed.
        WorkError: the data set could not be fetched.
    """
    chosen, left_out = _chosen(results, wanted)
    _refuse_unlike(chosen)
    first = chosen[0]
    given = shared_input([one.expects for one in chosen])
    model = Ensemble([one.load(results) for one in chosen], [one.expects for one in chosen], given, wanted.views).eval()
    figures = _measured(model, given, _validation(first.trial, given), say)
    members = tuple(
        Member(
            trial=one.name,
            backbone=one.trial.backbone,
            head=one.head,
            strategy=one.trial.strategy.kind,
            reshaped=one.trial.reshaped,
            preprocess=one.expects,
            accuracy=accuracy,
            sha256=one.record.artifact_sha256 or "",
        )
        for one, accuracy in zip(chosen, figures.members, strict=True)
    )
    card = Card(
        backbone=" + ".join(dict.fromkeys(one.backbone for one in members)),
        dataset=first.trial.dataset,
        classes=first.classes,
        preprocess=given,
        trial=" + ".join(one.name for one in chosen),
        strategy=" + ".join(dict.fromkeys(one.strategy for one in members)),
        accuracy=figures.accuracy,
        interval=wilson(figures.accuracy, figures.images),
        accuracy_fp32=figures.accuracy,
        images=figures.images,
        sha256="",
        timm=False,
        members=members,
        views=wanted.views,
        accuracy_one_view=figures.one_view if wanted.views else None,
        cost=_cost(model, given, [one.record for one in chosen]),
        provenance=first.record.provenance if len(chosen) == 1 else None,
    )
    return Built(model, card, tuple(one.trial for one in chosen), left_out)


# --- which trials -------------------------------------------------------------------------------------------------


def _chosen(results: Path, wanted: Wanted) -> tuple[list[Trained], tuple[str, ...]]:
    """The trials, best first or as they are named, and those that were left out."""
    names, count = wanted.references, wanted.count
    if len(names) > 1:
        if count not in (None, len(names)):
            raise InputError(f"--ensemble is {count}, and {len(names)} trials are named; leave --ensemble out.")
        return _without_twins([_named(results, name) for name in names]), ()
    study_name, trial_id = split_reference(names[0]) if names else (None, None)
    study = open_study(results, study_name)
    if count is None:
        return [trained(study, find_trial(study, trial_id))], ()
    if trial_id is not None:
        return _seeds(study, find_trial(study, trial_id), count), ()
    return _best(study, count)


def _named(results: Path, name: str) -> Trained:
    study_name, trial_id = split_reference(name)
    study = open_study(results, study_name)
    return trained(study, find_trial(study, trial_id))


def _best(study: StudyDir, count: int) -> tuple[list[Trained], tuple[str, ...]]:
    """The best finished trials by validation accuracy that see the same pictures as the best one."""
    finished = [
        s
        for s in study.states()
        if s.state == "finished" and s.best is not None and not isinstance(s.trial.strategy, Int8)
    ]
    ranked = sorted(finished, key=lambda s: (-(s.best or 0.0), s.trial.number))
    chosen: list[Trained] = []
    left_out: list[str] = []
    for state in ranked:
        one = trained(study, state)
        if any(_same_model(one, other) for other in chosen):
            continue
        if chosen and not _alike(chosen[0], one):
            left_out.append(one.name)
            continue
        chosen.append(one)
        if len(chosen) == count:
            return chosen, tuple(left_out)
    others = f" {len(left_out)} others do not see the same pictures as the best one." if left_out else ""
    raise InputError(
        f"Study '{study.name}' has {len(chosen)} finished trials with different models that go together, and "
        f"--ensemble asks for {count}.{others}"
    )


def _seeds(study: StudyDir, state: TrialState, count: int) -> list[Trained]:
    """Trainings of one recipe with different seeds: the trial, then those of the finalists and the final evaluation."""
    recipe, places = recipe_of(state.trial), (study, finalists_of(study), final_of(study))
    chosen = [trained(study, state)]
    for place, name in zip(places, (study.name, f"{study.name}/finalists", f"{study.name}/final"), strict=True):
        for other in place.states():
            if other.state == "finished" and recipe_of(other.trial) == recipe:
                one = trained(place, other, name)
                if not any(_same_model(one, earlier) for earlier in chosen):
                    chosen.append(one)
    if len(chosen) < count:
        raise InputError(
            f"Trial {study.name}/{state.id} has {len(chosen)} finished trainings with different seeds, and --ensemble "
            f"asks for {count}. `mnist-suite sweep --resume --study {study.name} --finalists N` and `mnist-suite "
            f"evaluate {study.name} --final` train the best recipes again with new seeds."
        )
    return chosen[:count]


def _same_model(first: Trained, second: Trained) -> bool:
    return first.record.artifact_sha256 == second.record.artifact_sha256


def _without_twins(chosen: list[Trained]) -> list[Trained]:
    for i, one in enumerate(chosen):
        if twin := next((other for other in chosen[:i] if _same_model(one, other)), None):
            raise InputError(f"{one.name} and {twin.name} are one model; name different trials.")
    return chosen


def _alike(first: Trained, second: Trained) -> bool:
    return same_pictures(first.expects, second.expects, decoded=is_own(first.trial.dataset))


def _refuse_unlike(chosen: Sequence[Trained]) -> None:
    """Raises InputError for trials whose predictions cannot be averaged, or not be measured on the same pictures."""
    first = chosen[0]
    for one in chosen[1:]:
        both = f"{first.name} and {one.name} cannot be one model:"
        if (first.trial.dataset, first.trial.data_hash) != (one.trial.dataset, one.trial.data_hash):
            raise InputError(
                f"{both} they were trained on different data ({first.trial.dataset} and {one.trial.dataset})."
                if first.trial.dataset != one.trial.dataset
                else f"{both} the pictures of {one.trial.dataset} have changed between them."
            )
        if first.classes != one.classes:
            raise InputError(f"{both} their classes differ.")
        if first.trial.limit != one.trial.limit:
            raise InputError(
                f"{both} they were validated on different pictures (--limit {first.trial.limit} and {one.trial.limit})."
            )
        if not _alike(first, one):
            raise InputError(
                f"{both} they do not see the same stored pictures. {first.name} takes {_sight(first)}, {one.name} "
                f"{_sight(one)}. Train them with the same --size and --fit."
            )


def _sight(one: Trained) -> str:
    view = one.expects.view()
    return f"{view.side} x {view.side} px, {one.expects.channels} channel(s), {view.fit}, {view.share:g} of the side"


# --- how accurate -------------------------------------------------------------------------------------------------


class _Figures(NamedTuple):
    images: int
    accuracy: float
    one_view: float  # of the pictures as they are
    members: tuple[float, ...]  # of each alone, on the pictures as they are


def _validation(trial: Trial, given: Preprocess) -> Labelled:
    """Raises InputError where the pictures are not those that the trial was validated on."""
    splits = search_splits(trial.dataset, limit=trial.limit, view=given.view())
    if splits.info.data_hash != trial.data_hash:
        raise InputError(
            f"The pictures of {trial.dataset} have changed since the trials, so the accuracy of the ensemble cannot be "
            "measured. Put the old ones back, or train the trials again."
        )
    return splits.validation


@torch.inference_mode()
def _measured(model: Ensemble, given: Preprocess, data: Labelled, say: Say) -> _Figures:
    """Accuracies in float32 on the CPU, as exported models compute."""
    images, labels = on_device(data.images, CPU), torch.from_numpy(data.labels)
    prepare = evaluation_preparer(given, CPU)
    batch = activations.evaluation_batch(model, given.shape, CPU, most=MOST)
    right = torch.zeros(2 + len(model.members), dtype=torch.long)
    say("predicting validation pictures")
    said = time.monotonic()
    for start in range(0, len(labels), batch):
        if time.monotonic() - said > SAID_SECONDS:
            said = time.monotonic()
            say(f"predicting validation pictures: {start} of {len(labels)}")
        each = model.log_probabilities(prepare(images[start : start + batch]))
        answers = [mean_of(each.flatten(0, 1)), mean_of(each[:, 0]), *each[:, 0]]
        right += torch.stack([_right(scores, labels[start : start + batch]) for scores in answers])
    accuracy, one_view, *members = (count / len(labels) for count in right.tolist())
    return _Figures(len(labels), accuracy, one_view, tuple(members))


def _right(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(1) == labels).sum()


# --- at what cost -------------------------------------------------------------------------------------------------


def _cost(model: Ensemble, given: Preprocess, records: Sequence[Record]) -> Cost | None:
    """Parameters, FLOPs and latencies of the whole, views included, and what all trainings took together."""
    costs = [record.cost for record in records if record.cost is not None]
    if len(costs) < len(records):
        return None
    counted = flops.count(model, given.shape)
    times = result(latency.measure(model, given.shape, CPU, latency.LEAST_SECONDS))
    seconds = sum(cost.train_seconds for cost in costs)
    joules = [cost.energy_joules for cost in costs if cost.energy_joules is not None]
    return Cost(
        parameters=counted.parameters,
        trainable=sum(cost.trainable for cost in costs),
        forward_flops=counted.forward_flops,
        training_flops=sum(cost.training_flops for cost in costs),
        setup_flops=sum(cost.setup_flops for cost in costs),
        wall_seconds=sum(cost.wall_seconds for cost in costs),
        train_seconds=seconds,
        setup_seconds=sum(cost.setup_seconds for cost in costs),
        images_per_second=sum(cost.images_per_second * cost.train_seconds for cost in costs) / max(seconds, 1e-9),
        peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
        memory_source=costs[0].memory_source,
        energy_joules=sum(joules) if len(joules) == len(costs) else None,
        energy_source=costs[0].energy_source if len(joules) == len(costs) else "unavailable",
        latency_seconds=times.one,
        latency_256_seconds=times.batch_256,
        latency_source=times.source,
    )
