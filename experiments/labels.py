"""When does pretraining help? Fashion-MNIST with 1, 2, 5, 10 and 100 % of the labels.

    mnist-suite sweep labels

Five ways. Four share the network `cnn`: from random weights, and from the weights of a training on MNIST, as a linear
head on frozen features, fine-tuned, and fine-tuned after the head. The fifth is a linear head on frozen features of
EfficientNet-Lite0's ImageNet weights. Fewer labels are seen for more epochs. Each arm searches its learning rate in
three trials. Figures: results/labels.md.
"""

from experiments.mnist import EXPERIMENT as MNIST
from suite.spec import Arm, Experiment, Full, HeadOnly, LogFloat, LpFt, Recipe

EPOCHS = {0.01: 20, 0.02: 15, 0.05: 8, 0.1: 6, 1.0: 3}  # by the share of the labels
CNN = Recipe(lr=0.03, nesterov=True, schedule="cosine", warmup=0.1, batch_size=32)
HEAD = Recipe(lr=0.03, schedule="cosine", batch_size=32)
WAYS = {
    "scratch": Arm(backbone="cnn", recipe=CNN),
    "head": Arm(backbone="cnn", recipe=HEAD, strategy=HeadOnly(), weights="experiment"),
    "full": Arm(backbone="cnn", recipe=CNN, strategy=Full(), weights="experiment"),
    "lp-ft": Arm(backbone="cnn", recipe=CNN, strategy=LpFt(), weights="experiment"),
    "lite0-head": Arm(
        backbone="timm:tf_efficientnet_lite0", recipe=HEAD, strategy=HeadOnly(), weights="pretrained", size=48
    ),
}


def _arm(way: str, share: float) -> Arm:
    arm = WAYS[way]
    recipe = arm.recipe.model_copy(update={"epochs": EPOCHS[share]})
    rates = LogFloat(low=recipe.lr / 4, high=recipe.lr * 4)
    baseline = () if way == "scratch" else (f"scratch-{100 * share:g}",)
    return arm.model_copy(update={"fraction": share, "recipe": recipe, "space": {"lr": rates}, "against": baseline})


ARMS = {f"{way}-{100 * share:g}": _arm(way, share) for share in EPOCHS for way in WAYS}

EXPERIMENT = Experiment(
    name="labels",
    question="From how many labels on does pretraining no longer help on Fashion-MNIST?",
    dataset="fashion-mnist",
    pretraining=MNIST.pretraining,
    arms=ARMS,
    trials=3 * len(ARMS),
)
