"""What ensembles and test-time augmentation buy on the test images, from the stored answers of the tested models.

No model is run, so no figure here needs another reading of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from suite.evaluation.reading import Answers, logits_of
from suite.models.ensembles import mean_of
from suite.ranking.final import EnsembleFigures, Finalist, McNemarFigures, PairedFigures, ViewedFigures
from suite.ranking.statistics import mcnemar, paired_t, sample_of_shares, wilson


def ensemble(members: Sequence[Answers], views: Sequence[str] = ()) -> EnsembleFigures | None:
    """The models as one that answers with the mean of their probabilities, each over all `views`.

    None for fewer than two members, and where one has no labels or no answers for these views, or answered other
    images.
    """
    key = logits_of(views)
    if len(members) < 2 or not all({key, "labels"} <= one.keys() for one in members):
        return None
    labels = members[0]["labels"]
    if not all(torch.equal(one["labels"], labels) for one in members):
        return None
    right = mean_of(torch.stack([one[key].double().log_softmax(1) for one in members])).argmax(1) == labels
    first = members[0]["correct"].bool()
    accuracy = int(right.sum()) / len(labels)
    return EnsembleFigures(
        members=len(members),
        images=len(labels),
        accuracy=accuracy,
        wilson=wilson(accuracy, len(labels)),
        against_first=McNemarFigures(**asdict(mcnemar(int((right & ~first).sum()), int((first & ~right).sum())))),
    )


def viewed(row: Finalist, runs: Sequence[Answers], views: Sequence[str]) -> ViewedFigures | None:
    """The runs of a finalist with test-time augmentation; None where one has no answers for these views."""
    key = logits_of(views)
    if not all({key, "labels"} <= one.keys() for one in runs):
        return None
    found = [int((one[key].argmax(1) == one["labels"]).sum()) / len(one["labels"]) for one in runs]
    return ViewedFigures(
        accuracies=tuple(found),
        test=sample_of_shares(found),
        paired_t=PairedFigures(**asdict(paired_t(found, row.accuracies))),
        ensemble=ensemble(runs, views) if row.represents_arm else None,
    )
