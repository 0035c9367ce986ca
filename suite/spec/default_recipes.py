"""The recipes that `pretrain` and `finetune` start from; `--set` changes single values."""

from __future__ import annotations

from typing import Literal

from suite.spec.recipe import FROM_RANDOM, RESHAPED, Augment, Recipe

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

# Measured with EfficientNet-Lite0 and its published weights on few photo-like pictures, see docs/training.md.
FINETUNE_CONVOLUTIONAL = Recipe(
    optimizer="adamw", lr=0.001, weight_decay=0.01, schedule="cosine", warmup=0.1, epochs=8, batch_size=32
)

# From publications, not measured here: AdamW with weight decay and layer-wise learning rate decay as in BEiT (Bao et
# al., 2022, arXiv:2106.08254) and MAE (He et al., 2022, arXiv:2111.06377). MAE's rate of 0.0005 for 256 images is
# scaled to 32 by the square root (Malladi et al., 2022, arXiv:2205.10287).
FINETUNE_TRANSFORMER = Recipe(
    optimizer="adamw",
    lr=0.0002,
    weight_decay=0.05,
    schedule="cosine",
    warmup=0.1,
    epochs=8,
    batch_size=32,
    label_smoothing=0.1,
    clip_norm=1.0,
    layer_decay=0.75,
)

# After pruning and low-rank factorisation, and of small networks that learn from a teacher. No label smoothing: the
# teacher's probabilities take its place.
COMPRESS = Recipe(
    optimizer="adamw",
    lr=0.003,
    momentum=0.8,
    weight_decay=0.01,
    schedule="onecycle",
    epochs=8,
    batch_size=128,
    augment=Augment(shift=1.5, rotate=8.0, scale=0.08),
)

DISTILL = COMPRESS.model_copy(update={"lr": 0.01, "beta2": 0.9, "epochs": 16})

Family = Literal["own", "convolutional", "transformer"]

# How the names of timm's transformers begin. Hybrids with batch norm (LeViT, MobileViT, EfficientViT) are not among
# them: they are trained as convolutional networks are.
TRANSFORMERS = (
    *(
        "aimv2",
        "beit",
        "cait",
        "coat",
        "convit",
        "crossvit",
        "davit",
        "deepseek_vit",
        "deit",
        "eva",
        "flexivit",
        "gcvit",
    ),
    *("gemma4_vit", "hiera", "maxvit", "maxxvit", "mvit", "naflexvit", "nest", "pit", "pvt", "qwen3_vit", "sam2_hiera"),
    *("samvit", "swin", "test_vit", "tiny_vit", "tnt", "twins", "vit", "volo", "xcit"),
)


def family(backbone: str) -> Family:
    """The kind of network that a backbone is, by its name. What no name tells is convolutional."""
    prefix, _, name = backbone.partition("timm:")
    if prefix or not name:
        return "own"
    return "transformer" if name.startswith(TRANSFORMERS) else "convolutional"


def compression_recipe(backbone: str) -> Recipe:
    """The recipe that trains a pruned or factored model on."""
    return COMPRESS if family(backbone) == "own" else default_recipe("full", backbone)


def default_recipe(strategy: str, backbone: str) -> Recipe:
    """The default recipe of a strategy, given by its `kind`, for a backbone."""
    if strategy == "head":
        return HEAD
    if strategy in FROM_RANDOM:
        return FROM_SCRATCH
    if strategy in RESHAPED:
        return compression_recipe(backbone)
    by_family = {"own": FINETUNE, "convolutional": FINETUNE_CONVOLUTIONAL, "transformer": FINETUNE_TRANSFORMER}
    return by_family[family(backbone)]
