"""How do I lower the cost of training on MNIST and of the trained network, step by step from the tutorial's recipe?

    mnist-suite sweep cost

Each arm changes one thing more. Nothing is searched: one trial an arm. Compression of a trained network has an
experiment of its own, `compress`; so has training a part of the parameters, `efficient`. Figures: results/cost.md.
"""

from itertools import pairwise

from experiments.accuracy import EXPERIMENT as ACCURACY
from experiments.tutorial import RECIPE as TUTORIAL
from suite.spec import Arm, Experiment

CYCLE = TUTORIAL.model_copy(update={"lr": 0.05, "nesterov": True, "schedule": "onecycle", "epochs": 1})
QUICK = ACCURACY.arms["quick"]
ARMS = {
    "tutorial": Arm(backbone="cnn", recipe=TUTORIAL),
    "one-epoch": Arm(backbone="cnn", recipe=CYCLE),  # half the epochs, a one-cycle schedule
    "bf16": Arm(backbone="cnn", recipe=CYCLE.model_copy(update={"precision": "bf16"})),
    "batch-256": Arm(backbone="cnn", recipe=QUICK.recipe.model_copy(update={"lr": 0.004})),  # AdamW, larger batches
    "lean-s": QUICK,  # a network with batch norm and strided convolutions
    "lean-xs": Arm(backbone="lean-xs", recipe=QUICK.recipe),  # fewer than 8,000 parameters
}
EXPERIMENT = Experiment(
    name="cost",
    question="How do I lower the cost of training on MNIST and of the trained network?",
    dataset="mnist",
    arms={
        "tutorial": ARMS["tutorial"],
        **{name: ARMS[name].model_copy(update={"against": before}) for before, name in pairwise(ARMS)},
    },
    trials=len(ARMS),
    pruning=None,
)
