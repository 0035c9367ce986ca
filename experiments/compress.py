"""What does compression cost in accuracy? One trained `cnn`, made smaller in several ways.

    mnist-suite sweep compress

One trial an arm, each with the trained network as its parent: pruned to a half, a quarter and an eighth of its
parameters, its hidden layer factored, distilled into smaller networks, and in 8-bit integers. All that are trained
learn from the parent as well as from the labels. More trials search the learning rates. The same for a model of your
own: `mnist-suite compress STUDY`.

The arm `parent` trains the network anew by the parent's recipe: what the others are compared with. Figures:
results/compress.md.
"""

from suite.spec import Arm, Experiment, Pretraining
from suite.spec.compression import compressions
from suite.spec.default_recipes import COMPRESS

PARENT = COMPRESS.model_copy(update={"lr": 0.004})
SMALLER = compressions(Arm(backbone="cnn"), "experiment", into=("lean-s", "lean-xs"))
ARMS = {
    "parent": Arm(backbone="cnn", recipe=PARENT),
    **{name: arm.model_copy(update={"against": ("parent",)}) for name, arm in SMALLER.items()},
}

EXPERIMENT = Experiment(
    name="compress",
    question="What does it cost in accuracy to make a trained network smaller?",
    dataset="mnist",
    pretraining=Pretraining(dataset="mnist", backbone="cnn", recipe=PARENT),
    arms=ARMS,
    trials=len(ARMS),
    pruning=None,
)
