"""How do I raise accuracy on MNIST, and how do I lower what it costs? Four ways, with equally many trials each.

    mnist-suite sweep mnist --trials 50

Figures: results/demo.md, which `make demo` repeats.
"""

from suite.spec import (
    Arm,
    Augment,
    Choice,
    Experiment,
    HeadOnly,
    LogFloat,
    Partial,
    Pretraining,
    Pruning,
    Recipe,
    Uniform,
)

EXPERIMENT = Experiment(
    name="mnist",
    question="Which of four ways gives the best accuracy on MNIST, and at what compute cost?",
    dataset="mnist",
    pretraining=Pretraining(
        dataset="mnist",
        backbone="cnn",
        recipe=Recipe(
            lr=0.05,
            nesterov=True,
            weight_decay=5e-4,
            schedule="onecycle",
            epochs=3,
            batch_size=128,
            augment=Augment(shift=1.5, rotate=8.0, scale=0.08),
        ),
    ),
    arms={
        "cnn-scratch": Arm(
            backbone="cnn",
            recipe=Recipe(),  # the tutorial's
        ),
        "cnn-head": Arm(
            backbone="cnn",
            strategy=HeadOnly(),
            weights="experiment",
            recipe=Recipe(lr=0.01, schedule="cosine", epochs=9, batch_size=128),
        ),
        "lite0-head": Arm(
            backbone="timm:tf_efficientnet_lite0",
            strategy=HeadOnly(),
            weights="pretrained",
            size=48,
            recipe=Recipe(lr=0.01, schedule="cosine", epochs=9, batch_size=128),
        ),
        "lite0-partial": Arm(
            backbone="timm:tf_efficientnet_lite0",
            strategy=Partial(blocks=1),
            weights="pretrained",
            size=32,
            fraction=0.1,
            recipe=Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=64),
        ),
    },
    space={
        "lr": LogFloat(low=1e-3, high=0.3),
        "momentum": Uniform(low=0.5, high=0.98),
        "batch_size": Choice(values=(64, 128, 256)),
        "schedule": Choice(values=("constant", "cosine", "onecycle")),
    },
    trials=50,
    pruning=Pruning(),
)
