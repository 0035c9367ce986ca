"""Does a CNN pretrained on MNIST help on Fashion-MNIST, beside an ImageNet backbone and no pretraining at all?

    mnist-suite sweep fashion --trials 50

Best validation accuracies that this gave with `--trials 10`, two an arm:
cnn-scratch 92.12 %, cnn-full 91.57 %, lite0-head 87.80 %, lite0-full 85.63 %, cnn-head 80.32 %.
It has not been run to 50.
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
