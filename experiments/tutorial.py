"""What do the tutorial's two networks reach in two epochs, trained as the tutorial trains them?

    mnist-suite sweep tutorial

SGD 0.01, momentum 0.9, batch 64, cross-entropy, fp32. Nothing is searched: one trial an arm.

Figures: results/tutorial.md.
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
