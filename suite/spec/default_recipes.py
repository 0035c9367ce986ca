"""What `pretrain` and `finetune` use where the command line says nothing; `--set` changes single values."""

from __future__ import annotations

from suite.spec.recipe import Augment, Recipe

PRETRAIN = Recipe(
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

# Whole backbones move gently; cosine so that the last epoch counts.
FINETUNE = Recipe(lr=0.02, schedule="cosine", warmup=0.1, epochs=2, batch_size=64)


def default(strategy: str) -> Recipe:
    """The recipe for one strategy."""
    if strategy == "head":
        return HEAD
    return PRETRAIN if strategy in ("scratch", "pretrain") else FINETUNE
