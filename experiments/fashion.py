"""Does a CNN pretrained on MNIST help on Fashion-MNIST, compared with an ImageNet backbone and no pretraining?

    mnist-suite sweep fashion --trials 50

Figures: results/fashion.md.
"""

from experiments.mnist import EXPERIMENT as MNIST
from suite.spec import Arm, Experiment, Full, Recipe

EXPERIMENT = Experiment(
    name="fashion",
    question="Which of five ways gives the best accuracy on Fashion-MNIST, and what does MNIST's pretraining add?",
    dataset="fashion-mnist",
    pretraining=MNIST.pretraining,
    arms={
        **MNIST.arms,
        "cnn-full": Arm(
            backbone="cnn",
            strategy=Full(),
            weights="experiment",
            recipe=Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=128),
        ),
    },
    space=MNIST.space,
    trials=50,
    pruning=MNIST.pruning,
)
