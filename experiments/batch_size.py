"""What does the batch size change on MNIST, when each has its learning rate searched?

    mnist-suite sweep batch_size

One epoch of `lean-s` by AdamW: the smaller the batch, the more steps. Eight trials of the learning rate for each size.
Figures: results/batch-size.md.
"""

from experiments.accuracy import EXPERIMENT as ACCURACY
from suite.spec import Arm, Experiment, LogFloat

RECIPE = ACCURACY.arms["quick"].recipe  # chosen at 256 images
SIZES = (32, 64, 128, 256, 512, 1024)


def _arm(size: int) -> Arm:
    rate = RECIPE.lr * (size / 256) ** 0.5  # the square root rule for Adam, where the search begins
    recipe = RECIPE.model_copy(update={"batch_size": size, "lr": rate})
    return Arm(backbone="lean-s", recipe=recipe, space={"lr": LogFloat(low=rate / 5, high=rate * 5)})


EXPERIMENT = Experiment(
    name="batch-size",
    question="What does the batch size change on MNIST in one epoch, when each has its learning rate searched?",
    dataset="mnist",
    arms={f"batch-{size}": _arm(size) for size in SIZES},
    trials=8 * len(SIZES),
)
