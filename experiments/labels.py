"""When does pretraining help? Fashion-MNIST with 1, 2, 5, 10 and 100 % of the labels.

    mnist-suite sweep labels

Six ways. Four share the network `cnn`: from random weights, and from the weights of a training on MNIST, as a linear
head on frozen features, fine-tuned, and fine-tuned after the head. Two start from EfficientNet-Lite0's ImageNet
weights: a linear head at 48 pixels, and fine-tuned at 32 pixels, the latter for up to 10 % of the labels. Fewer labels
are seen for more epochs. Each arm searches its learning rate in four trials. Figures: results/labels.md.
"""

from experiments.mnist import EXPERIMENT as MNIST
from suite.spec import Arm, Experiment, Full, HeadOnly, LogFloat, LpFt, Recipe

EPOCHS = {0.01: 30, 0.02: 20, 0.05: 12, 0.1: 8, 1.0: 3}  # by the share of the labels
CNN = Recipe(lr=0.03, nesterov=True, schedule="cosine", warmup=0.1, batch_size=32)
LITE0 = Recipe(optimizer="adamw", lr=1e-3, weight_decay=0.01, schedule="cosine", warmup=0.1, batch_size=32)
HEAD = Recipe(lr=0.03, schedule="cosine", batch_size=32)
WAYS = {
    "scratch": Arm(backbone="cnn", recipe=CNN),
    "head": Arm(backbone="cnn", recipe=HEAD, strategy=HeadOnly(), weights="experiment"),
    "full": Arm(backbone="cnn", recipe=CNN, strategy=Full(), weights="experiment"),
    "lp-ft": Arm(backbone="cnn", recipe=CNN, strategy=LpFt(), weights="experiment"),
    "lite0-head": Arm(
        backbone="timm:tf_efficientnet_lite0", recipe=HEAD, strategy=HeadOnly(), weights="pretrained", size=48
    ),
    "lite0-full": Arm(
        backbone="timm:tf_efficientnet_lite0", recipe=LITE0, strategy=Full(), weights="pretrained", size=32
    ),
}


def _arm(way: str, share: float) -> Arm:
    arm = WAYS[way]
    epochs = EPOCHS[share] // (2 if way == "lite0-full" else 1)  # an epoch of it takes the longest by far
    recipe = arm.recipe.model_copy(update={"epochs": epochs})
    rates = LogFloat(low=recipe.lr / 4, high=recipe.lr * 4)
    baseline = () if way == "scratch" else (f"scratch-{100 * share:g}",)
    return arm.model_copy(update={"fraction": share, "recipe": recipe, "space": {"lr": rates}, "against": baseline})


ARMS = {
    f"{way}-{100 * share:g}": _arm(way, share) for share in EPOCHS for way in WAYS if way != "lite0-full" or share < 1
}

EXPERIMENT = Experiment(
    name="labels",
    question="From how many labels on does pretraining no longer help on Fashion-MNIST?",
    dataset="fashion-mnist",
    pretraining=MNIST.pretraining,
    arms=ARMS,
    trials=4 * len(ARMS),
)
