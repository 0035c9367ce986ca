"""Ensembles of stored answers, against figures computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scipy.special import softmax

from suite.evaluation.ensembles import ensemble
from suite.evaluation.reading import Answers


def answers(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """A model's logits (N, classes) with the labels (N,), as they are stored."""
    return {
        "logits": torch.from_numpy(logits).float(),
        "correct": torch.from_numpy(logits.argmax(1) == labels),
        "labels": torch.from_numpy(labels),
    }


def test_the_mean_of_probabilities_decides_by_hand() -> None:
    """Probabilities of three images of class 0, by two models. Votes, logits or the first alone would say otherwise."""
    labels = np.zeros(3, dtype=np.int64)
    first = np.log([[0.4, 0.5, 0.1], [0.45, 0.1, 0.45 + 1e-3], [0.6, 0.3, 0.1]])
    second = np.log([[0.4, 0.1, 0.5], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]])  # means: 0 of 0.4, 1 of 0.45, 1 of 0.55
    found = ensemble([answers(first, labels), answers(second, labels)])
    assert found is not None
    assert (found.members, found.images, found.accuracy) == (2, 3, pytest.approx(1 / 3))
    assert (found.against_first.only_first, found.against_first.only_second) == (1, 1)
    assert found.against_first.mid == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 60))
def test_figures_are_those_of_numpy_and_scipy(seed: int, members: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    logits = [rng.normal(size=(images, 3)).astype(np.float32) * 3 for _ in range(members)]
    found = ensemble([answers(one, labels) for one in logits])
    right = np.mean([softmax(one.astype(float), axis=1) for one in logits], axis=0).argmax(1) == labels
    first = logits[0].argmax(1) == labels
    assert found is not None and found.accuracy == pytest.approx(right.mean())
    low, high = scipy_stats.binomtest(int(right.sum()), images).proportion_ci(method="wilson")
    assert found.wilson == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert found.against_first.only_first == (right & ~first).sum()
    assert found.against_first.only_second == (first & ~right).sum()


def test_what_cannot_be_combined_is_left_out() -> None:
    labels = np.arange(3)
    one = answers(np.eye(3), labels)
    assert ensemble([one]) is None
    assert ensemble([one, {key: value for key, value in one.items() if key != "labels"}]) is None
    assert ensemble([one, answers(np.eye(3), labels[::-1].copy())]) is None  # other images
    assert ensemble([one, one], views=["shift"]) is None  # not answered by views
