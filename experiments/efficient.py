"""How many of EfficientNet-Lite0's parameters have to be trained for Fashion-MNIST, and what does training fewer save?

    mnist-suite sweep efficient --set fraction=0.1
    mnist-suite leaderboard efficient --columns arm,accuracy,trainable,memory,seconds --sort trainable

Six ways from the same published weights: a linear head on frozen features, the biases, the norm layers, changes of low
rank to all weights, the last block, and every parameter. All but the head share a recipe, each searches its learning
rate. The report draws accuracy against trained parameters, memory and seconds.
"""

from suite.spec import (
    Arm,
    Bitfit,
    Choice,
    Experiment,
    Full,
    HeadOnly,
    LogFloat,
    Lora,
    NormOnly,
    Partial,
    Recipe,
    Strategy,
)

RECIPE = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine", warmup=0.1, epochs=4, batch_size=64)
FEW = RECIPE.model_copy(update={"lr": 3e-3})  # for few parameters, each of which has to move further
HEAD = Recipe(lr=0.05, schedule="cosine", epochs=20, batch_size=256)
WAYS: dict[str, tuple[Strategy, Recipe]] = {
    "head": (HeadOnly(), HEAD),
    "biases": (Bitfit(), FEW),
    "norms": (NormOnly(), FEW),
    "lora": (Lora(), FEW),
    "partial": (Partial(blocks=1), RECIPE),
    "full": (Full(), RECIPE),
}
SHAPES = {"strategy.rank": Choice(values=(4, 8)), "strategy.layers": Choice(values=("all", "pointwise"))}

EXPERIMENT = Experiment(
    name="efficient",
    question="How many of EfficientNet-Lite0's parameters have to be trained for Fashion-MNIST?",
    dataset="fashion-mnist",
    arms={
        way: Arm(
            backbone="timm:tf_efficientnet_lite0",
            weights="pretrained",
            size=48,
            strategy=strategy,
            recipe=recipe,
            against=() if way == "full" else ("full",),
            space={"lr": LogFloat(low=recipe.lr / 3, high=recipe.lr * 3), **(SHAPES if way == "lora" else {})},
        )
        for way, (strategy, recipe) in WAYS.items()
    },
    trials=24,
)
