"""Models of a person's own pictures, shared by the tests of exports and predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suite.data.datasets import search_splits
from suite.models.heads import HEADS
from suite.spec import Arm, Experiment, HeadOnly, Recipe
from suite.store.study import StudyDir

Search = Callable[[Experiment, Path], StudyDir]

KINDS = {head: head.model_fields["kind"].default for head in HEADS}

COLOURS = {"café": (250, 120, 40), "thé": (40, 200, 120), "z": (90, 90, 250)}


@dataclass(frozen=True)
class Own:
    """A finished study of own pictures."""

    pictures: Path  # a folder a class, and one of them nested
    study: StudyDir

    def trial(self, arm: str) -> str:
        return next(state.id for state in self.study.states() if state.trial.arm == arm)


def draw(folder: Path, each: int = 15) -> None:
    """Coloured pictures of real digits on white, wider than high, of other sizes than any model's."""
    digits = search_splits("mnist", limit=100).train.images[:, 0]
    for number, (label, colour) in enumerate(COLOURS.items()):
        for i in range(each):
            digit = Image.fromarray(255 - digits[number * each + i]).resize((75, 60))
            ink = np.asarray(digit, np.float32)[..., None] / 255
            pixels = 255 * ink + np.array(colour) * (1 - ink)
            place = folder / label / ("more" if i % 5 == 0 else ".")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i:02d}.{'jpg' if i % 2 else 'png'}")


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory, search: Search) -> Own:
    pictures = tmp_path_factory.mktemp("own") / "pictures"
    draw(pictures)
    recipe = Recipe(epochs=3, batch_size=8, lr=0.02)
    experiment = Experiment(
        name="own",
        question="Are own pictures seen alike?",
        dataset=f"folder:{pictures}",
        arms={
            "net": Arm(backbone="net", recipe=recipe),
            "timm": Arm(backbone="timm:test_efficientnet", size=48, recipe=recipe),
        },
        space={},
        trials=2,
        pruning=None,
    )
    return Own(pictures, search(experiment, tmp_path_factory.mktemp("own-results") / "results"))


@pytest.fixture(scope="session")
def models(own: Own, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exported models of the study, by arm."""
    from suite.export.publish import export

    folder = tmp_path_factory.mktemp("models")
    for arm in ("net", "timm"):
        export(own.study.path.parent, f"own/{own.trial(arm)}", folder / arm)
    return {arm: folder / arm for arm in ("net", "timm")}


@pytest.fixture(scope="session")
def study(
    tmp_path_factory: pytest.TempPathFactory,
    made: Callable[..., Experiment],
    search: Callable[[Experiment, Path], StudyDir],
) -> StudyDir:
    """One finished trial each: a whole network, heads that stay linear, heads that do not, and two models of timm's."""
    recipe = Recipe(epochs=1, batch_size=50, lr=0.05)
    heads = {kind: head() for head, kind in KINDS.items()}
    arms = {
        "whole": Arm(backbone="net", recipe=recipe),
        "timm": Arm(backbone="timm:test_vit", size=32, recipe=recipe),
        # At the size of the pictures, so that timm's transform does not differ by the rounding of a resize: after one
        # epoch two classes may be so close that this turns an answer, on one processor and not on another.
        "native": Arm(backbone="timm:test_efficientnet", size=28, recipe=recipe),
        **{
            name: Arm(backbone="net", strategy=HeadOnly(head=head), weights="experiment", recipe=recipe)
            for name, head in heads.items()
        },
    }
    experiment = made(trials=len(arms)).model_copy(update={"arms": arms, "space": {}, "pruning": None})
    return search(experiment, tmp_path_factory.mktemp("export") / "results")
