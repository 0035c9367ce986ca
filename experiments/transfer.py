"""Does pretraining on MNIST help on Fashion-MNIST when only 1 % of its labels and five epochs are there?

    mnist-suite sweep transfer

Same network, same recipe, same number of trials; only where the weights start and what is trained differ.
Best validation accuracies that this gave: full 80.5 %, lp-ft 79.8 %, scratch 79.5 %, head 72.8 %.
"""

from experiments.mnist import EXPERIMENT as MNIST
from suite.spec import Arm, Choice, Experiment, Full, HeadOnly, LogFloat, LpFt, Recipe

RECIPE = Recipe(lr=0.03, nesterov=True, schedule="cosine", warmup=0.1, epochs=5, batch_size=32)

EXPERIMENT = Experiment(
    name="transfer",
    question="Does pretraining on MNIST help on Fashion-MNIST when only 1 % of its labels and five epochs are there?",
    dataset="fashion-mnist",
    pretraining=MNIST.pretraining,
    arms={
        "scratch": Arm(backbone="cnn", fraction=0.01, recipe=RECIPE),
        "head": Arm(backbone="cnn", fraction=0.01, recipe=RECIPE, strategy=HeadOnly(), weights="experiment"),
        "full": Arm(backbone="cnn", fraction=0.01, recipe=RECIPE, strategy=Full(), weights="experiment"),
        "lp-ft": Arm(backbone="cnn", fraction=0.01, recipe=RECIPE, strategy=LpFt(), weights="experiment"),
    },
    space={"lr": LogFloat(low=3e-3, high=0.3), "batch_size": Choice(values=(16, 32, 64))},
    pruning=None,
    trials=40,
)
