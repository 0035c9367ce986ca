"""What does compression cost in accuracy? One trained `cnn`, made smaller in several ways.

    mnist-suite sweep compress

One trial an arm, each with the trained network as its parent: pruned to a half, a quarter and an eighth of its
parameters, its hidden layer factored, distilled into smaller networks, and in 8-bit integers. All that are trained
learn from the parent as well as from the labels. More trials search the learning rates. The same for a model of your
own: `mnist-suite compress STUDY`.

To expect, as validation accuracies of one training each: parent 99.48 %, prune-50 99.57 %, prune-25 99.52 %, prune-12.5
99.32 %, low-rank-25 99.45 %, distill-lean-s 99.52 %, distill-lean-xs 99.48 %, int8 99.48 %. Details:
docs/compression.md.
"""

from suite.spec import Arm, Experiment, Pretraining
from suite.spec.compression import compressions
from suite.spec.default_recipes import COMPRESS

ARMS = compressions(Arm(backbone="cnn"), "experiment", into=("lean-s", "lean-xs"))

EXPERIMENT = Experiment(
    name="compress",
    question="What does it cost in accuracy to make a trained network smaller?",
    dataset="mnist",
    pretraining=Pretraining(
        dataset="mnist",
        backbone="cnn",
        recipe=COMPRESS.model_copy(update={"lr": 0.004}),
    ),
    arms=ARMS,
    trials=len(ARMS),
    pruning=None,
)
