"""From how many labels on does pretraining on MNIST no longer help on Fashion-MNIST, with five epochs?

    mnist-suite sweep transfer

Four ways with 1 %, 10 % and 100 % of the labels. They share the network, the recipe and the number of trials, and
differ in the initial weights and in what is trained. The report plots accuracy against labels for each way.

To expect with 1 % of the labels and ten trials an arm, as best validation accuracies: full 80.53 %, lp-ft 79.80 %,
scratch 79.45 %, head 72.77 %. Details: results/README.md.
"""

from experiments.mnist import EXPERIMENT as MNIST
from suite.spec import Arm, Choice, Experiment, Full, HeadOnly, LogFloat, LpFt, Recipe

RECIPE = Recipe(lr=0.03, nesterov=True, schedule="cosine", warmup=0.1, epochs=5, batch_size=32)
WAYS = {
    "scratch": Arm(backbone="cnn", recipe=RECIPE),
    "head": Arm(backbone="cnn", recipe=RECIPE, strategy=HeadOnly(), weights="experiment"),
    "full": Arm(backbone="cnn", recipe=RECIPE, strategy=Full(), weights="experiment"),
    "lp-ft": Arm(backbone="cnn", recipe=RECIPE, strategy=LpFt(), weights="experiment"),
}
FRACTIONS = (0.01, 0.1, 1.0)  # of the training labels

EXPERIMENT = Experiment(
    name="transfer",
    question="From how many labels on does pretraining on MNIST no longer help on Fashion-MNIST, with five epochs?",
    dataset="fashion-mnist",
    pretraining=MNIST.pretraining,
    arms={
        f"{way}-{100 * fraction:g}": arm.model_copy(update={"fraction": fraction})
        for fraction in FRACTIONS
        for way, arm in WAYS.items()
    },
    space={"lr": LogFloat(low=3e-3, high=0.3), "batch_size": Choice(values=(16, 32, 64))},
    trials=48,
)
