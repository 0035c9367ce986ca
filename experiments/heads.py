"""Which head is best on frozen features of EfficientNet-Lite0, for Fashion-MNIST?

    mnist-suite sweep heads

Five heads on the same features, which are computed once: two trained by gradient descent, two solved, and k nearest
neighbours. Each searches what matters most to it, in eight trials. Figures: results/heads.md.
"""

from suite.spec import Arm, Choice, Experiment, HeadOnly, Knn, Linear, LogFloat, Logreg, Mlp, Recipe, Ridge, Space
from suite.spec.recipe import HeadSpec

RECIPE = Recipe(lr=0.05, schedule="cosine", epochs=20, batch_size=256)
HEADS: dict[str, tuple[HeadSpec, Space]] = {
    "linear": (Linear(), {"lr": LogFloat(low=0.005, high=0.5)}),
    "mlp": (Mlp(), {"lr": LogFloat(low=0.005, high=0.5)}),
    "logreg": (Logreg(), {"strategy.head.c": LogFloat(low=0.01, high=100.0)}),
    "ridge": (Ridge(), {"strategy.head.l2": LogFloat(low=0.001, high=10.0)}),
    "knn": (Knn(), {"strategy.head.k": Choice(values=(1, 3, 5, 7, 9, 15, 25, 50))}),
}

EXPERIMENT = Experiment(
    name="heads",
    question="Which head is best on frozen features of EfficientNet-Lite0, for Fashion-MNIST?",
    dataset="fashion-mnist",
    arms={
        name: Arm(
            backbone="timm:tf_efficientnet_lite0",
            weights="pretrained",
            size=48,
            strategy=HeadOnly(head=head),
            recipe=RECIPE,
            space=space,
        )
        for name, (head, space) in HEADS.items()
    },
    trials=40,
)
