"""The tutorial's two networks exactly as written: SGD 0.01, momentum 0.9, batch 64, two epochs, cross-entropy.

    mnist-suite sweep tutorial

Validation accuracies that this gave: cnn 98.23 %, net 98.23 %. Nothing is searched: one trial an arm.
"""

from suite.spec import Arm, Experiment, Recipe

RECIPE = Recipe(lr=0.01, momentum=0.9, batch_size=64, epochs=2, schedule="constant", precision="fp32")

EXPERIMENT = Experiment(
    name="tutorial",
    question="What do the tutorial's two networks reach in two epochs?",
    dataset="mnist",
    arms={"cnn": Arm(backbone="cnn", recipe=RECIPE), "net": Arm(backbone="net", recipe=RECIPE)},
    trials=2,
    pruning=None,
)
