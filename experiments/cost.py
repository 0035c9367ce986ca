"""How do I lower the cost of training on MNIST and of the trained network, step by step from the tutorial's recipe?

    mnist-suite sweep cost

Each arm changes one thing more. Nothing is searched: one trial an arm. Compression of a trained network has an
experiment of its own, `compress`; so has training a part of the parameters, `efficient`. Figures: results/cost.md.
"""

from experiments.accuracy import QUICK
from experiments.tutorial import RECIPE as TUTORIAL
from suite.spec import Arm, Experiment

CYCLE = TUTORIAL.model_copy(update={"lr": 0.05, "nesterov": True, "schedule": "onecycle", "epochs": 1})
ARMS = {
    "tutorial": Arm(backbone="cnn", recipe=TUTORIAL),
    # half the epochs, a one-cycle schedule
    "one-epoch": Arm(backbone="cnn", recipe=CYCLE, against=("tutorial",)),
    "bf16": Arm(backbone="cnn", recipe=CYCLE.model_copy(update={"precision": "bf16"}), against=("one-epoch",)),
    # AdamW, larger batches
    "batch-256": Arm(backbone="cnn", recipe=QUICK.model_copy(update={"lr": 0.004}), against=("bf16",)),
    # a network with batch norm and strided convolutions
    "lean-s": Arm(backbone="lean-s", recipe=QUICK, against=("batch-256", "tutorial")),
    # fewer than 8,000 parameters
    "lean-xs": Arm(backbone="lean-xs", recipe=QUICK, against=("lean-s", "tutorial")),
}

EXPERIMENT = Experiment(
    name="cost",
    question="How do I lower the cost of training on MNIST and of the trained network?",
    dataset="mnist",
    arms=ARMS,
    trials=len(ARMS),
    pruning=None,
)
