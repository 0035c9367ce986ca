"""The recipes that `pretrain` and `finetune` start from; `--set` changes single values."""

from __future__ import annotations

from suite.spec.recipe import FROM_RANDOM, Augment, Recipe

FROM_SCRATCH = Recipe(
    optimizer="adamw",
    lr=0.005,
    momentum=0.8,
    weight_decay=0.01,
    schedule="onecycle",
    epochs=4,
    batch_size=256,
    augment=Augment(shift=2.0, rotate=10.0, scale=0.1),
)

HEAD = Recipe(lr=0.05, schedule="cosine", epochs=20, batch_size=256)

FINETUNE = Recipe(lr=0.02, schedule="cosine", warmup=0.1, epochs=2, batch_size=64)


def default_recipe(strategy: str) -> Recipe:
    """The default recipe of a strategy, given by its `kind`."""
    if strategy == "head":
        return HEAD
    return FROM_SCRATCH if strategy in FROM_RANDOM else FINETUNE
