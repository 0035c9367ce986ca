"""A small network that is trained on real digits once, and exported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.importorskip("captum")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from suite.data.datasets import search_splits
from suite.data.splits import Splits
from suite.explaining.subject import Subject
from suite.export.card import CARD, WEIGHTS, Card
from suite.models import backbones
from suite.models.preprocessing import evaluation_preparer, preprocess
from suite.training.checkpoint import save_tensors

LIMIT = 1500  # images of each split


class Digits(NamedTuple):
    splits: Splits
    images: np.ndarray  # (N, 1, 28, 28) uint8: validation images that the network answers rightly
    labels: np.ndarray


@pytest.fixture(scope="session")
def splits() -> Splits:
    return search_splits("mnist", limit=LIMIT)


@pytest.fixture(scope="session")
def network(splits: Splits) -> nn.Module:
    """The tutorial's cnn after two epochs: over 90 % are answered rightly."""
    model = backbones.build("cnn", classes=10, channels=1, size=28, seed=0)
    prepare = evaluation_preparer(preprocess("cnn", splits.info), torch.device("cpu"))
    inputs = prepare(torch.from_numpy(splits.train.images))
    labels = torch.from_numpy(splits.train.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for rows in torch.randperm(len(labels), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture
def subject(network: nn.Module, splits: Splits) -> Callable[..., Subject]:
    """A model of digits to explain: the trained one, or another."""

    def make(model: nn.Module = network, **changes: object) -> Subject:
        expects = preprocess("cnn", splits.info)
        facts = {"name": "s/t", "expects": expects, "classes": splits.info.classes, "dataset": "mnist", "head": None}
        return Subject(model=model, **{**facts, "limit": LIMIT, **changes})

    return make


@pytest.fixture(scope="session")
def digits(network: nn.Module, splits: Splits) -> Digits:
    prepare = evaluation_preparer(preprocess("cnn", splits.info), torch.device("cpu"))
    answers = network(prepare(torch.from_numpy(splits.validation.images))).argmax(1).numpy()
    right = answers == splits.validation.labels
    assert right.mean() > 0.9
    return Digits(splits, splits.validation.images[right], splits.validation.labels[right])


@pytest.fixture(scope="session")
def exported(network: nn.Module, splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "model"
    folder.mkdir()
    card = Card(
        backbone="cnn", dataset="mnist", classes=splits.info.classes, trial="s/t", strategy="scratch", accuracy=0.95,
        preprocess=preprocess("cnn", splits.info), interval=(0.9, 1.0), images=LIMIT,
        sha256=save_tensors(folder / WEIGHTS, network.state_dict()), timm=False, cost=None, provenance=None,
    )  # fmt: skip
    (folder / CARD).write_text(card.model_dump_json())
    return folder
