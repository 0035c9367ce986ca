"""The arms of an experiment that compresses one trained model."""

from __future__ import annotations

from collections.abc import Sequence

from suite.spec.default_recipes import DISTILL, compression_recipe
from suite.spec.experiment import Arm
from suite.spec.recipe import Int8, LowRank, Prune, Scratch, Strategy
from suite.spec.space import LogFloat, Space

KEEP = (0.5, 0.25, 0.125)  # shares of the parameters that pruning leaves

RANK = 0.25  # of factored layers, as a share of the full rank


def compressions(parent: Arm, source: str, *, keep: Sequence[float] = KEEP, into: Sequence[str] = ()) -> dict[str, Arm]:
    """Ways to make a trained model smaller, by name of the arm. All that are trained learn from the model too.

    Args:
        parent: backbone, input and share of the labels of the trained model.
        source: its weights, as in `Arm.weights`.
        keep: shares of the parameters to prune to.
        into: backbones to train anew with the model as their teacher.
    """
    recipe = compression_recipe(parent.backbone)
    ways: dict[str, Strategy] = {f"prune-{100 * share:g}": Prune(keep=share) for share in keep}
    ways[f"low-rank-{100 * RANK:g}"] = LowRank(rank=RANK)
    arms = {
        name: _like(parent, strategy=way, weights=source, teacher=source, recipe=recipe, space=_rates(recipe.lr))
        for name, way in ways.items()
    }
    for backbone in into:
        arms[f"distill-{backbone.removeprefix('timm:')}"] = _like(
            parent, backbone=backbone, strategy=Scratch(), teacher=source, recipe=DISTILL, space=_rates(DISTILL.lr)
        )
    arms["int8"] = _like(parent, strategy=Int8(), weights=source)
    return arms


def _like(parent: Arm, **changes: object) -> Arm:
    facts = {"backbone": parent.backbone, "size": parent.size, "fit": parent.fit, "fraction": parent.fraction}
    return Arm.model_validate(facts | changes)


def _rates(rate: float) -> Space:
    return {"lr": LogFloat(low=rate / 4, high=rate * 4)}
