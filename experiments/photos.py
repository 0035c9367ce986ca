"""Which way of using a pretrained backbone suits a folder of one's own photos, and is a small network enough?

    mnist-suite sweep photos --dataset folder:PATH --trials 24

PATH holds a folder of pictures for each class; docs/own-images.md says more. Without --dataset the folder `photos` of
the working directory is taken.
"""

from suite.spec import Arm, Augment, Choice, Experiment, Full, HeadOnly, LogFloat, Pruning, Recipe, Ridge

LITE = "timm:tf_efficientnet_lite0"

PHOTOS = Augment(crop=0.35, flip=True)

EXPERIMENT = Experiment(
    name="photos",
    question="Which of four ways classifies a folder of photos best: frozen features, fine-tuning or a small network?",
    dataset="folder:photos",
    arms={
        "lite0-linear": Arm(
            backbone=LITE,
            strategy=HeadOnly(),
            weights="pretrained",
            size=224,
            recipe=Recipe(lr=0.05, schedule="cosine", epochs=20, batch_size=32),
        ),
        "lite0-ridge": Arm(
            backbone=LITE,
            strategy=HeadOnly(head=Ridge()),
            weights="pretrained",
            size=224,
            space={"strategy.head.l2": LogFloat(low=1e-3, high=10.0)},
        ),
        "lite0-full": Arm(
            backbone=LITE,
            strategy=Full(),
            weights="pretrained",
            size=160,
            recipe=Recipe(
                optimizer="adamw",
                lr=0.001,
                weight_decay=0.01,
                schedule="cosine",
                warmup=0.1,
                epochs=6,
                batch_size=32,
                augment=PHOTOS,
            ),
            space={"lr": LogFloat(low=1e-4, high=5e-3)},
        ),
        "lean-m-scratch": Arm(
            backbone="lean-m",
            recipe=Recipe(
                optimizer="adamw",
                lr=0.005,
                weight_decay=0.01,
                schedule="onecycle",
                epochs=20,
                batch_size=32,
                augment=PHOTOS,
            ),
            space={"lr": LogFloat(low=1e-3, high=2e-2)},
        ),
    },
    space={"lr": LogFloat(low=5e-3, high=0.5), "batch_size": Choice(values=(16, 32))},
    trials=24,
    pruning=Pruning(),
)
